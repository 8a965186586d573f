"""A run's operations in the shapes of `stepwell.durable.lambda_service`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from stepwell import serde
from stepwell.client._outcome import Reader
from stepwell.core import US, Op, RunState, operation_id, parent_of
from stepwell.durable.lambda_service import (
    CallbackDetails,
    ChainedInvokeDetails,
    ContextDetails,
    Operation,
    OperationStatus,
    OperationSubType,
    OperationType,
    StepDetails,
    WaitDetails,
)
from stepwell.errors import PayloadError
from stepwell.runtime._values import text_of
from stepwell.serde import to_error_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import Kind
    from stepwell.journal import Store

SUB_TYPES: dict[Kind, OperationSubType] = {
    "step": OperationSubType.STEP,
    "once": OperationSubType.STEP,
    "rollback": OperationSubType.STEP,
    "wait": OperationSubType.WAIT,
    "child": OperationSubType.RUN_IN_CHILD_CONTEXT,
    "map": OperationSubType.MAP,
    "map_item": OperationSubType.MAP_ITERATION,
    "parallel": OperationSubType.PARALLEL,
    "parallel_branch": OperationSubType.PARALLEL_BRANCH,
    "wait_for_condition": OperationSubType.WAIT_FOR_CONDITION,
    "callback": OperationSubType.CALLBACK,
    "wait_for_callback": OperationSubType.WAIT_FOR_CALLBACK,
    "invoke": OperationSubType.CHAINED_INVOKE,
    "start": OperationSubType.CHAINED_INVOKE,
    "gather": OperationSubType.PARALLEL,
    "race": OperationSubType.PARALLEL,
    "with_retry": OperationSubType.RUN_IN_CHILD_CONTEXT,
}
TYPES: dict[Kind, OperationType] = {
    **dict.fromkeys(("step", "once", "wait_for_condition", "rollback"), OperationType.STEP),
    "wait": OperationType.WAIT,
    "callback": OperationType.CALLBACK,
    "invoke": OperationType.CHAINED_INVOKE,
    "start": OperationType.CHAINED_INVOKE,
}
"""What is not here is a context."""


def operations_of(store: Store, run: RunState, *, text: bool = False) -> list[Operation]:
    """Top-level operations in call order, with what is inside them; recorded world and undo left out.

    ``text``: results are the recorded text, not values.
    """
    read = _text if text else _result
    children: dict[str, list[Op]] = {}
    for op in run.ops.values():
        if op.kind in SUB_TYPES and not op.key.startswith("undo/"):
            parent = parent_of(op.key)
            while parent and parent not in run.ops:
                parent = parent_of(parent)
            children.setdefault(parent, []).append(op)
    return [_operation(lambda op: read(store, op), op, children, "") for op in children.get("", ())]


def _operation(read: Callable[[Op], Any], op: Op, children: dict[str, list[Op]], parent: str) -> Operation:
    error = None if op.error is None else to_error_object(op.error)
    result = read(op) if op.status == "succeeded" else None
    kind = TYPES.get(op.kind, OperationType.CONTEXT)
    step = StepDetails(op.attempt, _time(op.until) if op.status == "planned" else None, result, error)
    return Operation(
        operation_id(op.key),
        kind,
        _status(op),
        operation_id(parent) if parent else None,
        op.name,
        _time(op.started_at),
        _time(op.ended_at),
        op.sub_type or SUB_TYPES[op.kind],
        context_details=ContextDetails(op.replay_children, result, error) if kind is OperationType.CONTEXT else None,
        step_details=step if kind is OperationType.STEP else None,
        wait_details=WaitDetails(_time(op.until)) if kind is OperationType.WAIT else None,
        callback_details=CallbackDetails(op.callback_id or "", result, error) if op.kind == "callback" else None,
        chained_invoke_details=(ChainedInvokeDetails(result, error) if kind is OperationType.CHAINED_INVOKE else None),
        child_operations=tuple(_operation(read, child, children, op.key) for child in children.get(op.key, ())),
    )


def _status(op: Op) -> OperationStatus:
    known = {
        "succeeded": OperationStatus.SUCCEEDED,
        "failed": OperationStatus.FAILED,
        "planned": OperationStatus.PENDING,
    }
    if op.how == "timed_out" and op.status == "failed":
        return OperationStatus.TIMED_OUT
    if op.status == "cancelled" and op.kind not in ("map_item", "parallel_branch"):
        return OperationStatus.CANCELLED
    return known.get(op.status, OperationStatus.STARTED)


def _time(at: int) -> datetime | None:
    return datetime.fromtimestamp(at / US, UTC) if at else None


def _text(store: Store, op: Op) -> str | None:
    return None if op.payload is None else text_of(cast("Any", Reader(store)), op.payload, op.key)


def _result(store: Store, op: Op) -> Any:
    if op.payload is None:
        return None
    try:
        text = text_of(cast("Any", Reader(store)), op.payload, op.key)
        # What is sent to a callback is its value, JSON or not; an approval's answer is JSON.
        return text if op.kind == "callback" and op.form is None else serde.decode_lenient(text)
    except (PayloadError, ValueError):
        return None
