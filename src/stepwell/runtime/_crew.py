"""The branches of a sync map or parallel: threads up to the engine's limit, the coordinator's own thread beyond."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any

from stepwell.core import (
    AskCompletion,
    BranchEnded,
    CancelBranches,
    Conclude,
    Done,
    Failed,
    Replayed,
    ScopeWanted,
    Spawn,
    TakeEvent,
    scope_outcome,
)
from stepwell.errors import Suspend
from stepwell.runtime._api import BranchOver, BranchUnwound, LifeOver, ReplayEnd
from stepwell.runtime._drive import drive
from stepwell.runtime._parking import block, park_if_last, settle_parking
from stepwell.runtime._scope import Branch, Scope
from stepwell.runtime._threads import Job
from stepwell.runtime._values import kept, text_of

if TYPE_CHECKING:
    from stepwell.core import BatchWanted, Effect
    from stepwell.runtime._api import BatchBody
    from stepwell.runtime._wait import Wait


NEVER = 1 << 62
"""A time that does not come: a branch that waits for something from outside alone."""


class Crew:
    """What performs the effects of one batch flow. Shared parts of both colours; this one is sync."""

    def __init__(self, scope: Scope, asked: BatchWanted) -> None:
        self.scope = scope
        self.life = scope.life
        self.asked = asked
        self.body: BatchBody = asked.body
        self.real = asked.want.key if asked.virtual else scope.real
        self.events: deque[BranchEnded] = deque()
        self.branches: dict[int, Branch] = {}
        self.waiting: Wait | None = None
        """The coordinator's own wait, while it has nothing to do."""
        self._jobs: deque[tuple[int, Job]] = deque()
        self._unwound: list[tuple[int, int, Wait]] = []
        """Heap of (due at, order, wait): branches without a thread. One that something outside wakes is in it twice."""
        self._indexes: dict[Wait, int] = {}
        self._order = count()
        self._under_way = 0
        """Branches that are queued for a thread or run; not those that ended or were unwound."""

    def perform(self, effect: Effect) -> Any:
        """Perform one effect of the batch flow."""
        match effect:
            case Spawn(index):
                return self.spawn(index)
            case TakeEvent():
                return self.take_event()
            case CancelBranches():
                return self.cancel()
            case AskCompletion(asked, ended):
                return self.body.ask(asked, ended)
            case Conclude(asked, reason, ended, started):
                return self.conclude(asked, reason, ended, started)
            case Replayed(asked, payload, _, again):
                with self.life.own_store():
                    text = text_of(self.life, payload, asked.want.key)
                if again is None:
                    return self.body.missing(self.scope, asked, text)
                return self.body.restore(self.scope, asked, text, again)
            case _:
                message = f"no batch effect: {effect!r}"
                raise TypeError(message)

    def conclude(self, asked: BatchWanted, reason: str, ended: dict[int, BranchEnded], started: frozenset[int]) -> Done:
        """The batch's result, on its way out."""
        text, value = self.body.conclude(self.scope, asked, reason, ended, started)
        return Done(kept(self.life, text), value, self.life.store.now())

    def new_branch(self, index: int) -> Branch:
        """A branch begins to count."""
        life = self.life
        branch = Branch(life, self.asked.branches[index].key, self.scope.branch)
        with life.lock:
            life.usable(self.scope.branch)
            life.branch_add(branch)
            self.branches[index] = branch
            self._under_way += 1
        return branch

    def wanted(self, index: int) -> ScopeWanted:
        """The branch as a scope."""
        return ScopeWanted(self.asked.branches[index], self.body.branch(index), self.asked.virtual, begun=True)

    def event(self, index: int, outcome: Done | Failed) -> BranchEnded:
        """How a branch has ended."""
        if isinstance(outcome, Failed):
            return BranchEnded(index, False, None, None, outcome.error)
        return BranchEnded(index, True, outcome.payload, outcome.value)

    def post(self, branch: Branch, event: BranchEnded | None) -> None:
        """A branch has ended: tell the coordinator. In one step, so that the run is never taken for idle between."""
        life = self.life
        with life.lock:
            self._under_way -= 1
            if event is not None and not branch.let_go:
                self.events.append(event)
            if self.waiting is not None:
                life.wait_end(self.waiting)
            life.branch_remove(branch)
            quiet = len(life.branches) <= 1
        self.wake()
        if quiet:
            life.quiet_gate.open()
        if not life.is_async:
            park_if_last(life)  # the coordinator may have left before: others of its branch wait by now

    def wake(self) -> None:
        """Let the coordinator look."""
        gate = self.scope.branch.gate
        if gate is not None:
            gate.open()

    # -- sync

    def spawn(self, index: int) -> None:
        """The branch has a slot: it runs as soon as there is a thread."""
        if self.life.replay_only:
            raise ReplayEnd
        self._submit(index, self.new_branch(index))

    def _submit(self, index: int, branch: Branch) -> None:
        job = Job(lambda: self._run(index, branch, inline=False))
        self._jobs.append((index, job))
        self.life.host.threads.submit(job)

    def _run(self, index: int, branch: Branch, *, inline: bool) -> None:
        branch.inline = inline
        try:
            scope = Scope(self.life, self.scope.key, branch, virtual=self.scope.virtual, real=self.real)
            outcome = drive(scope, scope_outcome(self.life.run, self.wanted(index)))
        except BranchUnwound as unwound:
            wait: Wait = unwound.args[0]
            with self.life.lock:
                over = self.life.over is not None or branch.gone
                if not over:
                    self._under_way -= 1
                    self._indexes[wait] = index
                    wait.resume = lambda: self._shelve(wait, 0)
                    self._shelve(wait, 0 if wait.is_ready() else NEVER if wait.until is None else wait.until)
            if over:
                self.post(branch, None)
            else:
                self.wake()
        except (BranchOver, ReplayEnd):
            self.post(branch, None)
        except Suspend:
            self.post(branch, None)
        except Exception as error:
            self.life.stop(error)
            self.post(branch, None)
        except BaseException as error:
            # KeyboardInterrupt or SystemExit in a branch: the life is interrupted, and its caller gets it.
            self.life.stop(LifeOver("interrupted", error))
            self.post(branch, None)
            if inline:
                raise
        else:
            self.post(branch, self.event(index, outcome))

    def _shelve(self, wait: Wait, due: int) -> None:
        """A branch without a thread is due then. Under the life's lock."""
        heapq.heappush(self._unwound, (due, next(self._order), wait))
        if self.waiting is not None:
            self.waiting.until = self._next_due()
        if due == 0:
            self.wake()

    def take_event(self) -> BranchEnded:
        """The next branch that ends; meanwhile this thread runs what finds no thread of its own."""
        life, branch = self.life, self.scope.branch
        while True:
            with life.lock:
                life.usable(branch)
                if self.events:
                    return self.events.popleft()
                self._requeue_due()
                # Only where no thread is free: what runs here keeps this coordinator from its events.
                job = self._next_job() if life.host.threads.backlog else None
            if job is not None:
                self._run_here(*job)
            else:
                self._wait()

    def leave(self) -> None:
        """The coordinator is left early. Branches that are unwound, or queued where no thread may ever be free, have
        nobody else who would end them: they go with it.
        """
        life = self.life
        with life.lock:
            for wait in self._indexes:
                life.branch_remove(wait.branch)
            self._forget_unwound()
            for index, job in self._jobs:
                if job.take():
                    life.branch_remove(self.branches[index])
            self._jobs.clear()

    def _wait(self) -> None:
        """Wait until a branch has ended or is due."""
        life, branch = self.life, self.scope.branch
        with life.lock:
            life.usable(branch)
            if self.events or self._is_due():
                return
            wait = self.waiting = life.wait_begin(branch, self.asked.want.key, self._next_due(), own=False)
            ticket = life.park_ticket(())
        try:
            if ticket is not None and not settle_parking(life, wait, ticket):
                return
            wanted = (branch.inline or life.host.threads.backlog) and branch.parent is not None and not branch.pinned
            if wanted and self._only_unwound():
                self._abandon(wait)
            block(life, wait)
        finally:
            self.waiting = None

    def _is_due(self) -> bool:
        return bool(self._unwound) and self._unwound[0][0] <= self.life.store.now()

    def _run_here(self, index: int, job: Job) -> None:
        job.run_inline(lambda: self._run(index, self.branches[index], inline=True))

    def _requeue_due(self) -> None:
        """Branches whose time has come go back into the queue. Under the life's lock."""
        now = self.life.store.now()
        while self._unwound and self._unwound[0][0] <= now:
            _, _, wait = heapq.heappop(self._unwound)
            index = self._indexes.pop(wait, None)
            if index is None or wait.branch.let_go:
                continue
            self.life.wait_end(wait)
            self._under_way += 1
            self._submit(index, wait.branch)

    def _next_due(self) -> int | None:
        return self._unwound[0][0] if self._unwound and self._unwound[0][0] < NEVER else None

    def _forget_unwound(self) -> None:
        self._unwound.clear()
        self._indexes.clear()

    def _next_job(self) -> tuple[int, Job] | None:
        """One of the own branches that no thread has taken yet. Under the life's lock."""
        while self._jobs:
            index, job = self._jobs.popleft()
            if not job.take():
                continue
            if self.branches[index].let_go:
                continue
            return index, job
        return None

    def _only_unwound(self) -> bool:
        return self._under_way == 0 and bool(self._indexes)

    def _abandon(self, wait: Wait) -> None:
        """This coordinator's thread is wanted elsewhere: its branches are entered anew when the first is due."""
        life = self.life
        with life.lock:
            if self.events or wait not in life.waits or not self._only_unwound():
                return
            inside = list(self._indexes)
            for inner in inside:
                life.wait_drop(inner)
                life.branches.discard(inner.branch)
            self._forget_unwound()
            # What would have woken one of them wakes their coordinator.
            wait.topics = tuple({topic: None for inner in inside for topic in inner.topics})
            wait.ready = lambda: any(inner.is_ready() for inner in inside)
            life.outside.watch(wait)
        raise BranchUnwound(wait)

    def cancel(self) -> list[int]:
        """Let go of the branches that still run. Their indexes, once nothing of them can be written any more."""
        life = self.life
        with life.lock:
            ended = {event.index for event in self.events}
            gone = {i: b for i, b in self.branches.items() if b in life.branches and not b.ended and i not in ended}
            life.let_go(list(gone.values()))
            for wait in self._indexes:
                life.branches.discard(wait.branch)
            self._jobs.clear()
            self._forget_unwound()
        return sorted(gone)
