"""What `DurableRunner.run` gives: a finished run, as a test looks at it. It outlives the runner."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.core import step_name
from stepwell.durable.lambda_service import InvocationStatus, OperationStatus, OperationSubType, OperationType
from stepwell.errors import ErrorObject
from stepwell.testing._lookup import Lookup

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from stepwell.client import RunHandle
    from stepwell.durable.lambda_service import Operation
    from stepwell.testing._kit import Kit

_STATUS = {
    OperationStatus.SUCCEEDED: InvocationStatus.SUCCEEDED,
    OperationStatus.FAILED: InvocationStatus.FAILED,
    OperationStatus.CANCELLED: InvocationStatus.FAILED,
    OperationStatus.TIMED_OUT: InvocationStatus.FAILED,
    OperationStatus.STOPPED: InvocationStatus.FAILED,
}
"""Of an operation that has ended; one that is open is PENDING."""


class RunOperation(Lookup, msgspec.Struct, frozen=True):
    """One operation of a run. ``result``: the decoded value. Times are aware datetimes, None where there is none.

    ``status``: SUCCEEDED, FAILED (cancelled and timed out included), or PENDING while it is open. ``attempt`` counts
    from 1, 0 for what has no attempts. ``operations`` are those inside of it, in call order.
    """

    name: str | None
    status: InvocationStatus
    result: Any
    error: ErrorObject | None
    attempt: int
    operation_id: str
    operation_type: OperationType
    sub_type: OperationSubType | str | None
    parent_id: str | None
    start_timestamp: datetime | None
    end_timestamp: datetime | None
    next_attempt_timestamp: datetime | None
    scheduled_end_timestamp: datetime | None
    callback_id: str | None
    operations: tuple[RunOperation, ...]


def run_operation(op: Operation) -> RunOperation:
    """An operation with what is inside of it."""
    status = _STATUS.get(op.status, InvocationStatus.PENDING)
    return RunOperation(
        op.name, status, op.result, None if status is InvocationStatus.SUCCEEDED else op.error, op.attempt,
        op.operation_id,
        op.operation_type, op.sub_type, op.parent_id, op.start_timestamp, op.end_timestamp, op.next_attempt_timestamp,
        op.scheduled_end_timestamp, op.callback_id, tuple(run_operation(inner) for inner in op.child_operations),
    )  # fmt: skip


class RunResult(Lookup, msgspec.Struct, frozen=True):
    """A run that has ended, or whose time was up.

    ``status`` is SUCCEEDED or FAILED; ``execution_status`` tells more: TIMED_OUT (the test's time or the run's own),
    STOPPED (cancelled). ``result`` is the decoded value, ``error`` what it failed with. ``operations`` are the top
    level, in call order; ``logs`` what loggers said beside the steps: ``{at, key, level, attempt, text}``.
    """

    run_id: str
    status: InvocationStatus
    execution_status: OperationStatus
    result: Any
    error: ErrorObject | None
    operations: tuple[RunOperation, ...]
    logs: Sequence[dict[str, Any]]
    _history: dict[str, Any]

    def history(self, format: str = "stepwell") -> Any:
        """The run's records in order: ``{seq, epoch, record, ...fields}``; ``aws``: as events of the AWS shape.

        Raises:
            UsageError: there is no such format.
        """
        if format not in self._history:
            from stepwell.errors import UsageError

            message = f"history format {format!r}: there is {', '.join(self._history)}"
            raise UsageError(message)
        return self._history[format]


def how_it_ended(kit: Kit, handle: RunHandle, *, in_time: bool, timeout: float) -> tuple[Any, Any, OperationStatus]:
    """Value, error and status of a run; of one whose time was up, that."""
    if not in_time:
        run = kit.shown(handle.id)
        steps = ", ".join(f"'{step_name(run, key)}'" for key in sorted(run.executing))
        what = f"{handle.status} in step {steps}" if steps else handle.status
        message = f"the run did not end within {timeout:g} s of real time; it is {what}"
        return None, ErrorObject(message, "TimeoutError", None, None), OperationStatus.TIMED_OUT
    row = kit.row(handle.id)
    if row.status == "succeeded":
        return kit.engine.result(row), None, OperationStatus.SUCCEEDED
    error = handle.error
    match row.status:
        case "blocked":
            return None, ErrorObject(row.reason or "blocked", "RunBlocked", None, None), OperationStatus.FAILED
        case "timed_out":
            return None, error or ErrorObject("the run timed out", "RunTimedOut", None, None), OperationStatus.TIMED_OUT
        case "cancelled":
            return None, error or ErrorObject(row.reason, "RunCancelled", None, None), OperationStatus.STOPPED
        case _:
            return None, error, OperationStatus.FAILED


def run_result(kit: Kit, handle: RunHandle, *, in_time: bool, timeout: float) -> RunResult:
    """The run as it stands now."""
    value, error, ended = how_it_ended(kit, handle, in_time=in_time, timeout=timeout)
    fine = ended is OperationStatus.SUCCEEDED
    status = InvocationStatus.SUCCEEDED if fine else InvocationStatus.FAILED
    operations = tuple(run_operation(op) for op in handle.operations)
    history = {"stepwell": handle.history(), "aws": handle.history("aws")}
    return RunResult(handle.id, status, ended, value, error, operations, handle.logs(), history)


__all__ = ["RunOperation", "RunResult", "run_result"]
