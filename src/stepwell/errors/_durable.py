"""The errors of durable functions, under the names that their seed prints (durable.md §14)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from stepwell.errors._replay import PayloadError, ReplayError
from stepwell.errors._root import StepwellError
from stepwell.errors._usage import UsageError


class TerminationReason(StrEnum):
    """Why a life of a run ended without a result."""

    UNHANDLED_ERROR = "UNHANDLED_ERROR"
    INVOCATION_ERROR = "INVOCATION_ERROR"
    EXECUTION_ERROR = "EXECUTION_ERROR"
    CHECKPOINT_FAILED = "CHECKPOINT_FAILED"
    NON_DETERMINISTIC_EXECUTION = "NON_DETERMINISTIC_EXECUTION"
    STEP_INTERRUPTED = "STEP_INTERRUPTED"
    SERIALIZATION_ERROR = "SERIALIZATION_ERROR"


class DurableExecutionsError(StepwellError):
    """A durable function could not go on."""


class ValidationError(DurableExecutionsError, UsageError):
    """A durable operation was asked for with arguments that it cannot have; nothing was written."""


class NestedStepError(ValidationError):
    """A durable operation was called inside a step; a step is a leaf, use context.run_in_child_context."""


class SerDesError(DurableExecutionsError, PayloadError):
    """A value cannot be recorded.

    The text starts with the place of the value, as in `result.rows[3].conn`.
    """

    http_status = 400


class InvalidStateError(DurableExecutionsError):
    """The object was used after its end, or in a run that it does not belong to."""


class PluginLoadError(DurableExecutionsError):
    """A plugin could not be loaded."""


class UnrecoverableError(DurableExecutionsError):
    """The run cannot go on in this life.

    `termination_reason` says why.
    """

    termination_reason: TerminationReason = TerminationReason.UNHANDLED_ERROR

    def __init__(
        self,
        message: str | None = None,
        termination_reason: TerminationReason | None = None,
        *,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        if termination_reason is not None:
            self.termination_reason = termination_reason


class ExecutionError(UnrecoverableError):
    """The run failed for a reason that another life would meet again."""

    termination_reason = TerminationReason.EXECUTION_ERROR


class NonDeterminismError(ExecutionError, ReplayError):
    """The code asks for something else than what is on record.

    `key` is the place in the run, `expected` what is on record there, `found` what the code asks for now, `line` where
    it does so.
    """

    termination_reason = TerminationReason.NON_DETERMINISTIC_EXECUTION

    def __init__(
        self,
        message: str | None = None,
        *,
        key: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        line: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.key = key
        self.expected = expected
        self.found = found
        self.line = line


NonDeterministicExecutionError = NonDeterminismError


class InvocationError(UnrecoverableError):
    """This life of the run failed; another may succeed."""

    termination_reason = TerminationReason.INVOCATION_ERROR

    def is_retryable(self) -> bool:
        """Whether the engine may try again without being told so."""
        return True


class StepInterruptedError(InvocationError):
    """The step was interrupted; it may or may not have run."""

    termination_reason = TerminationReason.STEP_INTERRUPTED

    def is_retryable(self) -> bool:
        """Never: the step runs at most once per attempt, and this attempt may have run."""
        return False


class RetryableSerDesError(InvocationError):
    """A value could not be written or read this time; trying again may help."""

    termination_reason = TerminationReason.SERIALIZATION_ERROR


class DurableOperationError(DurableExecutionsError):
    """A durable operation failed.

    `error_type`, `data` and `stack_trace` are those of what was raised inside; `attempts`, `key` and `run_id` tell
    which operation it was, and are None where the error was made by hand.
    """

    # Stated on the class so that what it is combined with (durable.md §14, Identity) changes none of it: exit code and
    # status are the failed operation's, and a property `data` of the original class would hide the field.
    exit_code = 1
    http_status = 500
    error_type: str | None = None
    data: str | None = None
    stack_trace: list[str] | None = None
    attempts: int | None = None
    key: str | None = None
    run_id: str | None = None

    def __init__(
        self,
        message: str | None = None,
        error_type: str | None = None,
        data: str | None = None,
        stack_trace: Iterable[str] | None = None,
        *,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.error_type = error_type
        self.data = data
        self.stack_trace = None if stack_trace is None else list(stack_trace)
        self.attempts = None
        self.key = None
        self.run_id = None


class StepError(DurableOperationError):
    """A step failed, and its retries are used up."""


class StepTimeoutError(StepError):
    """A step did not end within its time."""


class InvokeError(DurableOperationError):
    """The invoked function failed."""


class ChildContextError(DurableOperationError):
    """What ran in a child context failed."""


class WaitForConditionError(DurableOperationError):
    """The condition did not come true."""


class BatchCompletionError(DurableOperationError):
    """The batch was completed as failed.

    `completion_reason` is the batch's.
    """

    completion_reason: object = None

    def __init__(
        self,
        message: str | None = None,
        error_type: str | None = None,
        data: str | None = None,
        stack_trace: Iterable[str] | None = None,
        *,
        completion_reason: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, error_type, data, stack_trace, hint=hint)
        self.completion_reason = completion_reason


class CallbackError(DurableOperationError):
    """The callback did not bring a result."""


class CallbackExternalError(CallbackError):
    """The callback was answered with a failure."""


class ApprovalRejected(CallbackExternalError):
    """The approval was refused."""


class CallbackTimeoutError(CallbackError):
    """The callback was not answered in time."""


class CallbackSubmitterError(CallbackError):
    """The function that hands out the callback's id failed."""
