"""The sync trampoline: it runs the core's flows and performs the effects that these yield.

Its twin is `_drive_async`. All that differs between the colours is in these two and in `_crew` (branches) and
`_bodies` (calls): waiting, calling, and entering a scope.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.core import (
    Await,
    Call,
    CancelledHere,
    Commit,
    Decode,
    Diverge,
    Done,
    EndOutside,
    Enter,
    Failed,
    Now,
    OpenOutside,
    Park,
    Rebuild,
    Ride,
    StartChild,
    TakeSignal,
)
from stepwell.errors import NonDeterminismError, Suspend
from stepwell.runtime._api import ReplayEnd
from stepwell.runtime._bodies import call
from stepwell.runtime._frames import user_line
from stepwell.runtime._parking import await_outside, end_outside, open_outside, park, start_child, take_signal
from stepwell.runtime._scope import Scope
from stepwell.runtime._values import failed, kept, pack, raised, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from stepwell.core import Flow, ScopeWanted, Wanted
    from stepwell.runtime._api import Follower, ScopeBody
    from stepwell.runtime._crew import Crew
    from stepwell.runtime._life import Life
    from stepwell.runtime._observe import Watch

T = TypeVar("T")
LARGE_RESULT = 262_144
"""Bytes of JSON from which ``large_child_results="replay"`` does not keep a scope's value."""


def drive(scope: Scope, flow: Flow[T], crew: Crew | None = None) -> T:
    """Run a flow to its end on this thread. ``crew``: what performs a batch's effects."""
    sent: Any = None
    if scope.life.follower is not None:
        flow = followed(flow, scope.life.follower)
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
    finally:
        if scope.life.watch is not None:
            scope.life.watch.deliver()


def followed(flow: Flow[T], follower: Follower) -> Flow[T]:
    """The same conversation, overheard: a rehearsal is told of each effect before it is performed."""
    sent: Any = None
    while True:
        try:
            effect = flow.send(sent)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        follower(effect)
        sent = yield effect


# -- effects that never wait, for both


def _now(scope: Scope, _effect: Now) -> int:
    return scope.life.store.now()


def _ride(scope: Scope, effect: Ride) -> None:
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    if life.eager:
        life.commit(scope.branch, effect.records)
        return
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


def _enter(scope: Scope, effect: Enter) -> Done | Failed:
    inner = inner_scope(scope, effect.want)
    body: ScopeBody = effect.want.body
    try:
        watch = scope.life.watch
        if watch is None or effect.want.virtual:
            value = body.call(inner)
        else:
            with enter_watched(scope, watch, effect):
                value = body.call(inner)
        return scope_done(scope.life, effect.want.want, body, value)
    except ReplayEnd:
        if may_end_inside(scope.life, effect.want.want):
            return Done(None, None, 0)
        raise
    except Exception as error:
        return failed(scope.life, error)
    finally:
        inner.closed = True


def enter_watched(scope: Scope, watch: Watch, effect: Enter) -> AbstractContextManager[None]:
    """Around the inside of a scope that has records, where somebody observes."""
    key = effect.want.want.key
    if scope.life.replay_only:
        return nullcontext()
    watch.replayed(key)
    watch.deliver()
    return watch.body(scope, key)


def may_end_inside(life: Life, want: Wanted) -> bool:
    """Replay without executing: what is not on record inside a finished scope, or a branch, is not the end of all."""
    op = life.run.ops.get(want.key)
    return want.kind in ("map_item", "parallel_branch") or (life.look_inside and op is not None and op.ended)


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
    Park: park,
    Call: call,
    Enter: _enter,
    Await: await_outside,
    OpenOutside: open_outside,
    EndOutside: end_outside,
    TakeSignal: take_signal,
    StartChild: start_child,
}
