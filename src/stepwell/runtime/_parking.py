"""Waiting in a sync run: for a time, for its branches, for something from outside; and the parking of the run.

Its twin is `_parking_async`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.core import US
from stepwell.errors import Suspend
from stepwell.journal import InboxChanged
from stepwell.journal import Park as ParkChange
from stepwell.runtime._api import BranchUnwound, Leaving, ReplayEnd, Unwinding

if TYPE_CHECKING:
    from stepwell.core import AnyRecord, Await, EndOutside, OpenOutside, Park, StartChild, TakeSignal
    from stepwell.journal import Ticket
    from stepwell.runtime._life import Life
    from stepwell.runtime._scope import Scope
    from stepwell.runtime._wait import Wait


def park(scope: Scope, effect: Park) -> None:
    """Make the records durable and wait for the time, in the frames or without them."""
    life, branch, until, records = scope.life, scope.branch, effect.until, effect.records
    if life.replay_only:
        raise ReplayEnd
    if records and type(life.over) in (Unwinding, Leaving):
        # The attempt is over, whatever becomes of the run: an undo, or another process, would begin it again.
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
        unwind_if_wanted(life, wait)
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
            ticket = life.outside.repark(ticket)
            if type(ticket.batch.change) is not ParkChange:
                life.settle(ticket)
                with life.lock:
                    life.wait_end(wait)
                wait.wake()  # where it is another branch's, which stands there
                life.outside.react(ticket)
                return False
        else:
            return parked(life, ticket)


def park_if_last(life: Life) -> None:
    """A branch has ended. Everybody else may wait already: then it was the last one, and parks the run for them."""
    with life.lock:
        wait = None if life.over is not None else next(iter(life.waits), None)
        ticket = None if wait is None else life.park_ticket(())
    if ticket is not None and wait is not None:
        try:
            settle_parking(life, wait, ticket)
        except Suspend:
            pass  # every branch gets it at its next call


def parked(life: Life, ticket: Ticket) -> bool:
    """The batch is durable: True, or the end of the life if it gave the run up."""
    if type(ticket.batch.change) is ParkChange and ticket.batch.change.release:
        life.suspended()
        assert life.over is not None
        raise life.over.with_traceback(None)
    return True


def block(life: Life, wait: Wait) -> None:
    """Wait on this thread until the time has come, or somebody ended the wait."""
    if wait.branch.pinned or life.strands:
        with life.host.threads.aside():
            _block(life, wait)
    else:
        _block(life, wait)


def _block(life: Life, wait: Wait) -> None:
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


# -- what something outside ends


def await_outside(scope: Scope, effect: Await) -> None:
    """Wait until something has come, or until the time; it may return early."""
    life, branch = scope.life, scope.branch
    if life.replay_only:
        raise ReplayEnd
    with life.lock:
        life.usable(branch)
        # Asked under the lock: what is folded after this finds the wait.
        ready = life.outside.readiness(effect)
        if ready():
            return
        wait = life.wait_begin(branch, effect.want.key, effect.until, topics=effect.topics, ready=ready)
        ticket = life.park_ticket(effect.records)
    life.outside.do_later()
    if ticket is not None and not settle_parking(life, wait, ticket):
        return
    unwind_if_wanted(life, wait)
    block(life, wait)


def unwind_if_wanted(life: Life, wait: Wait) -> None:
    """A branch that waits gives its thread to those that have none."""
    branch = wait.branch
    if branch.parent is not None and not branch.pinned and (branch.inline or life.host.threads.backlog):
        raise BranchUnwound(wait)


def open_outside(scope: Scope, effect: OpenOutside) -> None:
    """Commit the start of a callback, and make it known."""
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    try:
        life.settle(life.outside.open_ticket(scope.branch, effect.record))
    finally:
        life.outside.opened(effect.record.key)


def end_outside(scope: Scope, effect: EndOutside) -> None:
    """Commit an end without an answer, unless one has come."""
    life, outside = scope.life, scope.life.outside
    if life.replay_only:
        raise ReplayEnd
    ticket = outside.end_ticket(scope.branch, effect.want, effect.record)
    if ticket is None:
        with life.writer.exclusive():
            return  # what has queued is written: the answer among it
    try:
        life.settle(ticket)
    except InboxChanged:
        outside.unclaim(effect.want.key)
        life.host.take_inbox(life)
    else:
        outside.ended(effect.want.key)


def take_signal(scope: Scope, effect: TakeSignal) -> bool:
    """Give the next signal to this operation."""
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    ticket = life.outside.signal_ticket(scope.branch, effect.want, effect.signal)
    if ticket is None:
        return False
    life.settle(ticket)
    return True


def start_child(scope: Scope, effect: StartChild) -> AnyRecord | None:
    """See to it that the child is on record and driven."""
    life = scope.life
    if life.replay_only:
        raise ReplayEnd
    with life.own_store():
        return life.host.children.start(life, life.run.ops[effect.want.key])
