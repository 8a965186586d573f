"""The async trampoline: as `_drive`, in tasks of one loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from stepwell.core import (
    US,
    Call,
    Commit,
    Done,
    Enter,
    Failed,
    OperationCancelled,
    Park,
    Ride,
)
from stepwell.errors import Suspend
from stepwell.journal import InboxChanged
from stepwell.journal import Park as ParkChange
from stepwell.runtime._api import ReplayEnd, Unwinding
from stepwell.runtime._bodies_async import call_async
from stepwell.runtime._drive import QUICK, enter_watched, inner_scope, may_end_inside, parked, scope_done
from stepwell.runtime._values import failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.core import Flow, Wanted
    from stepwell.journal import Ticket
    from stepwell.runtime._api import ScopeBody
    from stepwell.runtime._crew_async import AsyncCrew
    from stepwell.runtime._life import Life, Wait
    from stepwell.runtime._scope import Scope

T = TypeVar("T")


async def drive_async(scope: Scope, flow: Flow[T], crew: AsyncCrew | None = None) -> T:
    """Run a flow to its end in this task."""
    sent: Any = None
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


async def _park_async(scope: Scope, effect: Park) -> None:
    life, branch, until, records = scope.life, scope.branch, effect.until, effect.records
    if life.replay_only:
        raise ReplayEnd
    wait: Wait | None = None
    try:
        if records and type(life.over) is Unwinding:
            await life.commit_async(branch, records)
            records = ()
        while until > life.store.now():
            with life.lock:
                life.usable(branch)
                wait = life.wait_begin(branch, effect.want.key, until)
                ticket = life.park_ticket(records)
            records = ()
            if ticket is None or await settle_parking_async(life, wait, ticket):
                await block_async(life, wait)
        if records:
            await life.commit_async(branch, records)
    except asyncio.CancelledError:
        if wait is not None:
            with life.lock:
                life.wait_end(wait)
        await cancelled(scope, effect.want)
        raise


async def cancelled(scope: Scope, want: Wanted) -> None:
    """User code cancelled the task that awaits this operation: on record, so that replay raises the same."""
    life = scope.life
    if life.over is None and not scope.branch.gone:
        await life.commit_async(scope.branch, (OperationCancelled(life.store.now(), want.key, want.kind),))


async def settle_parking_async(life: Life, wait: Wait, ticket: Ticket) -> bool:
    """As `settle_parking`."""
    while True:
        try:
            await life.settle_async(ticket)
        except InboxChanged:
            ticket = life.repark(ticket)
            if type(ticket.batch.change) is not ParkChange:
                await life.settle_async(ticket)
                with life.lock:
                    life.wait_end(wait)
                life.react()
                return False
        else:
            return parked(life, ticket)


async def park_later(life: Life, wait: Wait, ticket: Ticket) -> None:
    """Make a batch durable that parks the run after an operation has ended, and nobody stands at the others."""
    try:
        await settle_parking_async(life, wait, ticket)
    except Suspend:
        pass  # every branch gets it at its next call


async def block_async(life: Life, wait: Wait) -> None:
    """As `block`, in this task."""
    loop = asyncio.get_running_loop()
    while True:
        wait.future = None
        with life.lock:
            life.usable(wait.branch)
            if wait not in life.waits:
                return
            now = life.store.now()
            if wait.until is not None and wait.until <= now:
                life.wait_end(wait)
                return
            wait.future = loop.create_future()
        times = [t for t in (wait.until, None if life.rolling_back else life.deadline) if t is not None]
        if times and min(times) <= now:
            life.unwind("timed_out")
            continue
        timer = loop.call_later((min(times) - now) / US, wait.wake) if times else None
        try:
            await wait.future
        finally:
            if timer is not None:
                timer.cancel()


async def _call_async(scope: Scope, effect: Call) -> Done | Failed:
    try:
        return await call_async(scope, effect)
    except asyncio.CancelledError:
        await cancelled(scope, effect.want)
        raise


async def _enter_async(scope: Scope, effect: Enter) -> Done | Failed:
    inner = inner_scope(scope, effect.want)
    body: ScopeBody = effect.want.body
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


ASYNC: dict[type, Callable[[Scope, Any], Any]] = {
    Commit: _commit_async,
    Ride: _commit_async,  # only for lives whose observers want each record at once
    Park: _park_async,
    Call: _call_async,
    Enter: _enter_async,
}
