"""`Wrapper`: a step around another one. All but the name is the inner step's."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from stepwell.pipeline.steps.base import BaseStep, C, StepResult
from stepwell.pipeline.steps.group import refuse_group


class Wrapper(BaseStep[C]):
    """See the module.

    Args:
        step: the inner step.

    Raises:
        TypeError: it is no `BaseStep`, or a group.
    """

    prefix = ""

    def __init__(self, step: BaseStep[C]) -> None:
        given: object = step
        if not isinstance(given, BaseStep):
            message = f"expected a BaseStep, got {type(given).__name__}"
            raise TypeError(message)
        refuse_group(step, "a wrapper")
        self.step = step

    @property
    def name(self) -> str:
        """The inner step's name with what this wrapper puts in front."""
        return self.prefix + self.step.name

    @property
    def progress_weight(self) -> float:
        """The inner step's."""
        return self.step.progress_weight

    @property
    def retry(self) -> Any:  # type: ignore[override]  # read from the inner step each time
        """The inner step's."""
        return self.step.retry

    @property
    def timeout(self) -> float | None:  # type: ignore[override]
        """The inner step's."""
        return self.step.timeout

    @property
    def at_most_once(self) -> bool:  # type: ignore[override]
        """The inner step's."""
        return self.step.at_most_once

    def can_skip(self, context: C) -> bool | Awaitable[bool]:
        """The inner step's answer."""
        return self.step.can_skip(context)

    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Execute the inner step."""
        return self.step.execute(context)

    def rollback(self, context: C, result: StepResult) -> Awaitable[None] | None:
        """Undo the inner step."""
        return self.step.rollback(context, result)

    def restore(self, context: C, result: StepResult) -> Awaitable[None] | None:
        """Restore the inner step."""
        return self.step.restore(context, result)

    def __getattr__(self, name: str) -> Any:
        if name == "step":  # before __init__: a copy or an unpickled object asks for it
            raise AttributeError(name)
        return getattr(self.step, name)


def innermost(step: BaseStep[Any]) -> BaseStep[Any]:
    """The step inside all wrappers."""
    while isinstance(step, Wrapper):
        step = step.step
    return step
