"""Operations in the words of `stepwell.durable.lambda_service`: which type, which subtype, which status."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from stepwell.core import US, parent_of
from stepwell.durable.lambda_service import OperationStatus, OperationSubType, OperationType

if TYPE_CHECKING:
    from stepwell.core import Kind, Op, RunState

TYPES: dict[Kind, tuple[OperationType, OperationSubType | str]] = {
    "step": (OperationType.STEP, OperationSubType.STEP),
    "once": (OperationType.STEP, OperationSubType.STEP),
    "rollback": (OperationType.STEP, OperationSubType.STEP),
    "wait_for_condition": (OperationType.STEP, OperationSubType.WAIT_FOR_CONDITION),
    "wait": (OperationType.WAIT, OperationSubType.WAIT),
    "signal": (OperationType.WAIT, "Signal"),
    "child": (OperationType.CONTEXT, OperationSubType.RUN_IN_CHILD_CONTEXT),
    "with_retry": (OperationType.CONTEXT, OperationSubType.RUN_IN_CHILD_CONTEXT),
    "map": (OperationType.CONTEXT, OperationSubType.MAP),
    "map_item": (OperationType.CONTEXT, OperationSubType.MAP_ITERATION),
    "parallel": (OperationType.CONTEXT, OperationSubType.PARALLEL),
    "parallel_branch": (OperationType.CONTEXT, OperationSubType.PARALLEL_BRANCH),
    "gather": (OperationType.CONTEXT, "Gather"),
    "race": (OperationType.CONTEXT, "Race"),
    "wait_for_callback": (OperationType.CONTEXT, OperationSubType.WAIT_FOR_CALLBACK),
    "callback": (OperationType.CALLBACK, OperationSubType.CALLBACK),
    "invoke": (OperationType.CHAINED_INVOKE, OperationSubType.CHAINED_INVOKE),
    "start": (OperationType.CHAINED_INVOKE, OperationSubType.CHAINED_INVOKE),
}
"""Every kind that is an operation to the outside. The others (now, uuid, …) only record a value."""

_STATUSES = {
    "started": OperationStatus.STARTED,
    "planned": OperationStatus.PENDING,
    "succeeded": OperationStatus.SUCCEEDED,
    "failed": OperationStatus.FAILED,
    "cancelled": OperationStatus.CANCELLED,
    "reopened": OperationStatus.STARTED,
}
_FAILURES = {"timed_out": OperationStatus.TIMED_OUT, "cancelled": OperationStatus.STOPPED}


def is_operation(op: Op) -> bool:
    """Whether it is one to the outside. The list of what `context.rollback` undoes is of the kind of its steps."""
    return op.kind in TYPES and (op.kind != "rollback" or op.attempt > 0)


def status_of(op: Op) -> OperationStatus:
    """Its status."""
    if op.status == "failed" and op.how in _FAILURES:
        return _FAILURES[op.how]
    return _STATUSES[op.status]


def parent_key(run: RunState, key: str) -> str | None:
    """Key of the nearest operation around it that is on record."""
    parent = parent_of(key)
    while parent and parent not in run.ops:
        parent = parent_of(parent)
    return parent or None


def time_of(at: int) -> datetime | None:
    """A recorded time; None for none."""
    return datetime.fromtimestamp(at / US, UTC) if at else None
