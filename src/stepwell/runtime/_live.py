"""One life of a run, from its handler's first line to its ending: ended, parked, blocked, or given up."""

from __future__ import annotations

import warnings
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

import msgspec

from stepwell.core import (
    Done,
    Failed,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunSucceeded,
    RunTimedOut,
    crash_loop,
)
from stepwell.errors import Fenced, JournalError, NonDeterminismError, RollbackFailed, Suspend
from stepwell.journal import End, InboxChanged, Release
from stepwell.runtime._api import LifeOver, Unwinding
from stepwell.runtime._rollback import Outcome, failures, undo_all
from stepwell.runtime._unused import note_unused
from stepwell.serde import capture, current_redactor

if TYPE_CHECKING:
    from stepwell.core import AnyRecord
    from stepwell.errors import ErrorRecord
    from stepwell.runtime._life import Life

current_life: ContextVar[Life | None] = ContextVar("stepwell_life", default=None)
"""The life whose handler or body runs here, so that a run started inside is known as its child."""


class Ending(msgspec.Struct, frozen=True):
    """How a life ended. ``wake_at`` for parked; ``error`` is what stopped the life, for its caller."""

    how: Literal["ended", "parked", "blocked", "lost", "interrupted", "failed"]
    wake_at: int | None = None
    error: BaseException | None = None


def live(life: Life) -> Ending:
    """Run one life of a sync run on this thread.

    KeyboardInterrupt and SystemExit hand the lease back and come out in ``Ending.error``.
    """
    tokens = (current_redactor.set(life.redactor), current_life.set(life))
    try:
        if life.watch is not None:
            life.watch.begin()
        if (blocked := crash_loop(life.run)) is not None:
            return block(life, blocked)
        outcome = _handler(life)
        if (ending := after_handler(life)) is not None:
            return ending
        quiet(life)
        return conclude(life, outcome)
    except LifeOver as over:
        return given_up(life, over)
    except Suspend:
        return parked(life)
    except BaseException as error:
        if life.host.forked:
            raise  # a child that leaves: the life is its parent's
        return given_up(life, life.stop(LifeOver("interrupted", error)))
    finally:
        current_redactor.reset(tokens[0])
        current_life.reset(tokens[1])


def _handler(life: Life) -> Done | Failed | None:
    """What the handler came to; None if it was left early, or must not run any more."""
    run = life.run
    if run.rollback is not None:
        life.rolling_back = True
        return None
    if run.cancel is not None:
        life.over = Unwinding("cancelled")
        return None
    if life.deadline is not None and life.deadline <= life.store.now():
        life.over = Unwinding("timed_out")
        return None
    try:
        outcome = life.program.call(life)
    except Suspend:
        if life.over is None:
            raise  # user code raised one that is not ours
        return None
    tell_swallowed(life, outcome)
    return outcome  # type: ignore[no-any-return]


def tell_swallowed(life: Life, outcome: Done | Failed) -> None:
    """A value that the handler returns although its run has parked is ignored: say so."""
    if type(life.over) is Suspend and type(outcome) is Done:
        message = (
            f"run {life.run.id} waits, and its handler swallowed what unwinds it and returned a value, which is "
            "ignored; catch Exception, or raise again what BaseException catches"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)


def after_handler(life: Life) -> Ending | None:
    """The handler was left because the life is over: how it ends. None where the run is to be concluded."""
    over = life.over
    if over is None or isinstance(over, Unwinding):
        return None
    if isinstance(over, NonDeterminismError):
        return block(life, f"code-changed: {over}", over)
    if isinstance(over, LifeOver):
        return given_up(life, over)
    if isinstance(over, Suspend):
        return parked(life)
    return given_up(life, LifeOver("engine error", over))


def conclude(life: Life, outcome: Done | Failed | None) -> Ending:
    """The handler has been left for good: undo what is to be undone, and end the run."""
    why, error = verdict(life, outcome)
    if outcome is not None:
        note_unused(life)
    if why == "succeeded":
        assert isinstance(outcome, Done)
        return _end(life, RunSucceeded(life.store.now(), outcome.payload), End("succeeded"))
    for child in open_children(life):
        life.host.children.cancel(child)
    undo_all(life, why, error)
    return _end(life, *end_of(life, why, error))


def _end(life: Life, record: AnyRecord, end: End) -> Ending:
    life.settle(life.enqueue(None, (record,), end, life.outside.told_parent(record, end)))
    if (parent := parent_here(life)) is not None:
        life.host.take_inbox(parent)
    return Ending("ended")


def open_children(life: Life) -> list[str]:
    """Runs that this one still waits for: they end with it."""
    ops = life.run.ops.values()
    return [op.child for op in ops if op.kind == "invoke" and op.status == "started" and op.child is not None]


