"""Records as the events of an AWS-shaped history (durable.md §18): a pure projection, one record at a time.

What a record that ends an operation does not say (its name, where it stands, how long it was to wait) is kept from the
record that began it, and let go of when the operation has ended, so that a long run costs no more than what is open.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from stepwell import core
from stepwell.client._operations import SUB_TYPES
from stepwell.core import US, operation_id, parent_of
from stepwell.durable.types import DurableExecutionArn
from stepwell.serde import to_error_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.core import AnyRecord, Kind, Payload
    from stepwell.errors import ErrorRecord

    Event = dict[str, Any]
    Read = Callable[[Payload], str | None]
    """The text of a payload: None where there is no value. Raises `LookupError` where the store has lost it."""

EXIT_ERROR = "Runtime.ExitError"
"""ErrorType of an invocation that ended with its process."""
UNDO_ID = operation_id("undo/")
"""Id of the context that undo steps appear in; no operation has a key that ends with a slash."""


class _Open:
    """What the start of an operation said of it."""

    __slots__ = ("attempt", "fields", "seconds", "undo")

    def __init__(self, fields: Event) -> None:
        self.fields = fields
        self.attempt = 0
        self.seconds = 0
        self.undo = False


class Projection:
    """The events of one run. Feed it each record, in order.

    Args:
        run_id: the run's id.
        read: the text of a payload.
        include_data: False leaves every ``Payload`` out.
    """

    def __init__(self, run_id: str, read: Read, *, include_data: bool = True) -> None:
        self._run_id = run_id
        self._read = read
        self._data = include_data
        self._number = 0
        self._epoch = 0
        self._since: int | None = None
        """When the invocation that is under way began; None between two."""
        self._records = self._beats = 0
        """How many records it has, and how many of them are heartbeats of callbacks."""
        self._open: dict[str, _Open] = {}
        self._scopes: set[str] = set()
        self._undoing = False
        self._undo_failed: ErrorRecord | None = None

    def events(self, record: AnyRecord) -> Iterator[Event]:
        """The events of one record: none, one, or with the end of an invocation before it, two."""
        if type(record) not in _OUTSIDE:
            if self._since is None:  # the frames were kept while the run was parked: it goes on without a new life
                self._begin_invocation(record.at)
            self._records += 1
            self._beats += type(record) is core.CallbackBeat
        project = _PROJECTIONS.get(type(record))
        if project is not None:
            yield from project(self, record)

    # -- parts of events

    def _event(self, kind: str, at: int, details: Event, fields: Event | None = None) -> Event:
        self._number += 1
        event: Event = {"EventType": kind, "EventId": self._number, "EventTimestamp": time_of(at)}
        event.update(fields or {})
        event[f"{kind}Details"] = details
        return event

    def _value(self, name: str, payload: Payload) -> Event:
        """A member that holds a value; nothing where there is none."""
        if not self._data:
            return {} if payload is None else {name: {}}
        try:
            text = self._read(payload)
        except LookupError:
            return {name: {"Truncated": True}}
        return {} if text is None else {name: {"Payload": text, "Truncated": False}}

    def _error(self, error: ErrorRecord | None) -> Event:
        return {} if error is None else self._error_payload(to_error_object(error).to_dict())

    def _error_payload(self, payload: Event) -> Event:
        return {"Error": {"Payload": payload} if self._data else {}}

    def _begin(self, key: str, name: str | None, sub_type: str | None, kind: Kind) -> _Open:
        fields: Event = {"Id": operation_id(key)}
        if name is not None:
            fields["Name"] = name
        fields["SubType"] = sub_type or SUB_TYPES[kind]
        if (parent := self._parent(key)) is not None:
            fields["ParentId"] = parent
        self._open[key] = op = _Open(fields)
        return op

    def _parent(self, key: str) -> str | None:
        """Id of the nearest scope around it that has records; None for the run."""
        parent = parent_of(key)
        while parent and parent not in self._scopes:
            parent = parent_of(parent)
        return operation_id(parent) if parent else None

    # -- the run and its invocations

    def _run_started(self, r: core.RunStarted) -> Iterator[Event]:
        details = self._value("Input", r.input)
        if r.deadline is not None:
            details["ExecutionTimeout"] = seconds(r.deadline - r.at)
        yield self._event("ExecutionStarted", r.at, details, {"Id": self._run_id})

    def _life_started(self, r: core.LifeStarted) -> Iterator[Event]:
        yield from self._completed(r.at)  # an interrupted life hands its lease back and leaves no record
        self._begin_invocation(r.at)
        self._epoch = r.epoch

    def _begin_invocation(self, at: int) -> None:
        self._since, self._records, self._beats = at, 0, 0

    def _parked(self, r: core.Parked) -> Iterator[Event]:
        if self._beats and self._beats == self._records:
            self._since = None  # a run is woken by a heartbeat, too; in AWS's world nothing is invoked for it
            return
        yield from self._completed(r.at)

    def _run_blocked(self, r: core.RunBlocked) -> Iterator[Event]:
        error = self._error_payload({"ErrorMessage": r.reason, "ErrorType": "RunBlocked"})
        yield from self._completed(r.at, error)

    def _life_lost(self, r: core.LifeLost) -> Iterator[Event]:
        how = "its process ended" if r.how == "dead" else "its lease expired"
        yield from self._completed(
            r.at, self._error_payload({"ErrorMessage": f"{r.worker}: {how}", "ErrorType": EXIT_ERROR})
        )

    def _completed(self, at: int, error: Event | None = None) -> Iterator[Event]:
        """The invocation under way is over; ``at`` is when that was known."""
        if self._since is None:
            return
        details: Event = {
            "StartTimestamp": time_of(self._since),
            "EndTimestamp": time_of(at),
            "RequestId": f"{self._run_id}-{self._epoch}",
        }
        self._since = None
        yield self._event("InvocationCompleted", at, details | (error or {}))

    def _ended(self, r: AnyRecord) -> Iterator[Event]:
        yield from self._undone(r.at)
        yield from self._completed(r.at)
        match r:
            case core.RunSucceeded():
                kind, details = "ExecutionSucceeded", self._value("Result", r.payload)
            case core.RunFailed():
                kind, details = "ExecutionFailed", self._error(r.error)
            case core.RunTimedOut():
                kind, details = "ExecutionTimedOut", self._error(r.error)
            case _:
                r = cast("core.RunCancelled", r)
                kind, details = "ExecutionStopped", self._error(r.error)
                if r.error is None and r.reason is not None:
                    details = self._error_payload({"ErrorMessage": r.reason})
        yield self._event(kind, r.at, details, {"Id": self._run_id})

    # -- steps

    def _step_started(self, r: core.StepStarted) -> Iterator[Event]:
        op = self._begin(r.key, r.name, r.sub_type, r.kind)
        op.attempt = r.attempt
        if r.kind == "rollback":
            op.undo, op.fields["ParentId"] = True, UNDO_ID
            if not self._undoing:
                self._undoing = True
                yield self._event("ContextStarted", r.at, {}, _UNDO)
        yield self._event("StepStarted", r.at, {}, op.fields)

    def _step_succeeded(self, r: core.StepSucceeded) -> Iterator[Event]:
        op = self._open.pop(r.key)
        details = self._value("Result", r.payload) | attempts(op)
        yield self._event("StepSucceeded", r.at, details, op.fields)

    def _step_failed(self, r: core.StepFailed) -> Iterator[Event]:
        op = self._open.pop(r.key)
        if op.undo:
            self._undo_failed = r.error
        yield self._event("StepFailed", r.at, self._error(r.error) | attempts(op), op.fields)

    def _step_retry_planned(self, r: core.StepRetryPlanned) -> Iterator[Event]:
        op = self._open[r.key]
        if r.error is None:
            kind, details = "StepSucceeded", self._value("Result", r.payload)
        else:
            kind, details = "StepFailed", self._error(r.error)
        yield self._event(kind, r.at, details | attempts(op, seconds(r.until - r.at)), op.fields)

    def _undone(self, at: int) -> Iterator[Event]:
        """The run is about to end: so does the context of its undo steps."""
        if not self._undoing:
            return
        kind = "ContextSucceeded" if self._undo_failed is None else "ContextFailed"
        yield self._event(kind, at, self._error(self._undo_failed), _UNDO)
        self._undoing, self._undo_failed = False, None

    # -- waits

    def _wait_started(self, r: core.WaitStarted) -> Iterator[Event]:
        op = self._begin(r.key, r.name, None, "wait")
        op.seconds = seconds(r.until - r.at)
        details = {"Duration": op.seconds, "ScheduledEndTimestamp": time_of(r.until)}
        yield self._event("WaitStarted", r.at, details, op.fields)

    def _wait_ended(self, r: core.WaitEnded) -> Iterator[Event]:
        op = self._open.pop(r.key)
        yield self._event("WaitSucceeded", r.at, {"Duration": op.seconds}, op.fields)

    def _operation_cancelled(self, r: core.OperationCancelled) -> Iterator[Event]:
        op = self._open.pop(r.key, None)
        if op is not None and r.kind == "wait":
            yield self._event("WaitCancelled", r.at, {}, op.fields)

    # -- scopes

    def _scope_started(self, r: core.ScopeStarted) -> Iterator[Event]:
        op = self._begin(r.key, r.name, r.sub_type, r.kind)
        self._scopes.add(r.key)
        yield self._event("ContextStarted", r.at, {}, op.fields)

    def _scope_succeeded(self, r: core.ScopeSucceeded) -> Iterator[Event]:
        details = self._value("Result", r.payload)
        if r.replay_children:
            details["ReplayChildren"] = True
        yield self._event("ContextSucceeded", r.at, details, self._open.pop(r.key).fields)

    def _scope_failed(self, r: core.ScopeFailed) -> Iterator[Event]:
        yield self._event("ContextFailed", r.at, self._error(r.error), self._open.pop(r.key).fields)

    def _scope_cancelled(self, r: core.ScopeCancelled) -> Iterator[Event]:
        del self._open[r.key]
        return iter(())

    # -- what the outside ends

    def _callback_created(self, r: core.CallbackCreated) -> Iterator[Event]:
        op = self._begin(r.key, r.name, r.sub_type, "callback")
        details: Event = {"CallbackId": r.callback_id}
        if r.timeout_at is not None:
            details["Timeout"] = seconds(r.timeout_at - r.at)
        if r.heartbeat is not None:
            details["HeartbeatTimeout"] = seconds(r.heartbeat)
        yield self._event("CallbackStarted", r.at, details, op.fields)

    def _callback_succeeded(self, r: core.CallbackSucceeded) -> Iterator[Event]:
        yield self._event("CallbackSucceeded", r.at, self._value("Result", r.payload), self._open.pop(r.key).fields)

    def _callback_failed(self, r: core.CallbackFailed) -> Iterator[Event]:
        kind = "CallbackTimedOut" if r.timed_out else "CallbackFailed"
        yield self._event(kind, r.at, self._error(r.error), self._open.pop(r.key).fields)

    def _invoke_started(self, r: core.InvokeStarted) -> Iterator[Event]:
        op = self._begin(r.key, r.name, None, r.kind)
        details: Event = {"FunctionName": r.function, **self._value("Input", r.payload)}
        if r.tenant is not None:
            details["TenantId"] = r.tenant
        details["ExecutedVersion"] = "$LATEST"
        details["DurableExecutionArn"] = str(DurableExecutionArn.for_run(r.function, r.child))
        yield self._event("ChainedInvokeStarted", r.at, details, op.fields)

    def _invoke_succeeded(self, r: core.InvokeSucceeded) -> Iterator[Event]:
        details = self._value("Result", r.payload)
        yield self._event("ChainedInvokeSucceeded", r.at, details, self._open.pop(r.key).fields)

    def _invoke_failed(self, r: core.InvokeFailed) -> Iterator[Event]:
        kind = "ChainedInvoke" + {"timed_out": "TimedOut", "cancelled": "Stopped"}.get(r.how, "Failed")
        yield self._event(kind, r.at, self._error(r.error), self._open.pop(r.key).fields)


_UNDO: dict[str, Any] = {"Id": UNDO_ID, "Name": "undo", "SubType": SUB_TYPES["child"]}
_OUTSIDE = (core.RunStarted, core.Reopened, core.LifeStarted, core.LifeLost, core.Parked)
"""Records that begin no invocation."""


def attempts(op: _Open, delay: int | None = None) -> dict[str, Any]:
    """Which attempt it was, and after how many seconds the next one may begin, if there is to be one."""
    details = {"CurrentAttempt": op.attempt}
    return {"RetryDetails": details if delay is None else {**details, "NextAttemptDelaySeconds": delay}}


def seconds(us: int) -> int:
    """Microseconds in whole seconds, rounded up."""
    return max(0, -(-us // US))


def time_of(at: int) -> datetime:
    """Aware, UTC."""
    return datetime.fromtimestamp(at / US, UTC)


_PROJECTIONS: dict[type[core.Record], Callable[[Projection, Any], Iterator[Event]]] = {
    core.RunStarted: Projection._run_started,
    core.LifeStarted: Projection._life_started,
    core.LifeLost: Projection._life_lost,
    core.Parked: Projection._parked,
    core.RunBlocked: Projection._run_blocked,
    core.RunSucceeded: Projection._ended,
    core.RunFailed: Projection._ended,
    core.RunCancelled: Projection._ended,
    core.RunTimedOut: Projection._ended,
    core.StepStarted: Projection._step_started,
    core.StepSucceeded: Projection._step_succeeded,
    core.StepFailed: Projection._step_failed,
    core.StepRetryPlanned: Projection._step_retry_planned,
    core.WaitStarted: Projection._wait_started,
    core.WaitEnded: Projection._wait_ended,
    core.OperationCancelled: Projection._operation_cancelled,
    core.ScopeStarted: Projection._scope_started,
    core.ScopeSucceeded: Projection._scope_succeeded,
    core.ScopeFailed: Projection._scope_failed,
    core.ScopeCancelled: Projection._scope_cancelled,
    core.CallbackCreated: Projection._callback_created,
    core.CallbackSucceeded: Projection._callback_succeeded,
    core.CallbackFailed: Projection._callback_failed,
    core.InvokeStarted: Projection._invoke_started,
    core.InvokeSucceeded: Projection._invoke_succeeded,
    core.InvokeFailed: Projection._invoke_failed,
}
"""What is not here has no event: the recorded world, signals, rollback, beats, requests, reopening."""
