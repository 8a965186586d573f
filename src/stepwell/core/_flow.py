"""The life of each operation, top to bottom, as generators that yield effects.

Sync and async differ only in the trampolines that run these (`stepwell.runtime`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never

from stepwell.core._decide import (
    Cancelled,
    Diverged,
    Execute,
    Lost,
    ParkUntil,
    Raise,
    Return,
    StepWanted,
    Wanted,
    decide,
    diverged,
    settled,
)
from stepwell.core._effects import (
    Call,
    CancelledHere,
    Commit,
    Decode,
    Diverge,
    Done,
    Enter,
    Failed,
    Flow,
    Now,
    Park,
    Rebuild,
    Ride,
    ScopeWanted,
)
from stepwell.core._records import (
    Payload,
    Recorded,
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
from stepwell.core._retry import US
from stepwell.errors import StepInterruptedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core._state import Op, RunState
    from stepwell.errors import ErrorRecord

    Capture = Callable[[BaseException], ErrorRecord]

NOW = Now()


def step(run: RunState, want: StepWanted, interrupted: Capture) -> Flow[Any]:
    """A step, a poll or an undo: run its body until it has succeeded, failed for good, or been cancelled.

    ``interrupted`` gives an exception its form for the record (the core cannot).
    """
    while True:
        match decide(run, want, (yield NOW)):
            case Return(payload):
                return (yield Decode(want, payload))
            case Raise(error, attempts):
                raise (yield Rebuild(want, error, attempts))
            case Cancelled():
                yield CancelledHere(want)
            case Diverged() as what:
                yield Diverge(want, what)
            case ParkUntil(until):
                yield Park(want, until)
            case Lost(attempt):
                lost = interruption(want.name or want.key, attempt)
                yield from _failed(run, want, attempt, Failed(interrupted(lost), (yield NOW), lost), interrupted)
            case Execute(attempt, fresh):
                if fresh:
                    yield from _start(run, want, attempt)
                outcome = yield Call(want, attempt, _state(run, want))
                if type(outcome) is Failed:
                    yield from _failed(run, want, attempt, outcome, interrupted)
                elif outcome.committed:
                    return outcome.value
                elif outcome.stop:
                    yield Commit((StepSucceeded(outcome.at, want.key, outcome.payload, want.undo),))
                    return outcome.value
                else:
                    until = outcome.at + round(outcome.delay * US)
                    planned = StepRetryPlanned(outcome.at, want.key, attempt, until, None, outcome.payload)
                    yield Park(want, until, (planned,))
            case other:
                assert_never(other)


def interruption(name: str, attempt: int) -> StepInterruptedError:
    """The error of a step that a crash interrupted and that is not begun again."""
    return StepInterruptedError(f"step '{name}' was interrupted in attempt {attempt}; it may or may not have run")


def _state(run: RunState, want: StepWanted) -> Payload:
    op = run.ops.get(want.key)
    return None if op is None else op.payload


def _start(run: RunState, want: StepWanted, attempt: int) -> Flow[None]:
    at = yield NOW
    undo = want.undo and want.undo_failed
    started = StepStarted(
        at, want.key, attempt, want.kind, want.name, want.sub_type, want.fingerprint, want.weight, undo
    )
    yield Commit((started,)) if want.at_most_once or want.durable_start or run.careful else Ride((started,))


def _failed(run: RunState, want: StepWanted, attempt: int, failed: Failed, interrupted: Capture) -> Flow[None]:
    op = run.ops.get(want.key)
    made = attempt - (0 if op is None else op.base)
    delay, error = None, failed.error
    if not failed.final and want.plan is not None and failed.exception is not None:
        try:
            delay = want.plan(want.key, failed.exception, made)
        except Exception as bad:
            error = interrupted(getattr(bad, "error", bad))
    if delay is None:
        yield Commit((StepFailed(failed.at, want.key, error, want.undo and want.undo_failed),))
    else:
        until = failed.at + round(delay * US)
        yield Park(want, until, (StepRetryPlanned(failed.at, want.key, attempt, until, failed.error),))


def wait(run: RunState, want: Wanted, duration_us: int) -> Flow[None]:
    """A timer. It counts from the first time it was asked for, whoever is alive meanwhile."""
    op = run.ops.get(want.key)
    if op is not None and (other := diverged(op, want)):
        yield Diverge(want, other)
    if op is not None and op.ended:
        if op.status == "cancelled":
            yield CancelledHere(want)
        return
    if op is None or op.status == "reopened":
        at = yield NOW
        until = at + duration_us
        yield Park(want, until, (WaitStarted(at, want.key, until, want.name),))
    else:
        yield Park(want, op.until)
    yield Commit((WaitEnded((yield NOW), want.key),))


def record(run: RunState, want: Wanted, make: Callable[[], tuple[Payload, Any]], *, undo: bool = False) -> Flow[Any]:
    """Something of the outside world: made at first sight, the same for ever after."""
    op = run.ops.get(want.key)
    if op is not None and (other := diverged(op, want)):
        yield Diverge(want, other)
    if op is not None and op.status == "succeeded":
        return (yield Decode(want, op.payload))
    payload, value = make()
    name = want.name if want.kind == "publish" else None
    recorded = (Recorded((yield NOW), want.key, want.kind, payload, undo, name),)
    # What is to be undone must be folded before a failure right behind it asks what there is to undo.
    yield Commit(recorded) if undo else Ride(recorded)
    return value


def scope(run: RunState, asked: ScopeWanted) -> Flow[Any]:
    """A child context: its body runs in a context of its own and may be entered again in a later life."""
    outcome = yield from scope_outcome(run, asked)
    if isinstance(outcome, Failed):
        raise (yield Rebuild(asked.want, outcome.error, 1))
    return outcome.value


def scope_outcome(run: RunState, asked: ScopeWanted) -> Flow[Done | Failed]:
    """The same for a branch, whose error is an event and not raised."""
    want = asked.want
    outcome: Done | Failed
    if asked.virtual:
        outcome = yield Enter(asked)
        return outcome
    op = run.ops.get(want.key)
    again = False
    if op is not None:
        if other := diverged(op, want):
            yield Diverge(want, other)
        again = op.status == "succeeded" and op.replay_children
        if not again and (recorded := (yield from _recorded_scope(op, want))) is not None:
            return recorded
    if not asked.begun and (op is None or op.status == "reopened"):
        yield Ride((ScopeStarted((yield NOW), want.key, want.kind, want.name, want.sub_type, None, want.weight),))
    outcome = yield Enter(asked)
    if again:
        return outcome
    if isinstance(outcome, Failed):
        yield Commit((ScopeFailed(outcome.at, want.key, outcome.error),))
    else:
        yield Commit((ScopeSucceeded(outcome.at, want.key, outcome.payload, outcome.replay_children),))
    return outcome


def _recorded_scope(op: Op, want: Wanted) -> Flow[Done | Failed | None]:
    match settled(op):
        case Return(payload):
            return Done(payload, (yield Decode(want, payload)), op.ended_at)
        case Raise(error):
            return Failed(error, op.ended_at)
        case Cancelled():
            yield CancelledHere(want)
        case None:
            pass
    return None


__all__ = ["interruption", "record", "scope", "scope_outcome", "step", "wait"]
