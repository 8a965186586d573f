"""`TimingStep`: how long a step took, in its result."""

from __future__ import annotations

from collections.abc import Awaitable
from time import perf_counter

from stepwell.pipeline.steps.base import C, StepResult
from stepwell.pipeline.steps.utils._wrapper import Wrapper


class TimingStep(Wrapper[C]):
    """Puts ``data['duration_seconds']`` (six decimals) into the inner step's result, also into a failed one. Its name
    is ``timed_`` and the inner step's.
    """

    prefix = "timed_"

    def execute(self, context: C) -> StepResult | Awaitable[StepResult]:
        """Execute the inner step with a watch in hand."""
        start = perf_counter()
        result = self.step.execute(context)
        if isinstance(result, Awaitable):
            return _later(start, result)
        return _timed(start, result)


async def _later(start: float, coming: Awaitable[StepResult]) -> StepResult:
    return _timed(start, await coming)


def _timed(start: float, result: StepResult) -> StepResult:
    # What is no result, or has no dict, is refused by the Orchestrator with a text of its own.
    data: object = getattr(result, "data", None)
    if isinstance(data, dict):
        data["duration_seconds"] = round(perf_counter() - start, 6)
    return result
