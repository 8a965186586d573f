"""Waiting in an async run: as `_parking`, in tasks of one loop."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from stepwell.core import US
from stepwell.errors import Suspend
from stepwell.journal import InboxChanged
from stepwell.journal import Park as ParkChange
from stepwell.runtime._api import Leaving, ReplayEnd, Unwinding
from stepwell.runtime._open import op_begin, op_end
from stepwell.runtime._parking import parked

if TYPE_CHECKING:
    from stepwell.core import AnyRecord, Await, EndOutside, OpenOutside, Park, StartChild, TakeSignal
    from stepwell.journal import Ticket
    from stepwell.runtime._life import Life
    from stepwell.runtime._scope import Scope
    from stepwell.runtime._wait import Wait


async def park_async(scope: Scope, effect: Park) -> None:
    """As `park`, in this task."""
    life, branch, until, records = scope.life, scope.branch, effect.until, effect.records
    if life.replay_only:
        raise ReplayEnd
    wait: Wait | None = None
    try:
        if records and type(life.over) in (Unwinding, Leaving):
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
    finally:
        if wait is not None:
            with life.lock:
                life.wait_end(wait)


async def settle_parking_async(life: Life, wait: Wait, ticket: Ticket) -> bool:
    """As `settle_parking`."""
    while True:
        try:
            await life.settle_async(ticket)
        except InboxChanged:
            ticket = life.outside.repark(ticket)
            if type(ticket.batch.change) is not ParkChange:
                await life.settle_async(ticket)
                with life.lock:
                    life.wait_end(wait)
                wait.wake()  # where it is another branch's, which stands there
                life.outside.react(ticket)
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


async def join_async(scope: Scope, task: asyncio.Future[Any]) -> None:
    """Wait in a branch for a task of the same run, as an operation waits: the run may be parked meanwhile."""
    life, branch = scope.life, scope.branch
    op_begin(life, branch)
    try:
        while not task.done():
            with life.lock:
                life.usable(branch)
                wait = life.wait_begin(branch, scope.key, None, own=False)
                ticket = life.park_ticket(())
            ended = partial(_task_ended, life, wait)
            task.add_done_callback(ended)
            try:
                if ticket is None or await settle_parking_async(life, wait, ticket):
                    await block_async(life, wait)
            finally:
                task.remove_done_callback(ended)
                with life.lock:
                    life.wait_end(wait)
    finally:
        op_end(life, branch)


def _task_ended(life: Life, wait: Wait, _task: asyncio.Future[Any]) -> None:
    with life.lock:
        life.wait_end(wait)
    wait.wake()


# -- what something outside ends


async def await_outside_async(scope: Scope, effect: Await) -> None:
    """As `await_outside`, in this task."""
    life, branch = scope.life, scope.branch
    if life.replay_only:
        raise ReplayEnd
    with life.lock:
        life.usable(branch)
        ready = life.outside.readiness(effect)
        if ready():
            return
        wait = life.wait_begin(branch, effect.want.key, effect.until, topics=effect.topics, ready=ready)
        ticket = life.park_ticket(effect.records)
    life.outside.do_later()
    try:
        if ticket is None or await settle_parking_async(life, wait, ticket):
            await block_async(life, wait)
    finally:
        with life.lock:
            life.wait_end(wait)


async def open_outside_async(scope: Scope, effect: OpenOutside) -> None:
    """As `open_outside`."""
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    try:
        await life.settle_async(life.outside.open_ticket(scope.branch, effect.record))
    finally:
        life.outside.opened(effect.record.key)


async def end_outside_async(scope: Scope, effect: EndOutside) -> None:
    """As `end_outside`."""
    life, outside = scope.life, scope.life.outside
    if life.replay_only:
        raise ReplayEnd
    ticket = outside.end_ticket(scope.branch, effect.want, effect.record)
    if ticket is None:
        # The answer is queued already; its commit needs a turn of the loop.
        await asyncio.sleep(0)
        return
    try:
        await life.settle_async(ticket)
    except InboxChanged:
        outside.unclaim(effect.want.key)
        found = outside.inbox_ticket()
        if found is not None:
            await life.settle_async(found)
        outside.react(found)
    else:
        outside.ended(effect.want.key)


async def take_signal_async(scope: Scope, effect: TakeSignal) -> bool:
    """As `take_signal`."""
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    ticket = life.outside.signal_ticket(scope.branch, effect.want, effect.signal)
    if ticket is None:
        return False
    await life.settle_async(ticket)
    return True


async def start_child_async(scope: Scope, effect: StartChild) -> AnyRecord | None:
    """As `start_child`: what it writes must not block the loop."""
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    with life.own_store():
        return await asyncio.to_thread(life.host.children.start, life, life.run.ops[effect.want.key])
