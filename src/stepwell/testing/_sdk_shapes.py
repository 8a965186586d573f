"""Operations of a run as `stepwell.testing.runner` gives them: one class a type, results as recorded text."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.client._operations import operations_of
from stepwell.durable.lambda_service import Operation, OperationStatus, OperationSubType, OperationType
from stepwell.errors import ErrorObject
from stepwell.testing._lookup import Lookup

if TYPE_CHECKING:
    from stepwell.core import RunState
    from stepwell.journal import Store


class RecordedOperation(Lookup, msgspec.Struct, frozen=True):
    """What all operations have. Times are aware datetimes in UTC, None where there is none yet."""

    operation_id: str
    operation_type: OperationType
    status: OperationStatus
    parent_id: str | None
    name: str | None
    sub_type: OperationSubType | str | None
    start_timestamp: datetime | None
    end_timestamp: datetime | None

    def _inside(self) -> tuple[RecordedOperation, ...]:
        return ()


class StepOperation(RecordedOperation, frozen=True):
    """A step, or a condition that is waited for. ``result``: serialized text, None while there is none."""

    attempt: int = 0
    next_attempt_timestamp: datetime | None = None
    result: str | None = None
    error: ErrorObject | None = None


class WaitOperation(RecordedOperation, frozen=True):
    """A wait."""

    scheduled_end_timestamp: datetime | None = None


class CallbackOperation(RecordedOperation, frozen=True):
    """A callback. ``result``: the text that it was answered with."""

    callback_id: str | None = None
    result: str | None = None
    error: ErrorObject | None = None


class InvokeOperation(RecordedOperation, frozen=True):
    """An invoked function. ``result``: serialized text."""

    result: str | None = None
    error: ErrorObject | None = None


class ContextOperation(RecordedOperation, frozen=True):
    """A scope: child context, map, parallel, branch, item. ``child_operations`` are in call order."""

    result: str | None = None
    error: ErrorObject | None = None
    child_operations: tuple[RecordedOperation, ...] = ()

    def _inside(self) -> tuple[RecordedOperation, ...]:
        return self.child_operations


class HistoryEvent(msgspec.Struct, frozen=True):
    """One event of a run's history. ``event_id`` counts from 1; ``details`` as in the AWS shape (durable.md §18)."""

    event_type: str
    event_id: int
    event_timestamp: datetime
    id: str | None = None
    name: str | None = None
    sub_type: str | None = None
    parent_id: str | None = None
    details: dict[str, Any] | None = None


class ExecutionHistory(msgspec.Struct, frozen=True):
    """What `DurableFunctionTestRunner.get_execution_history` gives. ``events`` in order."""

    events: list[HistoryEvent]


def history_event(event: dict[str, Any]) -> HistoryEvent:
    """An event in the AWS shape, as an object."""
    return HistoryEvent(
        event["EventType"], event["EventId"], event["EventTimestamp"], event.get("Id"), event.get("Name"),
        event.get("SubType"), event.get("ParentId"), event.get(f"{event['EventType']}Details"),
    )  # fmt: skip


def typed_operations(store: Store, run: RunState) -> list[RecordedOperation]:
    """Top-level operations in call order."""
    return [_typed(op) for op in operations_of(store, run, text=True)]


def _typed(op: Operation) -> RecordedOperation:
    shared = (
        op.operation_id, op.operation_type, op.status, op.parent_id, op.name, op.sub_type, op.start_timestamp,
        op.end_timestamp,
    )  # fmt: skip
    error = None if op.status is OperationStatus.SUCCEEDED else op.error
    match op.operation_type:
        case OperationType.STEP:
            return StepOperation(*shared, op.attempt, op.next_attempt_timestamp, op.result, error)
        case OperationType.WAIT:
            return WaitOperation(*shared, op.scheduled_end_timestamp)
        case OperationType.CALLBACK:
            return CallbackOperation(*shared, op.callback_id, op.result, error)
        case OperationType.CHAINED_INVOKE:
            return InvokeOperation(*shared, op.result, error)
        case _:
            return ContextOperation(*shared, op.result, error, tuple(_typed(inner) for inner in op.child_operations))
