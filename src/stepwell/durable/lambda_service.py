"""Operations of a run, as programs look at them: enums and frozen values. Nothing of AWS is behind it."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from stepwell.errors import ErrorObject

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "CallbackDetails",
    "CallbackTimeoutType",
    "ChainedInvokeDetails",
    "ContextDetails",
    "ErrorObject",
    "ExecutionDetails",
    "InvocationStatus",
    "Operation",
    "OperationAction",
    "OperationPayload",
    "OperationStatus",
    "OperationSubType",
    "OperationType",
    "StepDetails",
    "WaitDetails",
]

OperationPayload: TypeAlias = str
"""A value as it is recorded: JSON text, or the text of a serdes."""


class OperationStatus(Enum):
    """How far an operation has come. PENDING: it waits for its next attempt. READY: that attempt is due."""

    STARTED = "STARTED"
    PENDING = "PENDING"
    READY = "READY"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"
    STOPPED = "STOPPED"


class OperationType(Enum):
    """What kind of operation it is."""

    EXECUTION = "EXECUTION"
    CONTEXT = "CONTEXT"
    STEP = "STEP"
    WAIT = "WAIT"
    CALLBACK = "CALLBACK"
    CHAINED_INVOKE = "CHAINED_INVOKE"


class OperationSubType(StrEnum):
    """Which method of the context made it. Users may give other texts of their own."""

    STEP = "Step"
    WAIT = "Wait"
    CALLBACK = "Callback"
    RUN_IN_CHILD_CONTEXT = "RunInChildContext"
    MAP = "Map"
    MAP_ITERATION = "MapIteration"
    PARALLEL = "Parallel"
    PARALLEL_BRANCH = "ParallelBranch"
    WAIT_FOR_CALLBACK = "WaitForCallback"
    WAIT_FOR_CONDITION = "WaitForCondition"
    CHAINED_INVOKE = "ChainedInvoke"


class OperationAction(Enum):
    """What a record does to an operation."""

    START = "START"
    SUCCEED = "SUCCEED"
    FAIL = "FAIL"
    RETRY = "RETRY"
    CANCEL = "CANCEL"


class InvocationStatus(Enum):
    """How a life of a run ended. PENDING: parked. RETRY: another life is to try again."""

    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    PENDING = "PENDING"
    RETRY = "RETRY"


class CallbackTimeoutType(Enum):
    """Which limit of a callback was passed."""

    TIMEOUT = "Callback.Timeout"
    HEARTBEAT = "Callback.Heartbeat"


class ExecutionDetails(msgspec.Struct, frozen=True):
    """Of the run itself."""

    input_payload: OperationPayload | None = None


class ContextDetails(msgspec.Struct, frozen=True):
    """Of a scope. ``replay_children``: its result was too large to keep and is made again."""

    replay_children: bool = False
    result: Any = None
    error: ErrorObject | None = None


class StepDetails(msgspec.Struct, frozen=True):
    """Of a step or a condition. ``attempt`` from 1, 0 before the first."""

    attempt: int = 0
    next_attempt_timestamp: datetime | None = None
    result: Any = None
    error: ErrorObject | None = None


class WaitDetails(msgspec.Struct, frozen=True):
    """Of a wait."""

    scheduled_end_timestamp: datetime | None = None


class CallbackDetails(msgspec.Struct, frozen=True):
    """Of a callback."""

    callback_id: str
    result: Any = None
    error: ErrorObject | None = None


class ChainedInvokeDetails(msgspec.Struct, frozen=True):
    """Of an invoked function."""

    result: Any = None
    error: ErrorObject | None = None


_Details: TypeAlias = "ContextDetails | StepDetails | CallbackDetails | ChainedInvokeDetails"


class Operation(msgspec.Struct, frozen=True):
    """One operation of a run. Times are aware datetimes in UTC, None where there is none yet.

    ``sub_type`` is a member of `OperationSubType`, or the text that the user gave. Of the details only those of its
    ``operation_type`` are there; the properties look into them. Results are as the one who made this object gives them:
    text as recorded, or values.
    """

    operation_id: str
    operation_type: OperationType
    status: OperationStatus
    parent_id: str | None = None
    name: str | None = None
    start_timestamp: datetime | None = None
    end_timestamp: datetime | None = None
    sub_type: OperationSubType | str | None = None
    execution_details: ExecutionDetails | None = None
    context_details: ContextDetails | None = None
    step_details: StepDetails | None = None
    wait_details: WaitDetails | None = None
    callback_details: CallbackDetails | None = None
    chained_invoke_details: ChainedInvokeDetails | None = None
    child_operations: tuple[Operation, ...] = ()

    @property
    def _details(self) -> _Details | None:
        return self.step_details or self.context_details or self.callback_details or self.chained_invoke_details

    @property
    def result(self) -> Any:
        """What it returned; None where it has not, or returned None."""
        return None if self._details is None else self._details.result

    @property
    def error(self) -> ErrorObject | None:
        """How it failed, or what its last attempt failed with."""
        return None if self._details is None else self._details.error

    @property
    def attempt(self) -> int:
        """Attempts begun, from 1; 0 for what has no attempts."""
        return 0 if self.step_details is None else self.step_details.attempt

    @property
    def next_attempt_timestamp(self) -> datetime | None:
        """When its next attempt is due."""
        return None if self.step_details is None else self.step_details.next_attempt_timestamp

    @property
    def scheduled_end_timestamp(self) -> datetime | None:
        """When its wait ends."""
        return None if self.wait_details is None else self.wait_details.scheduled_end_timestamp

    @property
    def callback_id(self) -> str | None:
        """The id by which its callback is answered."""
        return None if self.callback_details is None else self.callback_details.callback_id
