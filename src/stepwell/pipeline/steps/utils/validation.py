"""`ValidationStep`: a check of the context as a step."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from stepwell.pipeline.steps.base import BaseStep, C, StepResult


class ValidationStep(BaseStep[C]):
    """Fails unless the context is as it should be.

    Args:
        validator: called with the context; returns ``(ok, text or None)``, or a bare bool. May be ``async def``.
        name: of the step.
        progress_weight: of the step.
    """

    def __init__(self, validator: Callable[[C], Any], name: str = "validate", progress_weight: float = 0.05) -> None:
        self.validator = validator
        self._name = name
        self._weight = progress_weight

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def progress_weight(self) -> float:
        """As given."""
        return self._weight

    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Ask the validator."""
        answer = self.validator(context)
        return _later(answer) if isinstance(answer, Awaitable) else _judged(answer)


async def _later(coming: Awaitable[Any]) -> StepResult:
    return _judged(await coming)


def _judged(answer: Any) -> StepResult:
    ok, text = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, None)
    if not isinstance(ok, bool) or not (text is None or isinstance(text, str)):
        error = f"validator must return (bool, str | None), got {type(answer).__name__}"
        return StepResult(success=False, error=error)
    return StepResult() if ok else StepResult(success=False, error=text or "validation failed")