def parent_here(life: Life) -> Life | None:
    """The life of the run that waits for this one, where it is of this process: it need not look for the news."""
    started = life.run.started
    if started is None or started.parent is None or started.parent_key is None:
        return None
    return life.host.lives.get(started.parent)


def verdict(life: Life, outcome: Done | Failed | None) -> tuple[Outcome | Literal["succeeded"], ErrorRecord | None]:
    """How the run is to end, and with which error."""
    run, over = life.run, life.over
    if run.rollback is not None:
        return run.rollback.outcome, run.rollback.error
    if isinstance(over, Unwinding):
        return ("timed_out" if over.args == ("timed_out",) else "cancelled"), None
    if isinstance(outcome, Failed):
        return "failed", outcome.error
    return "succeeded", None


def end_of(life: Life, why: Outcome, error: ErrorRecord | None) -> tuple[AnyRecord, End]:
    """The end of a run that did not succeed."""
    at = life.store.now()
    if failed := failures(life.run):
        error = rollback_failed(failed, error)
    if why == "cancelled":
        reason = life.run.cancel.reason if life.run.cancel is not None else None
        return RunCancelled(at, reason, error), End("cancelled", reason)
    if why == "timed_out":
        return RunTimedOut(at, error), End("timed_out", "the run's time was up")
    assert error is not None
    return RunFailed(at, error), End("failed", f"{error.type}: {error.message}"[:500])


def rollback_failed(failed: list[tuple[str, ErrorRecord]], cause: ErrorRecord | None) -> ErrorRecord:
    """The error of a run whose rollback left something behind; its cause is the run's own error."""
    listed = "; ".join(f"{key}: {error.type}: {error.message}" for key, error in failed)
    record = capture(RollbackFailed(f"{len(failed)} of the undo steps failed: {listed}"))
    return msgspec.structs.replace(record, cause=cause)


def block(life: Life, reason: str, error: BaseException | None = None) -> Ending:
    """The run needs a person. No other record is written (durable.md §3.2)."""
    with life.lock:
        life.over = None
        ticket = life.line.enqueue((RunBlocked(life.store.now(), reason),), Release("blocked", reason))
        life.over = error or LifeOver("blocked")
    try:
        life.writer.commit(ticket)
    except JournalError as failed:
        return given_up(life, LifeOver("store failed", failed))
    return Ending("blocked", error=error)


def parked(life: Life) -> Ending:
    """The frames are gone, the lease was handed back with the park."""
    if not life.is_async and (over := _park_failed(life)) is not None:
        return given_up(life, over)
    until = life.run.parked.until if life.run.parked is not None else None
    return Ending("parked", until)


def _park_failed(life: Life) -> LifeOver | None:
    """The handler may be left before the thread that parks the run has heard of it: wait until that is durable. If it
    was refused, the lease is still held, and nobody else would hand it back.
    """
    while (ticket := life.parking) is not None:
        try:
            life.settle(ticket)
        except InboxChanged:
            if life.parking is ticket:  # whoever queued it decides again just now
                life.quiet_gate.wait(0.01)
        except LifeOver as over:
            return over
        else:
            return None
    return None


def given_up(life: Life, over: BaseException) -> Ending:
    """The life ended early. An interruption hands the lease back at once; a failed store cannot."""
    cause = over.cause if isinstance(over, LifeOver) else over
    if isinstance(cause, JournalError):
        if not isinstance(cause, Fenced):
            release(life, "interrupted", str(cause))
        return Ending(_kind(cause), error=cause)
    status: Literal["interrupted", "rolling_back"] = "rolling_back" if life.rolling_back else "interrupted"
    release(life, status, str(over.args[0]) if over.args else None)
    return Ending("interrupted", error=cause)


def _kind(error: JournalError) -> Literal["lost", "failed"]:
    return "lost" if isinstance(error, Fenced) else "failed"


def release(life: Life, status: Literal["interrupted", "rolling_back"], reason: str | None) -> None:
    """Hand the lease back, with what rides. Where that fails, the beat tries again: this process may live on, and
    others leave the runs of a living worker alone.
    """
    if life.lease.rid is None and life.line.start is None:
        return
    ticket = life.line.enqueue((), Release(status, reason))
    try:
        life.writer.commit(ticket)
    except Fenced:
        pass  # somebody else has it
    except JournalError:
        life.host.unreleased.append((life, status, reason))


def quiet(life: Life) -> None:
    """Wait until no branch of the handler runs any more, before anything is undone: what a body does while it is
    undone elsewhere would never be undone.
    """
    if life.over is None:
        return
    while True:
        with life.lock:
            others = [branch for branch in life.branches if branch is not life.root and branch.counted]
        if not others:
            return
        with life.host.threads.aside():  # one of them may be queued for the thread that waits here
            life.quiet_gate.wait(1.0)
