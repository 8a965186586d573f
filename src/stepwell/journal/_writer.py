"""The writer: everything that a process writes into one store goes through here, one transaction at a time.

One mutex guards the store's write connection. A sync caller that gets it without waiting commits on its own thread and
drains what has queued (ENGINE.md §5); everybody else queues, and the writer thread commits all that has queued as one
transaction. Rows are numbered, written and *folded* under the mutex, in that order, before any waiter wakes: what a run
believes of itself is never ahead of its journal and never behind it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, Self

from stepwell.core import encode_records
from stepwell.errors import JournalError, UsageError
from stepwell.journal._api import Batch, InboxChanged, Park, Release, RunExists, Unpark

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from stepwell.core import AnyRecord
    from stepwell.journal._api import DoorRow, HotChange, Lease, Note, Outgoing, Store

GROUP = 1000
"""Most batches in one transaction."""
ROUNDS = 4
"""Most transactions that a caller commits for others before the writer thread takes over."""

_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


class Ticket:
    """A batch on its way. ``error`` says after ``done`` why it was refused, None if it is durable."""

    __slots__ = ("_future", "_lock", "batch", "done", "error", "fold")

    def __init__(self, batch: Batch, fold: Callable[[Sequence[AnyRecord]], None] | None) -> None:
        self.batch = batch
        self.fold = fold
        self.done = False
        self.error: BaseException | None = None
        self._lock: Any = None
        self._future: asyncio.Future[None] | None = None

    def result(self) -> None:
        """Raise what the batch met.

        Raises:
            JournalError: it is not written.
        """
        if self.error is not None:
            raise self.error


class Line:
    """One run's way into the journal: its lease, and the records that ride with its next commit."""

    def __init__(self, writer: Writer, lease: Lease, fold: Callable[[Sequence[AnyRecord]], None]) -> None:
        self.writer = writer
        self.lease = lease
        self.fold = fold
        self.start: HotChange | None = None
        """A `Start` that rides with the first commit (durable.md §3.3: only for runs that nobody else can know)."""
        self._records: list[AnyRecord] = []
        self._notes: list[Note] = []
        self._blobs: list[bytes] = []

    @property
    def riding(self) -> bool:
        """Something waits for the next commit."""
        return bool(self._records or self._notes or self.start)

    def ride(self, records: Sequence[AnyRecord] = (), notes: Sequence[Note] = (), blobs: Sequence[bytes] = ()) -> None:
        """Write these with the run's next commit, before its records."""
        with self.writer.queue_lock:
            self._records += records
            self._notes += notes
            self._blobs += blobs

    def enqueue(
        self,
        records: Sequence[AnyRecord] = (),
        change: HotChange | None = None,
        *,
        inbox_taken: Sequence[int] = (),
        rows: Sequence[DoorRow] = (),
        facts: Sequence[Outgoing] = (),
    ) -> Ticket:
        """Queue a batch of what rides and these records. Order of calls is order in the journal."""
        with self.writer.queue_lock:
            ticket = self._ticket(records, change, inbox_taken, rows, facts)
            self.writer.queue.append(ticket)
        return ticket

    def _ticket(
        self,
        records: Sequence[AnyRecord],
        change: HotChange | None,
        inbox_taken: Sequence[int] = (),
        rows: Sequence[DoorRow] = (),
        facts: Sequence[Outgoing] = (),
    ) -> Ticket:
        if self._records:
            records = (*self._records, *records)
            self._records = []
        notes: Sequence[Note] = ()
        if self._notes:
            notes, self._notes = self._notes, []
        blobs: Sequence[bytes] = ()
        if self._blobs:
            blobs, self._blobs = self._blobs, []
        if self.start is not None:
            if change is not None:
                # The run is not on record yet and this batch already changes it: two batches, in order.
                self.writer.queue.append(
                    Ticket(Batch(self.lease, records, self.start, notes=notes, blobs=blobs), self.fold)
                )
                records, notes, blobs = (), (), ()
            else:
                change = self.start
            self.start = None
        batch = Batch(
            self.lease, records, change, notes=notes, inbox_taken=inbox_taken, blobs=blobs, rows=rows, facts=facts
        )
        return Ticket(batch, self.fold)

    def take_riding(self, records: Sequence[AnyRecord]) -> Ticket:
        """A ticket that is not queued: for a transaction that the caller commits itself."""
        with self.writer.queue_lock:
            return self._ticket(records, None)


class Events(Protocol):
    """What a process does around its commits: a seam for the thread that must not be interrupted in the middle."""

    def enter(self) -> None:
        """This thread begins to write."""

    def leave(self) -> None:
        """It is done: what was held back may come."""


