"""Strands: operations of a sync run that go on beside the code that began them, each on a thread of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.core import OperationCancelled
from stepwell.errors import Suspend
from stepwell.runtime._api import BranchOver, LifeOver, ReplayEnd
from stepwell.runtime._drive import drive
from stepwell.runtime._parking import block, park_if_last, settle_parking
from stepwell.runtime._scope import Branch, Scope
from stepwell.runtime._threads import Job

if TYPE_CHECKING:
    from stepwell.core import Flow, Kind
    from stepwell.runtime._wait import Wait


class Strand:
    """One operation under way. It counts as a branch of its own: the run is parked when it waits, too."""

    def __init__(self, scope: Scope, flow: Flow[Any], key: str, kind: Kind) -> None:
        life = scope.life
        self._scope = scope
        self._flow = flow
        self._key = key
        self._kind: Kind = kind
        self._waiters: list[Wait] = []
        self.done = False
        self.cancelled = False
        self.value: Any = None
        self.error: Exception | None = None
        self._replay_end: ReplayEnd | None = None
        self.branch = branch = Branch(life, key, scope.branch)
        branch.pinned = True
        self._job = Job(self._run)
        if life.replay_only:
            self._look()
            return
        with life.lock:
            life.usable(scope.branch)
            life.branch_add(branch)
            scope.branch.strands += 1
            life.strands[key] = self
        life.host.threads.submit(self._job)

    @classmethod
    def of(cls, scope: Scope, flow: Flow[Any], key: str, kind: Kind) -> Strand:
        """The operation at this key: where a branch gave its thread away and is entered anew, the one that has gone on
        meanwhile.
        """
        life = scope.life
        with life.lock:
            there = life.strands.get(key)
            if there is not None:
                there._belong(scope)
                flow.close()
                return there
        return cls(scope, flow, key, kind)

    def _belong(self, scope: Scope) -> None:
        """It goes on beside the code of this scope. Under the life's lock."""
        before, now = self._scope.branch, scope.branch
        before.strands -= 1
        now.strands += 1
        self._scope, self.branch.parent = scope, now

    def _look(self) -> None:
        """Replay without executing: what is on record, at once and here."""
        try:
            self.value = drive(self._scope, self._flow)
        except BranchOver:
            self.cancelled = True
        except ReplayEnd as end:
            self._replay_end = end
        except Exception as error:
            self.error = error
        self.done = True

    def _run(self) -> None:
        life, outer = self._scope.life, self._scope
        try:
            scope = Scope(life, outer.key, self.branch, virtual=outer.virtual, real=outer.real)
            self.value = drive(scope, self._flow)
        except BranchOver:
            self.cancelled = True
        except Suspend:
            pass  # the life is over; whoever waits for this gets the same
        except Exception as error:
            self.error = error
        except BaseException as error:
            life.stop(LifeOver("interrupted", error))
        with life.lock:
            self._finish()
            life.branch_remove(self.branch)
            quiet = len(life.branches) <= 1
        self._wake()
        if quiet:
            life.quiet_gate.open()
        park_if_last(life)

    def _finish(self) -> None:
        """It has ended, or was let go of: nobody waits for it any longer. Under the life's lock."""
        if not self.done:
            self._scope.branch.strands -= 1
            del self._scope.life.strands[self._key]
        self.done = True
        for wait in self._waiters:
            self._scope.life.wait_end(wait)

    def _wake(self) -> None:
        for wait in self._waiters:
            wait.wake()

    def join(self, scope: Scope) -> None:
        """Wait on ``scope``'s branch until it is done; run it here if no thread is free.

        Raises:
            Suspend: the run is parked, or the life is over.
        """
        life, branch = scope.life, scope.branch
        if self._replay_end is not None:
            raise self._replay_end
        while True:
            with life.lock:
                life.usable(branch)
                if self.done:
                    return
                # From here on this branch waits, also while it lends its thread.
                wait = life.wait_begin(branch, self._key, None, own=False)
                self._waiters.append(wait)
                lend = bool(life.host.threads.backlog) and self._job.take()
                ticket = None if lend else life.park_ticket(())
            if lend:
                self._job.run()
            elif ticket is None or settle_parking(life, wait, ticket):
                block(life, wait)

    def cancel(self) -> bool:
        """Let go of it; on record, so that replay finds the same. False if it has ended, or is about to."""
        life = self._scope.life
        with life.lock:
            life.writable(self._scope.branch, ())
            op = life.run.ops.get(self._key)
            if op is not None and op.ended:
                # A replay: its own thread may not have found that out yet.
                if op.status == "cancelled":
                    self.cancelled = True
                    self._finish()
                return self.cancelled
            if self.done or self.branch.ended or self.branch.let_go:
                return self.cancelled
            record = OperationCancelled(life.store.now(), self._key, self._kind if op is None else op.kind)
            ticket = life.outside.cancel_locked(record)
            if ticket is None:
                return False
            life.let_go([self.branch])
            self.cancelled = True
            # Its thread may never end, and counts no more: who waits for it would wait for nothing.
            self._finish()
        self._wake()
        life.settle(ticket)
        life.host.nudge(ticket.batch.facts)
        return True
