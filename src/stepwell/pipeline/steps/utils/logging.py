"""`LoggingStep`: start and end of a step as events."""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter
from typing import Any

from stepwell.pipeline.steps.base import C, StepResult
from stepwell.pipeline.steps.utils._wrapper import Wrapper


class LoggingStep(Wrapper[C]):
    """Logs ``step_start`` and ``step_end`` (``elapsed``: seconds, three decimals) around a step, and
    ``step_rollback`` before its rollback. Its name is ``logged_`` and the inner step's.
    """

    prefix = "logged_"

    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Execute the inner step between two events."""
        context.log("step_start", self._about())
        start = perf_counter()
        try:
            result = self.step.execute(context)
        except BaseException as error:
            self._ended(context, start, None, error)
            raise
        if isinstance(result, Awaitable):
            return self._later(context, start, result)
        self._ended(context, start, result)
        return result

    async def _later(self, context: C, start: float, coming: Awaitable[StepResult]) -> StepResult:
        try:
            result = await coming
        except BaseException as error:
            self._ended(context, start, None, error)
            raise
        self._ended(context, start, result)
        return result

    def rollback(self, context: C, result: StepResult) -> Awaitable[None] | None:
        """An event, then the inner step's rollback."""
        context.log("step_rollback", self._about())
        return self.step.rollback(context, result)

    def _about(self) -> dict[str, Any]:
        return {"step": self.name, "inner": self.step.name}

    def _ended(self, context: C, start: float, result: Any, error: BaseException | None = None) -> None:
        told = {**self._about(), "elapsed": round(perf_counter() - start, 3)}
        told["success"] = error is None and bool(getattr(result, "success", False))
        if error is not None:
            told["error"] = str(error) or type(error).__name__
        context.log("step_end", told)
