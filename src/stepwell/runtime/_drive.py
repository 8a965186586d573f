"""The sync trampoline: it runs the core's flows and performs the effects that these yield.

Its twin is `_drive_async`. All that differs between the colours is in these two and in `_crew` (branches) and
`_bodies` (calls): waiting, calling, and entering a scope.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.core import (
    US,
    Call,
    CancelledHere,
    Commit,
    Decode,
    Diverge,
    Done,
    Enter,
    Failed,
    Now,
    Park,
    Rebuild,
    Ride,
)
from stepwell.errors import NonDeterminismError, Suspend
from stepwell.journal import InboxChanged
from stepwell.journal import Park as ParkChange
from stepwell.runtime._api import BranchUnwound, ReplayEnd, Unwinding
from stepwell.runtime._bodies import call
from stepwell.runtime._frames import user_line
from stepwell.runtime._scope import Scope
from stepwell.runtime._values import failed, kept, pack, raised, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import Flow, ScopeWanted, Wanted
    from stepwell.journal import Ticket
    from stepwell.runtime._api import ScopeBody
    from stepwell.runtime._crew import Crew
    from stepwell.runtime._life import Life, Wait

T = TypeVar("T")
LARGE_RESULT = 262_144
"""Bytes of JSON from which ``large_child_results="replay"`` does not keep a scope's value."""


def drive(scope: Scope, flow: Flow[T], crew: Crew | None = None) -> T:
    """Run a flow to its end on this thread. ``crew``: what performs a batch's effects."""
    sent: Any = None
    try:
        while True:
            effect = flow.send(sent)
            perform = SYNC.get(type(effect))
            sent = perform(scope, effect) if perform is not None else crew.perform(effect)  # type: ignore[union-attr]
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    except Suspend:
        if crew is not None:
            crew.leave()
        raise


# -- effects that never wait, for both


def _now(scope: Scope, _effect: Now) -> int:
    return scope.life.store.now()


def _ride(scope: Scope, effect: Ride) -> None:
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    with life.lock:
        # As a commit: nothing of a branch that was let go of is written, not even later.
        life.usable(scope.branch)
        life.ride(effect.records)


def _decode(scope: Scope, effect: Decode) -> Any:
    return unpack(scope.life, effect.want.codec, effect.payload, effect.want.key)


def _rebuild(scope: Scope, effect: Rebuild) -> BaseException:
    return raised(scope.life, effect.want, effect.error, effect.attempts)


def _diverge(scope: Scope, effect: Diverge) -> None:
    want, life = effect.want, scope.life
    op = life.run.ops.get(want.key)
    name = want.name or (op.name if op is not None else None) or want.key
    line = user_line()
    message = (
        f"step '{name}' at {want.key} was recorded as {effect.what.expected}; "
        f"the code at {line} now asks for {effect.what.found}"
    )
    raise life.diverge(
        NonDeterminismError(message, key=want.key, expected=effect.what.expected, found=effect.what.found, line=line)
    )


def _cancelled_here(scope: Scope, effect: CancelledHere) -> None:
    message = f"'{effect.want.name or effect.want.key}' was cancelled"
    if scope.life.is_async:
        import asyncio

        raise asyncio.CancelledError(message)
    raise scope.life.branch_over(scope.branch)


# -- sync


def _commit(scope: Scope, effect: Commit) -> None:
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    life.commit(scope.branch, effect.records)


def _park(scope: Scope, effect: Park) -> None:
    life, branch, until, records = scope.life, scope.branch, effect.until, effect.records
    if life.replay_only:
        raise ReplayEnd
    if records and type(life.over) is Unwinding:
        # The attempt is over, whatever becomes of the run: an undo would begin it again.
        life.commit(branch, records)
        records = ()
    while until > life.store.now():
        with life.lock:
            life.usable(branch)
            wait = life.wait_begin(branch, effect.want.key, until)
            ticket = life.park_ticket(records)
        records = ()
        if ticket is not None and not settle_parking(life, wait, ticket):
            continue
        if branch.parent is not None and (branch.inline or life.host.threads.backlog):
            raise BranchUnwound(wait)
        block(life, wait)
    if records:
        life.commit(branch, records)


def settle_parking(life: Life, wait: Wait, ticket: Ticket) -> bool:
    """Make a batch durable that may park the run. False: something came from outside, look again.

    Raises:
        Suspend: the run is parked and the frames are dropped.
    """
    while True:
        try:
            life.settle(ticket)
        except InboxChanged:
            ticket = life.repark(ticket)
            if type(ticket.batch.change) is not ParkChange:
                life.settle(ticket)
                with life.lock:
                    life.wait_end(wait)
                life.react()
                return False
        else:
            return parked(life, ticket)


def parked(life: Life, ticket: Ticket) -> bool:
    """The batch is durable: True, or the end of the life if it gave the run up."""
    if type(ticket.batch.change) is ParkChange and ticket.batch.change.release:
        life.suspended()
        assert life.over is not None
        raise life.over
    return True


def block(life: Life, wait: Wait) -> None:
    """Wait on this thread until the time has come, or somebody ended the wait."""
    branch, gate = wait.branch, wait.branch.gate
    assert gate is not None
    while True:
        with life.lock:
            life.usable(branch)
            if wait not in life.waits:
                return
            now = life.store.now()
            if wait.until is not None and wait.until <= now:
                life.wait_end(wait)
                return
        times = [t for t in (wait.until, None if life.rolling_back else life.deadline) if t is not None]
        if times and min(times) <= now:
            life.unwind("timed_out")
            continue
        gate.wait((min(times) - now) / US if times else None)


def _enter(scope: Scope, effect: Enter) -> Done | Failed:
    inner = inner_scope(scope, effect.want)
    body: ScopeBody = effect.want.body
    try:
        return scope_done(scope.life, effect.want.want, body, body.call(inner))
    except ReplayEnd:
        if may_end_inside(scope.life, effect.want.want):
            return Done(None, None, 0)
        raise
    except Exception as error:
        return failed(scope.life, error)
    finally:
        inner.closed = True


def may_end_inside(life: Life, want: Wanted) -> bool:
    """Replay without executing: what is not on record inside a finished scope, or a branch, is not the end of all."""
    op = life.run.ops.get(want.key)
    return want.kind in ("map_item", "parallel_branch") or (op is not None and op.ended)


def inner_scope(scope: Scope, asked: ScopeWanted) -> Scope:
    """The scope inside an operation."""
    real = scope.real if asked.virtual else None
    return Scope(scope.life, asked.want.key, scope.branch, virtual=asked.virtual, real=real)


def scope_done(life: Life, want: Wanted, body: ScopeBody, value: Any) -> Done:
    """A scope's value on its way out."""
    if life.host.large_child_results == "replay":
        text = body.codec.encode(value, want.name or "result")
        if len(text) > LARGE_RESULT:
            summary = body.summary(value)
            payload = None if summary is None else kept(life, summary)
            return Done(payload, body.codec.decode(text, want.key), life.store.now(), replay_children=True)
    payload, value = pack(life, body.codec, value, want.key, want.name or "result")
    return Done(payload, value, life.store.now())


QUICK: dict[type, Callable[[Scope, Any], Any]] = {
    Now: _now,
    Ride: _ride,
    Decode: _decode,
    Rebuild: _rebuild,
    Diverge: _diverge,
    CancelledHere: _cancelled_here,
}
SYNC: dict[type, Callable[[Scope, Any], Any]] = {
    **QUICK,
    Commit: _commit,
    Park: _park,
    Call: call,
    Enter: _enter,
}
