"""The async trampoline: as `_drive`, in tasks of one loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.core import (
    Await,
    Call,
    Commit,
    Done,
    EndOutside,
    Enter,
    Failed,
    OpenOutside,
    Park,
    Ride,
    StartChild,
    TakeSignal,
)
from stepwell.runtime._api import ReplayEnd
from stepwell.runtime._bodies_async import call_async
from stepwell.runtime._drive import QUICK, enter_watched, followed, inner_scope, may_end_inside, scope_done
from stepwell.runtime._parking_async import (
    await_outside_async,
    end_outside_async,
    open_outside_async,
    park_async,
    start_child_async,
    take_signal_async,
)
from stepwell.runtime._values import failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import Flow
    from stepwell.runtime._api import ScopeBody
    from stepwell.runtime._crew_async import AsyncCrew
    from stepwell.runtime._scope import Scope

T = TypeVar("T")


async def drive_async(scope: Scope, flow: Flow[T], crew: AsyncCrew | None = None) -> T:
    """Run a flow to its end in this task."""
    sent: Any = None
    if scope.life.follower is not None:
        flow = followed(flow, scope.life.follower)
    eager = scope.life.eager
    try:
        while True:
            effect = flow.send(sent)
            kind = type(effect)
            if (quick := QUICK.get(kind)) is not None and not (eager and kind is Ride):
                sent = quick(scope, effect)
            elif (slow := ASYNC.get(kind)) is not None:
                sent = await slow(scope, effect)
            else:
                sent = await crew.perform(effect)  # type: ignore[union-attr]
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        if scope.life.watch is not None:
            scope.life.watch.deliver()


async def _commit_async(scope: Scope, effect: Commit | Ride) -> None:
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    await life.commit_async(scope.branch, effect.records)


async def _enter_async(scope: Scope, effect: Enter) -> Done | Failed:
    inner = inner_scope(scope, effect.want)
    body: ScopeBody = effect.want.body
    # A branch's own scope is no operation in it.
    is_operation = scope.branch.key != effect.want.want.key
    if is_operation:
        scope.life.op_enter(scope.branch)
    try:
        watch = scope.life.watch
        if watch is None or effect.want.virtual:
            value = await body.call(inner)
        else:
            with enter_watched(scope, watch, effect):
                value = await body.call(inner)
        return scope_done(scope.life, effect.want.want, body, value)
    except ReplayEnd:
        if may_end_inside(scope.life, effect.want.want):
            return Done(None, None, 0)
        raise
    except Exception as error:
        return failed(scope.life, error)
    finally:
        inner.closed = True
        if is_operation:
            scope.life.op_begin(scope.branch)


ASYNC: dict[type, Callable[[Scope, Any], Any]] = {
    Commit: _commit_async,
    Ride: _commit_async,  # only for lives whose observers want each record at once
    Park: park_async,
    Call: call_async,
    Enter: _enter_async,
    Await: await_outside_async,
    OpenOutside: open_outside_async,
    EndOutside: end_outside_async,
    TakeSignal: take_signal_async,
    StartChild: start_child_async,
}
