"""One life of a run: from the claim of its lease until it ends, parks, or is lost.

A life owns the folded state, the run's line into the journal, and the count of branches that are busy. When that count
reaches zero while something waits, the run is parked. What ends a life is *sticky*: ``over`` is raised at every later
call on every context of the run, so that code which swallows it gets no further.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stepwell.core import (
    US,
    CallbackFailed,
    CallbackSucceeded,
    InvokeFailed,
    InvokeSucceeded,
    Parked,
    ScopeFailed,
    ScopeSucceeded,
    SignalTaken,
    SignalTimedOut,
    StepFailed,
    StepRetryPlanned,
    StepSucceeded,
    WaitEnded,
    fold_all,
)
from stepwell.errors import Fenced, JournalError, NonDeterminismError, Suspend
from stepwell.journal import InboxChanged, Line, Park, Unpark
from stepwell.runtime._api import BranchOver, Leaving, LifeOver, Unwinding
from stepwell.runtime._observe import Watch
from stepwell.runtime._outside import Outside
from stepwell.runtime._scope import Branch, Scope
from stepwell.runtime._unused import Asked
from stepwell.runtime._wait import Wait, wake_each

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator, Sequence

    from stepwell.core import AnyRecord, Payload, RunState
    from stepwell.journal import HotChange, Lease, Note, Outgoing, Ticket
    from stepwell.runtime._api import Follower, Program, Undo
    from stepwell.runtime._host import Host
    from stepwell.runtime._observe import Observer
    from stepwell.runtime._strand import Strand
    from stepwell.serde import Redactor


ENDS = frozenset({
    ScopeSucceeded, ScopeFailed, StepSucceeded, StepFailed, WaitEnded, CallbackSucceeded, CallbackFailed,
    InvokeSucceeded, InvokeFailed, SignalTaken, SignalTimedOut,
})  # fmt: skip
"""Records after which an operation has ended; a branch that has queued its own can be let go of no more."""
ENDS_OF_ATTEMPTS = ENDS | {StepRetryPlanned}
"""Records of work that is done, whether or not there will be more of it."""


class Life:
    """See the module."""

    def __init__(
        self, host: Host, run: RunState, lease: Lease, program: Program, *, hold: float,
        observers: Sequence[Observer] = (),
    ) -> None:  # fmt: skip
        self.host = host
        self.store = host.store
        self.writer = host.writer
        self.run = run
        self.lease = lease
        self.program = program
        self.is_async = program.is_async
        self.watch: Watch | None = Watch(self, observers) if observers else None
        self.eager = self.watch is not None and self.watch.eager  # see `Observer.eager`
        self.hold = 0 if self.eager else round(min(hold, 1e9) * US)
        self.lock = threading.Lock()
        self.line = Line(host.writer, lease, self._fold)
        self.loop: asyncio.AbstractEventLoop | None = None
        self.over: BaseException | None = None
        self.replaying = bool(run.ops)
        """Whether this life began with records of operations."""
        self.asked = Asked() if run.ops else None
        self.parking: Ticket | None = None
        """The newest batch that gives the run up until something comes. Under ``lock``."""
        self.strands: dict[str, Strand] = {}
        """Sync: operations that go on beside the code that began them, by key."""
        self.undos: dict[str, Undo] = {}
        self.undo_order: Callable[[list[str]], list[str]] = list
        """For doors whose branches are undone in an order of their own; given last finished first."""
        self.replay_only = False
        """Replay without executing: to find the undo functions of finished steps (durable.md §3.3)."""
        self.look_inside = True
        """Such a replay enters finished scopes, too."""
        self.follower: Follower | None = None
        """A rehearsal: what to tell of each effect. Nothing is ever written."""
        self.rolling_back = False
        self.redactor: Redactor = host.new_redactor()
        self.warned: set[str] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        """Async: tasks in which operations ran; they are settled before the life is."""
        self.root = Branch(self, "", None)
        self.branches: set[Branch] = {self.root}
        self.busy = 1
        self.waits: dict[Wait, None] = {}
        self._parked = False
        self._unpark = run.parked is not None and run.life is not None and run.parked.at > run.life.at
        self.outside = Outside(self)
        self.input: Payload = run.input
        self.deadline: int | None = run.deadline
        """When the run times out, if ever."""
        self.driver: threading.Thread | asyncio.Task[Any] | None = None
        """Who runs the handler: a run is kept only while it lives (ENGINE.md §2)."""
        self.ended = False
        self.quiet_gate = host.threads.gate()
        """Opened when no branch but the handler's own is left."""

    # -- who runs here

    def current_owner(self) -> object:
        """The thread, or in async lives the task, that runs here."""
        if self.is_async:
            import asyncio

            try:
                return asyncio.current_task() or threading.get_ident()
            except RuntimeError:
                return threading.get_ident()
        return threading.get_ident()

    def owner_name(self) -> str:
        """The same for a text."""
        return f"task {self.current_owner()!r}" if self.is_async else f"thread '{threading.current_thread().name}'"

    def root_scope(self) -> Scope:
        """A scope for the handler, made by the thread or task that runs it."""
        return Scope(self, "", self.root)

    def branch_over(self, branch: Branch) -> BranchOver:
        """What a branch gets that was let go of."""
        return BranchOver(f"the batch around '{branch.key}' has ended without it")

    def abandoned(self) -> bool:
        """Whether whoever drove the run is gone without a word: its thread dead, its task done, its loop closed."""
        driver = self.driver
        if isinstance(driver, threading.Thread):
            return not driver.is_alive()
        if self.loop is not None:
            return self.loop.is_closed() or (driver is not None and driver.done())
        return False

    # -- appending

    def _fold(self, records: Sequence[AnyRecord]) -> None:
        if self.watch is None:
            fold_all(self.run, records)
        else:
            self.watch.fold(records)

    def ride(self, records: Sequence[AnyRecord], notes: Sequence[Note] = (), blobs: Sequence[bytes] = ()) -> None:
        """Write these with the run's next commit."""
        self.line.ride(records, notes, blobs)
        self.host.flush_soon(self)

    def enqueue(
        self,
        branch: Branch | None,
        records: Sequence[AnyRecord],
        change: HotChange | None = None,
        facts: Sequence[Outgoing] = (),
    ) -> Ticket:
        """Queue records of a branch (None: of the life itself) for the writer.

        Raises:
            LifeOver: the life may write no more.
            BranchOver: the branch was let go of.
        """
        with self.lock:
            self.writable(branch, records)
            records, rows, told = self.outside.left(records)
            return self.line.enqueue(records, change or self.unparked(), rows=rows, facts=(*facts, *told))

    def unparked(self) -> HotChange | None:
        """What the next batch does to the hot row, if the run was parked in place and goes on. Under ``lock``."""
        if not self._unpark:
            return None
        self._unpark = False
        return Unpark("rolling_back" if self.rolling_back else "running")

    def unpark(self) -> None:
        """The run goes on, whatever was queued to park it. Under ``lock``."""
        if self._parked:
            self._parked, self._unpark = False, True

    def writable(self, branch: Branch | None, records: Sequence[AnyRecord]) -> None:
        """Raise if this branch may not write these. Under ``lock``."""
        over = self.over
        # A body that ends while its process leaves has done its work: without its record it would be done again.
        done = type(over) is Leaving and bool(records) and type(records[-1]) in ENDS_OF_ATTEMPTS
        if over is not None and type(over) is not Unwinding and not done:
            raise over.with_traceback(None)
        if branch is None:
            return
        if branch.let_go or (branch.parent is not None and branch.gone):
            raise self.branch_over(branch)
        last = records[-1] if records else None
        if type(last) in ENDS and last.key == branch.key:  # type: ignore[union-attr]
            branch.ended = True

    def commit(self, branch: Branch | None, records: Sequence[AnyRecord], change: HotChange | None = None) -> None:
        """Make records durable and fold them; on return both are done."""
        self.settle(self.enqueue(branch, records, change))

    def settle(self, ticket: Ticket) -> None:
        """Block until the ticket is durable. What it meets is never the operation's error (ENGINE.md §3).

        Raises:
            InboxChanged: a `Park` came too late.
            LifeOver: the lease is lost, or the store failed.
        """
        try:
            self.writer.commit(ticket)
        except InboxChanged:
            raise
        except JournalError as error:
            raise self.fail(error) from error

    async def commit_async(
        self, branch: Branch | None, records: Sequence[AnyRecord], change: HotChange | None = None
    ) -> None:
        """As `commit`; a cancellation is delivered after the outcome is known."""
        await self.settle_async(self.enqueue(branch, records, change))

    async def settle_async(self, ticket: Ticket) -> None:
        """As `settle`."""
        from asyncio import CancelledError

        cancelled: CancelledError | None = None
        # A cancellation ends the future and not the commit: there is a new one to await as long as it is under way.
        while (future := self.writer.future(ticket)) is not None:
            try:
                await future
            except CancelledError as error:
                cancelled = error
        try:
            ticket.result()
        except InboxChanged:
            raise
        except JournalError as error:
            raise self.fail(error) from error
        if cancelled is not None:
            raise cancelled

    # -- the end of a life

    def fail(self, error: JournalError) -> LifeOver:
        """The life is over because it cannot write; sticky."""
        what = "lease lost" if isinstance(error, Fenced) else "store failed"
        with self.lock:
            if type(self.over) is Suspend and self.lease.broken is not None:
                self.over = None  # the park that was queued was not written: the lease is held still
        return self.stop(LifeOver(what, error))  # type: ignore[return-value]

    @contextmanager
    def own_store(self) -> Iterator[None]:
        """Around each use of the run's own store while user code is on the stack: what goes wrong there is never an
        operation's error (ENGINE.md §3), or ``except Exception: refund()`` would run on a full disk.

        Raises:
            LifeOver: the store failed, or the lease is lost.
        """
        try:
            yield
        except JournalError as error:
            raise self.fail(error) from error

    def stop(self, over: BaseException) -> BaseException:
        """End the life: every branch gets ``over`` at its next call, waiting ones at once. The first one stays."""
        with self.lock:
            if self.over is None or type(self.over) is Unwinding:
                self.over = over
            over = self.over
        self._wake_all()
        return over

    def _wake_all(self) -> None:
        if self.is_async and self.loop is not None:
            try:
                self.loop.call_soon_threadsafe(self._wake_waits)
            except RuntimeError:
                pass  # the loop is closed: nobody is left to wake
        else:
            self._wake_waits()

    def _wake_waits(self) -> None:
        for wait in list(self.waits):
            wait.wake()
        for branch in list(self.branches):
            if branch.gate is not None:
                branch.gate.open()
        if self.is_async and self.root.task is not None and self.over is not None and not self._may_finish():
            self._nudge_root(10)

    def _may_finish(self) -> bool:
        """Async: the process leaves, and a body is under way that is let come to its end."""
        return type(self.over) is Leaving and any(branch.open > branch.waiting for branch in self.branches)

    def _nudge_root(self, rounds: int) -> None:
        """What the handler awaits outside operations is dropped: cancel it if it does not unwind by itself."""
        task = self.root.task
        if task is None or task.done() or self.loop is None:
            return
        if rounds > 0:
            self.loop.call_soon(self._nudge_root, rounds - 1)
        else:
            task.cancel()

    def diverge(self, error: NonDeterminismError) -> NonDeterminismError:
        """The code has changed under the run; sticky."""
        self.stop(error)
        return error

    # -- waiting and parking

    def usable(self, branch: Branch) -> None:
        """Raise if this branch may not go on."""
        if self.over is not None:
            raise self.over.with_traceback(None)
        if branch.let_go or (branch.parent is not None and branch.gone):
            raise self.branch_over(branch)

    def wait_begin(
        self,
        branch: Branch,
        key: str,
        until: int | None,
        *,
        own: bool = True,
        topics: tuple[str, ...] = (),
        ready: Callable[[], bool] | None = None,
    ) -> Wait:
        """One of the branch's operations waits from here on. Under ``lock``."""
        wait = Wait(branch, key, until, own=own, topics=topics, ready=ready)
        self.waits[wait] = None
        if topics:
            self.outside.watch(wait)
        branch.waiting += 1
        if not branch.settling:
            self.idle_if_waiting(branch)
        return wait

    def idle_if_waiting(self, branch: Branch) -> None:
        """The branch is not busy if all that it has under way waits. Under ``lock``."""
        if not branch.idle and branch.waiting and (not self.is_async or branch.waiting == branch.open):
            branch.idle = True
            if branch.counted:
                self.busy -= 1

    def wait_end(self, wait: Wait) -> None:
        """It goes on. Under ``lock``. Idempotent."""
        if wait in self.waits:
            self.wait_drop(wait)
            wait.branch.waiting -= 1
            self.busy_again(wait.branch)

    def wait_drop(self, wait: Wait) -> None:
        """Nobody waits here any more; its branch is gone, or told apart. Under ``lock``."""
        self.waits.pop(wait, None)
        if wait.topics:
            self.outside.unwatch(wait)

    def wake(self, waits: Sequence[Wait]) -> None:
        """Let these look again."""
        if not self.is_async or self.loop is None:
            for wait in waits:
                wait.wake()
            return
        try:
            self.loop.call_soon_threadsafe(wake_each, waits)
        except RuntimeError:
            pass  # the loop is closed: nobody is left to wake

    def busy_again(self, branch: Branch) -> None:
        """The branch has something to do. Under ``lock``."""
        if branch.idle:
            branch.idle = False
            if branch.counted:
                self.busy += 1
                if self._parked:
                    self._parked, self._unpark = False, True

    def branch_add(self, branch: Branch) -> None:
        """A branch begins. Under ``lock``."""
        self.branches.add(branch)
        self.busy += 1

    def branch_remove(self, branch: Branch) -> None:
        """A branch has ended, whatever it left open. Under ``lock``."""
        self.branches.discard(branch)
        if branch.counted and not branch.idle:
            self.busy -= 1
        branch.counted = False

    def let_go(self, branches: list[Branch]) -> None:
        """Count these, and all inside them, no more; nothing of them is written from here on. Under ``lock``."""
        for branch in branches:
            branch.let_go = True
        for branch in self.branches:
            if branch.counted and branch.gone:
                if not branch.idle:
                    self.busy -= 1
                branch.counted = False
        for wait in [w for w in self.waits if w.branch.gone]:
            self.wait_drop(wait)
            wait.wake()

    def park_ticket(self, records: Sequence[AnyRecord]) -> Ticket | None:
        """The batch of a branch that has just begun to wait: its records, and `Parked` if it was the last. Under
        ``lock``, because "am I the last?" must be asked when records are queued (ENGINE.md §4).
        """
        if self.busy or not self.waits or self.replay_only:
            return self.line.enqueue(records, self.unparked()) if records else None
        if self._parked and not records:
            return None
        now = self.store.now()
        times = [wait.until for wait in self.waits if wait.until is not None]
        if self.deadline is not None and not self.rolling_back:
            times.append(self.deadline)
        wake = min(times, default=None)
        names = tuple(sorted({wait.key for wait in self.waits if wait.own}))[:5]
        release = wake is None or wake - now > self.hold or self.hold == 0
        self._parked, self._unpark = True, False
        if release:
            # From here on nothing of this life may be queued behind the release of its lease.
            self.over = self.over or Suspend("parked")
        change = Park(wake, ", ".join(names), self.lease.inbox, release)
        ticket = self.line.enqueue((*records, Parked(now, wake, names)), change)
        self.parking = ticket if release else None
        return ticket

    def unwind(self, why: str) -> None:
        """Leave the handler, to roll back (why: cancelled or timed_out)."""
        self.stop(Unwinding(why))

    def begin_rollback(self) -> None:
        """The handler has been left for good: a fresh root branch for the undo steps."""
        with self.lock:
            self.root.let_go = True
            self.root = Branch(self, "", None)
            self.branches = {self.root}
            self.busy = 1
            self.waits.clear()
            self.over = None
            self.rolling_back = True
            self._parked, self._unpark = False, True

    def suspended(self) -> None:
        """`Parked` with release is durable: unwind the frames."""
        self._wake_all()
