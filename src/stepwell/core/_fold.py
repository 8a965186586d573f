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
    CancelRequested,
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
    else:
        op.status = _next(run, r, r.key, op)
    op.attempt = r.attempt
    op.epoch = run.epoch
    if r.name is not None:
        op.name = r.name
    if r.sub_type is not None:
        op.sub_type = r.sub_type
    if r.fingerprint is not None:
        op.fingerprint = r.fingerprint
    if r.weight is not None:
        op.weight = r.weight
    run.executing.add(r.key)


def _step_succeeded(run: RunState, r: StepSucceeded) -> None:
    op = run.ops.get(r.key)
    if op is None or op.status != "started":
        _next(run, r, r.key, op)
    assert op is not None  # or `_next` would have raised
    op.status = "succeeded"
    op.payload = r.payload
    op.ended_at = r.at
    run.executing.discard(r.key)
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
    _finished(run)


def _scope_started(run: RunState, r: ScopeStarted) -> None:
    op = run.ops.get(r.key)
    if op is None:
        run.ops[r.key] = op = Op(r.key, r.kind, "started")
    else:
        op.status = _next(run, r, r.key, op)
    op.name, op.sub_type, op.total, op.weight, op.started_at = r.name, r.sub_type, r.total, r.weight, r.at


def _recorded(run: RunState, r: Recorded) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    run.ops[r.key] = op = op or Op(r.key, r.kind, status)
    op.status, op.payload, op.started_at, op.ended_at = status, r.payload, r.at, r.at
    if r.undo:
        op.undo = True
        run.undoable.append(r.key)


def _operation_cancelled(run: RunState, r: OperationCancelled) -> None:
    op = run.ops.get(r.key)
    status = _next(run, r, r.key, op)
    run.ops[r.key] = op = op or Op(r.key, r.kind, status)
    op.status, op.ended_at = status, r.at
    run.executing.discard(r.key)


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


def _reopened(run: RunState, r: Reopened) -> None:
    """Failed operations are asked again, and so is every scope that holds one; the rest of the journal stands."""
    run.end = run.rollback = run.cancel = run.blocked = None
    run.reopened += 1
    run.deaths, run.expiries = {}, 0
    force, skip, values = set(r.force), set(r.skip), dict(r.set)
    again: set[str] = set()
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
            op.status, op.base, op.error, op.until = "reopened", op.attempt, None, 0
        parent = parent_of(key)
        while parent:
            above = run.ops.get(parent)
            if above is not None and above.ended:
                above.status = "reopened"
            parent = parent_of(parent)
    for op in run.ops.values():
        # A batch that ends anew decides anew which branches it lets go of.
        if op.status == "cancelled" and _is_reopened(run, parent_of(op.key)):
            op.status = "reopened"


def _is_reopened(run: RunState, key: str) -> bool:
    return key in run.ops and run.ops[key].status == "reopened"


def _settle(run: RunState, op: Op, at: int, text: str, again: set[str]) -> None:
    op.status, op.payload, op.ended_at, op.error = "succeeded", text, at, None
    run.executing.discard(op.key)
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
    },
)