class Writer:
    """The only writer of one store in one process."""

    def __init__(self, store: Store, *, inline: bool = False, events: Events | None = None) -> None:
        """``inline``: no thread; whoever waits commits (simulation)."""
        self.store = store
        self.queue: deque[Ticket] = deque()
        self.queue_lock = threading.Lock()
        self._mutex = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._lent: int | None = None
        """The thread that holds the mutex for more than one commit: it may not wait for it a second time."""
        self._inline = inline
        self._events = events
        self._thread: threading.Thread | None = None
        self._forked = False
        _writers.add(self)

    # -- callers

    def commit(self, ticket: Ticket) -> None:
        """Block until the ticket's batch is durable and folded.

        Raises:
            JournalError: it was refused, or the store cannot be written; `Fenced` if the lease is lost.
        """
        if ticket.done:
            return ticket.result()
        self.refuse_lent()
        self._try_commit()
        if not ticket.done:
            self._block(ticket)
        return ticket.result()

    def refuse_lent(self) -> None:
        """Raise where this thread would wait for itself.

        Raises:
            UsageError: a transactional step's body wrote to the same store in another way.
        """
        if self._lent is not None and self._lent == threading.get_ident():
            message = "a transactional step holds the store's write lock: start runs and write records outside of it"
            raise UsageError(message)

    def _try_commit(self) -> None:
        events = self._events
        if events is not None:
            events.enter()
        try:
            if self._mutex.acquire(blocking=self._inline):
                try:
                    for _ in range(ROUNDS):
                        if not self._drain():
                            break
                finally:
                    self._mutex.release()
        finally:
            if events is not None:
                events.leave()
        if self.queue:
            self._kick()

    def _block(self, ticket: Ticket) -> None:
        with self.queue_lock:
            if ticket.done:
                return
            lock = ticket._lock
            if lock is None:
                lock = ticket._lock = threading.Lock()
                lock.acquire()
        self._kick()
        lock.acquire()
        lock.release()

    def future(self, ticket: Ticket) -> asyncio.Future[None] | None:
        """Something to await that ends when the ticket is done; None if it is. For one task, which asks again if it
        was cancelled (ENGINE.md §3): the commit goes on whatever becomes of the future. Then ask ``ticket.result()``.
        """
        import asyncio

        if self._inline:
            if not ticket.done:
                self._try_commit()
            return None
        with self.queue_lock:
            if ticket.done:
                return None
            future = ticket._future
            if future is None or future.done():
                future = ticket._future = asyncio.get_running_loop().create_future()
        self._kick()
        return future

    def exclusive(self) -> Exclusive:
        """Hold the mutex for a claim, a delivery, or a transaction that a body writes in; what queued goes first."""
        return Exclusive(self)

    def flush(self, lines: Sequence[Line]) -> None:
        """Commit what rides in these lines, without waiting for it."""
        tickets = [line.enqueue() for line in lines if line.riding]
        if tickets:
            if self._inline:
                self._try_commit()
            else:
                self._kick()

    def stop(self) -> None:
        """Commit what has queued and end the thread. Idempotent; never raises."""
        self._stopped = True
        thread = self._thread
        if thread is not None:
            self._wake.set()
            if thread is not threading.current_thread():
                thread.join()

    # -- committing

    def _kick(self) -> None:
        if self._thread is None and not self._inline:
            with self.queue_lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="stepwell-writer", daemon=True)
                    self._thread.start()
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            more = True
            while more:
                with self._mutex:
                    more = self._drain()
            if self._stopped and not self.queue:
                return

    def _drain(self) -> bool:
        """Commit what has queued as one transaction; True if there may be more. Under the mutex."""
        queue = self.queue
        if not queue:
            return False
        if len(queue) == 1:
            tickets = [queue.popleft()]
        else:
            with self.queue_lock:
                tickets = self._group()
        behind = [ticket for ticket in tickets if _is_behind(ticket)]
        if behind:
            tickets = [ticket for ticket in tickets if ticket not in behind]
        error: JournalError | None = None
        refused: list[JournalError | None] = []
        try:
            refused = self._write(tickets)
        except JournalError as caught:
            error = caught
        except BaseException as caught:
            error = JournalError(f"the store could not be written: {caught!r}")
            error.__cause__ = caught
        for position, ticket in enumerate(tickets):
            ticket.error = error or refused[position]
            if ticket.batch.records and not isinstance(ticket.error, InboxChanged | RunExists | None):
                ticket.batch.lease.broken = ticket.error
        self._settle([*tickets, *behind])
        return bool(queue)

    def _group(self) -> list[Ticket]:
        """The head of the queue. What is refused because something came in takes no other batch of its run with it:
        that one is written next.
        """
        queue, group = self.queue, [self.queue.popleft()]
        unsure: set[int] = set()
        while queue and len(group) < GROUP:
            change = group[-1].batch.change
            if isinstance(change, Park | Unpark) and change.inbox_seen is not None:
                unsure.add(id(group[-1].batch.lease))
            if unsure and id(queue[0].batch.lease) in unsure:
                break
            group.append(queue.popleft())
        return group

    def _write(self, tickets: Sequence[Ticket]) -> list[JournalError | None]:
        """Number the rows, write them, fold what is durable."""
        if self._forked:
            message = f"{self.store.url} was opened before this process was forked: open it again"
            raise JournalError(message)
        seqs: dict[int, int] = {}
        batches: list[Batch] = []
        for ticket in tickets:
            batch = ticket.batch
            lease = batch.lease
            if batch.records:
                batch.seq = seqs[id(lease)] = seqs.get(id(lease), lease.seq) + 1
                batch.data = encode_records(batch.records)  # type: ignore[arg-type]
            batches.append(batch)
        results = self.store.batch_commit(batches)
        for position, ticket in enumerate(tickets):
            if results[position] is None:
                failed = self._fold(ticket)
                if failed is not None:
                    results[position] = failed
        return results

    def _fold(self, ticket: Ticket) -> JournalError | None:
        batch = ticket.batch
        if batch.records:
            batch.lease.seq = batch.seq
        if ticket.fold is not None and batch.records:
            try:
                ticket.fold(batch.records)
            except JournalError as error:
                return error
        return None

    def _settle(self, tickets: Sequence[Ticket]) -> None:
        loops: dict[Any, list[asyncio.Future[None]]] = {}
        with self.queue_lock:
            for ticket in tickets:
                ticket.done = True
        for ticket in tickets:
            if ticket._lock is not None:
                ticket._lock.release()
            if ticket._future is not None:
                loops.setdefault(ticket._future.get_loop(), []).append(ticket._future)
        for loop, futures in loops.items():
            try:
                loop.call_soon_threadsafe(_wake_all, futures)
            except RuntimeError:
                pass  # the loop is closed; its runs are given up by the beat (ENGINE.md §2), the writer goes on


