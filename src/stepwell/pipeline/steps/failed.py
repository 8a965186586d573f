"""`StepFailed`: what a pipeline raises that was rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.errors import RunFailed

if TYPE_CHECKING:
    from stepwell.pipeline.steps.base import StepResult


class StepFailed(RunFailed, RuntimeError):
    """A step failed, and what was done before it was rolled back.

    `step` is its name, `result` its own failed result, `run_id` the run, `rollback_errors` what could not be undone
    (texts, in the order in which it was tried). `__cause__` is the exception of the step, if it raised one.
    """

    step: str = ""
    result: StepResult | None = None
    rollback_errors: tuple[str, ...] = ()

    def __init__(
        self,
        message: str | None = None,
        *,
        step: str = "",
        result: StepResult | None = None,
        rollback_errors: tuple[str, ...] = (),
        **fields: Any,
    ) -> None:
        super().__init__(message, **fields)
        self.step = step
        self.result = result
        self.rollback_errors = rollback_errors
