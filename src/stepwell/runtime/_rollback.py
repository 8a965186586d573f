"""Rollback: finished steps that have an undo are undone, last first, each as a durable step (P6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stepwell.core import RollbackStarted, StepFailed, StepWanted, interruption, step
from stepwell.errors import DurableOperationError, Suspend
from stepwell.journal import Unpark
from stepwell.runtime._drive import drive
from stepwell.serde import capture

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from stepwell.core import AnyRecord, RunState
    from stepwell.errors import ErrorRecord
    from stepwell.runtime._life import Life
    from stepwell.runtime._scope import Scope

Outcome = Literal["failed", "cancelled", "timed_out"]
UNDO = "undo/"


def to_undo(run: RunState, within: str = "") -> list[str]:
    """Keys of finished operations in the scope ``within`` that are still to be undone, last finished first."""
    inside = (within + "/", within + "[") if within else ("",)
    seen: dict[str, None] = {}
    for key in reversed(run.undoable):
        op = run.ops[key]
        undone = run.ops.get(UNDO + key)
        if key.startswith(inside) and op.status in ("succeeded", "failed") and (undone is None or not undone.ended):
            seen.setdefault(key, None)
    return list(seen)


def failures(run: RunState) -> list[tuple[str, ErrorRecord]]:
    """The undo steps that failed for good, in the order in which they were tried."""
    return [
        (key.removeprefix(UNDO), op.error)
        for key, op in run.ops.items()
        if key.startswith(UNDO) and op.status == "failed" and op.error is not None
    ]


def rollback_started(life: Life, outcome: Outcome, error: ErrorRecord | None) -> RollbackStarted:
    """The record from which on nothing of the handler is executed again."""
    reason = life.run.cancel.reason if life.run.cancel is not None else None
    return RollbackStarted(life.store.now(), outcome, error, reason)


def undo_all(life: Life, outcome: Outcome, error: ErrorRecord | None) -> None:
    """Undo what is left to undo. Returns when each was done or has failed for good.

    Raises:
        Suspend: an undo waits for its next attempt, or the life is over.
    """
    run = life.run
    life.begin_rollback()
    records = undo_plan(life, outcome, error)
    if records:
        life.commit(None, records, Unpark("rolling_back"))
    if must_discover(life):
        discover(life)
        life.begin_rollback()
    undo_keys(life.root_scope(), life.undo_order(to_undo(run)))


def undo_plan(life: Life, outcome: Outcome, error: ErrorRecord | None) -> tuple[AnyRecord, ...]:
    """What must be on record before the first undo."""
    if life.run.rollback is not None:
        return ()
    failed = unfinished(life)
    if not failed and not to_undo(life.run):
        return ()
    # In one batch: from here on no life may take what never ended for what made the run fail.
    return (*failed, rollback_started(life, outcome, error))


def must_discover(life: Life) -> bool:
    """Whether undo functions are still to be found."""
    return any(key not in life.undos for key in to_undo(life.run))


def unfinished(life: Life) -> list[StepFailed]:
    """The ends of steps that will never end by themselves, and are to be undone whatever became of them: the process
    died in them, or they waited for their next attempt, and the run was cancelled.
    """
    ends = []
    for op in life.run.ops.values():
        if op.undo and op.status in ("started", "planned") and not op.key.startswith(UNDO):
            error = op.error or capture(interruption(op.name or op.key, op.attempt))
            ends.append(StepFailed(life.store.now(), op.key, error, undo=True))
    return ends


def undo_keys(scope: Scope, keys: Sequence[str]) -> None:
    """Undo these, in this order; a failing one is on record and the next goes on."""
    for want in undo_wanted(scope, keys):
        try:
            drive(scope, step(scope.life.run, want, capture))
        except DurableOperationError:
            pass  # on record; the run's end lists it


def undo_wanted(scope: Scope, keys: Sequence[str]) -> Iterator[StepWanted]:
    """The steps that undo these operations."""
    life = scope.life
    for key in keys:
        op = life.run.ops[key]
        undo = life.undos.get(key)
        if life.watch is not None:
            life.watch.replayed(UNDO + key)
        if undo is None:
            yield missing(life, key)
        else:
            body = undo.body(op.payload)
            name = undo.name or op.name
            yield StepWanted(UNDO + key, "rollback", name, None, 0.0, body.codec, body, undo.plan, undo=False)


def missing(life: Life, key: str) -> StepWanted:
    """A step that fails: the code no longer has an undo for what is on record."""
    from stepwell.runtime._api import Attempt, Body
    from stepwell.runtime._plain import PLAIN

    def call(_attempt: Attempt) -> None:
        message = f"no undo function was found for '{key}': the code of {life.program.name} has changed"
        raise LookupError(message)

    return StepWanted(UNDO + key, "rollback", life.run.ops[key].name, body=Body(call, PLAIN), codec=PLAIN)


def discover(life: Life) -> None:
    """Find the undo functions of finished steps by replaying the handler without executing anything of it."""
    life.replay_only = True
    try:
        life.program.call(life)
    except Suspend:
        pass  # it has come to something that is not on record, as it must
    finally:
        life.replay_only = False