def _is_behind(ticket: Ticket) -> bool:
    """Behind a batch that was not written, a journal would have a hole: refuse what comes. The lease is handed back."""
    batch = ticket.batch
    broken = batch.lease.broken
    if broken is None or not batch.records:
        return False
    if isinstance(batch.change, Release) and batch.change.status != "blocked":
        # With them goes all that only makes sense with them.
        batch.records = batch.facts = batch.inbox_taken = batch.rows = ()
        return False
    ticket.error = broken
    return True


def _wake_all(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)


class Exclusive:
    """``with writer.exclusive():`` the store's write connection is the caller's."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def __enter__(self) -> Self:
        writer = self._writer
        writer.refuse_lent()
        if writer._events is not None:
            writer._events.enter()
        writer._mutex.acquire()
        writer._lent = threading.get_ident()
        try:
            while writer._drain():
                pass
        except BaseException:
            self.__exit__()
            raise
        return self

    def commit(self, ticket: Ticket, write: Callable[[Batch], JournalError | None]) -> None:
        """Number, write through ``write`` (a lent transaction's commit) and fold one ticket that was not queued.

        Raises:
            JournalError: it was refused (`Fenced`), or nothing was written.
        """
        batch = ticket.batch
        batch.seq = batch.lease.seq + 1
        batch.data = encode_records(batch.records)  # type: ignore[arg-type]
        ticket.error = write(batch) or None
        if ticket.error is None:
            ticket.error = self._writer._fold(ticket)
        self._writer._settle([ticket])
        ticket.result()

    def __exit__(self, *exc: object) -> None:
        writer = self._writer
        writer._lent = None
        writer._mutex.release()
        if writer.queue:
            writer._kick()
        if writer._events is not None:
            writer._events.leave()


def _after_fork() -> None:
    # In the child every writer refuses. Its locks are fresh ones: a thread that the child does not have may have held
    # the old, and what queued is the parent's to write.
    for writer in list(_writers):
        writer._forked = True
        writer.queue = deque()
        writer.queue_lock = threading.Lock()
        writer._mutex = threading.Lock()
        writer._wake = threading.Event()
        writer._lent = None
        writer._thread = None


os.register_at_fork(after_in_child=_after_fork)
