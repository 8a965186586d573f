"""Fold: records into state. The only code that changes a `RunState`.

``TRANSITIONS`` is the whole life of an operation: for each record, which status may stand before it (None: nothing
recorded under that key) and which stands after it. A record that fits nowhere means that two writers wrote one run,
or that the journal is damaged: `Corrupt`, and the state is as it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from stepwell.core._keys import parent_of
from stepwell.core._records import (
    AnyRecord,
    CallbackBeat,
    CallbackCreated,
    CallbackFailed,
    CallbackSucceeded,
    CancelRequested,
    InvokeFailed,
    InvokeStarted,
    InvokeSucceeded,
    LifeLost,
    LifeStarted,
    OperationCancelled,
    Parked,
    Record,
    Recorded,
    Reopened,
    RollbackStarted,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
    ScopeCancelled,
    ScopeFailed,
    ScopeStarted,
    ScopeSucceeded,
    SignalAwaited,
    SignalReceived,
    SignalTaken,
    SignalTimedOut,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    WaitEnded,
    WaitStarted,
)
from stepwell.core._state import Op, OpStatus, RunState
from stepwell.errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from stepwell.core._records import Kind

TRANSITIONS: dict[type[Record], dict[OpStatus | None, OpStatus]] = {
    StepStarted: {None: "started", "planned": "started", "reopened": "started"},
    StepSucceeded: {"started": "succeeded"},
    StepFailed: {"started": "failed", "planned": "failed"},
    StepRetryPlanned: {"started": "planned"},
    WaitStarted: {None: "started", "reopened": "started"},
    WaitEnded: {"started": "succeeded"},
    ScopeStarted: {None: "started", "reopened": "started"},
    ScopeSucceeded: {"started": "succeeded"},
    ScopeFailed: {"started": "failed"},
    ScopeCancelled: {"started": "cancelled"},
    Recorded: {None: "succeeded", "reopened": "succeeded"},
    CallbackCreated: {None: "started", "reopened": "started"},
    CallbackBeat: {"started": "started"},
    CallbackSucceeded: {"started": "succeeded"},
    CallbackFailed: {"started": "failed"},
    InvokeStarted: {None: "started", "reopened": "started"},
    InvokeSucceeded: {"started": "succeeded"},
    InvokeFailed: {"started": "failed"},
    SignalAwaited: {None: "started", "reopened": "started"},
    SignalTaken: {None: "succeeded", "started": "succeeded", "reopened": "succeeded"},
    SignalTimedOut: {"started": "failed"},
    OperationCancelled: {None: "cancelled", "started": "cancelled", "planned": "cancelled", "reopened": "cancelled"},
}


def fold(run: RunState, record: AnyRecord) -> None:
    """Add one record to what is known of the run.

    Raises:
        Corrupt: the record cannot follow what is there.
    """
    _FOLDS[type(record)](run, record)


def fold_all(run: RunState, records: Iterable[AnyRecord]) -> None:
    """Add records in order."""
    folds = _FOLDS
    for record in records:
        folds[type(record)](run, record)


def _next(run: RunState, record: AnyRecord, key: str, op: Op | None) -> OpStatus:
    before = None if op is None else op.status
    try:
        return TRANSITIONS[type(record)][before]
    except KeyError:
        what = f"{type(record).__name__} at {key} cannot follow {before or 'nothing'}"
        message = f"the journal of run {run.id} is damaged: {what}"
        raise Corrupt(message) from None


def _finished(run: RunState) -> None:
    run.careful = False
    run.expiries = 0
    if run.deaths:
        run.deaths = {}


def _step_started(run: RunState, r: StepStarted) -> None:
    op = run.ops.get(r.key)
    if op is None:
        run.ops[r.key] = op = Op(r.key, r.kind, "started")
        op.started_at = r.at
        if r.weight is not None:
            op.weight = r.weight
        run.reached.step_begun(r.key, r.weight)
    else:
        op.status = _next(run, r, r.key, op)
        op.attempt_at = r.at
    op.attempt = r.attempt
    op.epoch = run.epoch
    if r.name is not None:
        op.name = r.name
    if r.sub_type is not None:
        op.sub_type = r.sub_type
    if r.fingerprint is not None:
        op.fingerprint = r.fingerprint
    if r.undo:
        op.undo = True
    run.executing.add(r.key)


def _step_succeeded(run: RunState, r: StepSucceeded) -> None:
    op = run.ops.get(r.key)
    if op is None or op.status != "started":
        _next(run, r, r.key, op)
    assert op is not None  # or `_next` would have raised
    op.status = "succeeded"
    op.payload = r.payload
    op.error = None  # what an attempt before had failed with
    op.ended_at = r.at
    run.executing.discard(r.key)
    run.reached.ended(op)
    if r.undo:
        op.undo = True
        run.undoable.append(r.key)
    if run.careful or run.deaths or run.expiries:
        _finished(run)


def _step_failed(run: RunState, r: StepFailed) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    op = cast("Op", op)
    op.status, op.error, op.ended_at = status, r.error, r.at
    run.executing.discard(r.key)
    run.reached.ended(op)
    if r.undo:
        op.undo = True
        run.undoable.append(r.key)
    _finished(run)


def _step_retry_planned(run: RunState, r: StepRetryPlanned) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    op = cast("Op", op)
    op.status, op.attempt, op.until, op.error, op.payload = status, r.attempt, r.until, r.error, r.payload
    run.executing.discard(r.key)
    _finished(run)


def _wait_started(run: RunState, r: WaitStarted) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    run.ops[r.key] = op = op or Op(r.key, "wait", status)
    op.status, op.name, op.until, op.started_at = status, r.name, r.until, r.at


def _ended(run: RunState, r: WaitEnded | ScopeSucceeded | ScopeFailed | ScopeCancelled) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    op = cast("Op", op)
    op.status, op.ended_at = status, r.at
    match r:
        case ScopeSucceeded():
            op.payload, op.replay_children = r.payload, r.replay_children
        case ScopeFailed():
            op.error = r.error
        case _:
            pass
    run.reached.ended(op)
    _finished(run)


def _scope_started(run: RunState, r: ScopeStarted) -> None:
    op = run.ops.get(r.key)
    if op is None:
        run.ops[r.key] = op = Op(r.key, r.kind, "started")
    else:
        op.status = _next(run, r, r.key, op)
    op.name, op.sub_type, op.total, op.weight, op.started_at = r.name, r.sub_type, r.total, r.weight, r.at
    run.reached.scope_begun(r.key, r.total, r.weight)


def _recorded(run: RunState, r: Recorded) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    run.ops[r.key] = op = op or Op(r.key, r.kind, status)
    op.status, op.payload, op.started_at, op.ended_at = status, r.payload, r.at, r.at
    if r.name is not None:
        op.name = r.name
        if r.kind == "publish":
            run.published[r.name] = r.payload
    if r.undo:
        op.undo = True
        run.undoable.append(r.key)


def _operation_cancelled(run: RunState, r: OperationCancelled) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    run.ops[r.key] = op = op or Op(r.key, r.kind, status)
    op.status, op.ended_at = status, r.at
    run.executing.discard(r.key)
    run.outside.pop(r.key, None)
    run.reached.ended(op)


def _outside_started(run: RunState, r: CallbackCreated | InvokeStarted | SignalAwaited, kind: Kind) -> Op:
    """An operation that something outside of the run will end."""
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    run.ops[r.key] = op = op or Op(r.key, kind, status)
    op.status, op.started_at, op.how, op.attempt = status, r.at, None, op.attempt + 1
    if kind in ("callback", "invoke"):
        run.outside[r.key] = None
    return op


def _callback_created(run: RunState, r: CallbackCreated) -> None:
    op = _outside_started(run, r, "callback")
    op.callback_id, op.name, op.sub_type, op.form = r.callback_id, r.name, r.sub_type, r.form
    op.timeout_at, op.heartbeat = r.timeout_at, r.heartbeat
    op.until = _callback_until(op, r.at)


def _callback_beat(run: RunState, r: CallbackBeat) -> None:
    op = run.ops.get(r.key)
    _next(run, r, r.key, op)
    op = cast("Op", op)
    op.until = _callback_until(op, r.at)


def _callback_until(op: Op, heard_at: int) -> int:
    """When a callback times out: at its end, or when nothing was heard for too long; 0 for never."""
    times = [op.timeout_at, None if op.heartbeat is None else heard_at + op.heartbeat]
    return min((time for time in times if time is not None), default=0)


def _invoke_started(run: RunState, r: InvokeStarted) -> None:
    op = _outside_started(run, r, r.kind)
    op.child, op.function, op.tenant, op.name = r.child, r.function, r.tenant, r.name
    op.payload = r.payload  # what it is started with, until its own value takes the place
    op.until = r.until or 0


def _signal_awaited(run: RunState, r: SignalAwaited) -> None:
    op = _outside_started(run, r, "signal")
    op.name = op.signal = r.signal
    op.until = r.until or 0


def _outside_succeeded(run: RunState, r: CallbackSucceeded | InvokeSucceeded) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    op = cast("Op", op)
    op.status, op.payload, op.ended_at = status, r.payload, r.at
    op.by = r.by if isinstance(r, CallbackSucceeded) else None
    run.outside.pop(r.key, None)
    _finished(run)


def _outside_failed(run: RunState, r: CallbackFailed | InvokeFailed | SignalTimedOut) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    op = cast("Op", op)
    op.status, op.error, op.ended_at = status, r.error, r.at
    run.outside.pop(r.key, None)
    match r:
        case CallbackFailed():
            op.how, op.by = "timed_out" if r.timed_out else "failed", r.by
        case InvokeFailed():
            op.how = r.how
        case _:
            op.how = "timed_out"
    _finished(run)


def _signal_received(run: RunState, r: SignalReceived) -> None:
    run.signals.setdefault(r.name, []).append(r.payload)


def _signal_taken(run: RunState, r: SignalTaken) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    there = run.signals.get(r.signal, [])
    if r.index != run.taken.get(r.signal, 0) or r.index >= len(there):
        message = f"the journal of run {run.id} is damaged: signal {r.index} '{r.signal}' is taken out of turn"
        raise Corrupt(message)
    if op is None:
        run.ops[r.key] = op = Op(r.key, "signal", status)
        op.started_at, op.name = r.at, r.signal
    op.status, op.payload, op.ended_at = status, there[r.index], r.at
    run.taken[r.signal] = r.index + 1
    _finished(run)


def _run_started(run: RunState, r: RunStarted) -> None:
    if run.started is not None:
        message = f"the journal of run {run.id} is damaged: it starts twice"
        raise Corrupt(message)
    run.started = r


def _life_started(run: RunState, r: LifeStarted) -> None:
    if r.epoch <= run.epoch:
        message = f"the journal of run {run.id} is damaged: life {r.epoch} begins after life {run.epoch}"
        raise Corrupt(message)
    run.life, run.epoch, run.parked, run.blocked = r, r.epoch, None, None
    run.first_life_at = run.first_life_at or r.at
    if r.why in ("resume", "retry"):
        run.deaths, run.expiries = {}, 0  # a person says: try again


def _life_lost(run: RunState, r: LifeLost) -> None:
    run.careful = True
    if r.how == "dead":
        run.deaths = {key: run.deaths.get(key, 0) + 1 for key in run.executing}
        run.expiries = 0
    else:
        run.expiries += 1


def _parked(run: RunState, r: Parked) -> None:
    run.parked = r


def _cancel_requested(run: RunState, r: CancelRequested) -> None:
    if run.cancel is None:
        run.cancel = r


def _rollback_started(run: RunState, r: RollbackStarted) -> None:
    run.rollback = r


def _run_blocked(run: RunState, r: RunBlocked) -> None:
    run.blocked = r.reason


def _run_ended(run: RunState, r: RunSucceeded | RunFailed | RunCancelled | RunTimedOut) -> None:
    if run.end is not None:
        message = f"the journal of run {run.id} is damaged: it ends twice"
        raise Corrupt(message)
    run.end = r
    run.ends += 1


def _reopened(run: RunState, r: Reopened) -> None:
    """Failed operations are asked again, and so is every scope that holds one; the rest of the journal stands."""
    if run.end is not None:
        run.reopened_at = r.at
    run.end = run.rollback = run.cancel = run.blocked = None
    run.reopened += 1
    run.reopened_at = r.at
    run.deaths, run.expiries = {}, 0
    force, skip, values = set(r.force), set(r.skip), dict(r.set)
    again = set(r.again) & run.ops.keys()
    forced = tuple(key + end for key, op in run.ops.items() if {key, op.name} & force for end in ("/", "["))
    for op in run.ops.values():
        names = {op.key, op.name}
        if op.status == "failed" or (names & force) or op.key.startswith(forced):
            again.add(op.key)
        if names & skip:
            _settle(run, op, r.at, "null", again)
        for name in names & values.keys():
            _settle(run, op, r.at, values[cast("str", name)], again)
    for key in list(again):
        op = run.ops[key]
        if op.status in ("failed", "succeeded"):
            _reopen(op)
            op.base, op.error, op.until = op.attempt, None, 0
        parent = parent_of(key)
        while parent:
            above = run.ops.get(parent)
            if above is not None and above.ended:
                _reopen(above)
            parent = parent_of(parent)
    for op in run.ops.values():
        # A batch that ends anew decides anew which branches it lets go of.
        if op.status == "cancelled" and _is_reopened(run, parent_of(op.key)):
            _reopen(op)
    run.reached.count_anew(run.ops.values())


def _reopen(op: Op) -> None:
    op.status = "reopened"
    op.reopened += 1


def _is_reopened(run: RunState, key: str) -> bool:
    """Whether this scope, or the one around it that has an end, is asked again."""
    while key in run.ops and run.ops[key].status == "started":
        key = parent_of(key)
    return key in run.ops and run.ops[key].status == "reopened"


def _settle(run: RunState, op: Op, at: int, text: str, again: set[str]) -> None:
    op.status, op.payload, op.ended_at, op.error = "succeeded", text, at, None
    run.executing.discard(op.key)
    run.outside.pop(op.key, None)
    again.discard(op.key)


_FOLDS: dict[type[Record], Callable[[RunState, AnyRecord], None]] = cast(
    "dict[type[Record], Callable[[RunState, AnyRecord], None]]",
    {
        RunStarted: _run_started,
        LifeStarted: _life_started,
        LifeLost: _life_lost,
        Parked: _parked,
        StepStarted: _step_started,
        StepSucceeded: _step_succeeded,
        StepFailed: _step_failed,
        StepRetryPlanned: _step_retry_planned,
        WaitStarted: _wait_started,
        WaitEnded: _ended,
        ScopeStarted: _scope_started,
        ScopeSucceeded: _ended,
        ScopeFailed: _ended,
        ScopeCancelled: _ended,
        Recorded: _recorded,
        RollbackStarted: _rollback_started,
        CancelRequested: _cancel_requested,
        OperationCancelled: _operation_cancelled,
        Reopened: _reopened,
        RunBlocked: _run_blocked,
        RunSucceeded: _run_ended,
        RunFailed: _run_ended,
        RunCancelled: _run_ended,
        RunTimedOut: _run_ended,
        CallbackCreated: _callback_created,
        CallbackBeat: _callback_beat,
        CallbackSucceeded: _outside_succeeded,
        CallbackFailed: _outside_failed,
        InvokeStarted: _invoke_started,
        InvokeSucceeded: _outside_succeeded,
        InvokeFailed: _outside_failed,
        SignalReceived: _signal_received,
        SignalAwaited: _signal_awaited,
        SignalTaken: _signal_taken,
        SignalTimedOut: _outside_failed,
    },
)
