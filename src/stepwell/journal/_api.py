"""The journal's seam: what a store promises, and the words that the engine and the stores share.

A run's journal is a sequence of rows ``(run, seq)``; one row holds the records of one *batch*. One row a batch
makes the two promises of ENGINE.md §3 a matter of a primary key: a batch is all or nothing, and two writers
that both believe to hold a run collide on the same ``seq``.

Three tables tell of a run: ``run`` (the catalogue: one row for ever), ``hot`` (one small row while the run is
open: who holds it, when it wakes, what waits in its inbox) and ``record`` (its journal).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal, Protocol

import msgspec

from stepwell.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stepwell.core import AnyRecord

OpenStatus = Literal["pending", "running", "waiting", "interrupted", "blocked", "rolling_back"]
EndStatus = Literal["succeeded", "failed", "cancelled", "timed_out", "continued"]
Status = Literal[
    "pending", "running", "waiting", "interrupted", "blocked", "rolling_back",
    "succeeded", "failed", "cancelled", "timed_out", "continued",
]  # fmt: skip


MAX_ROW_BYTES = 64 << 20
"""Most bytes in one row of a journal: a batch with more is refused, alone, with a `JournalError` of its own."""


RUN_DOOR = "run"
"""Door of rows that belong to one run: their key begins with the run's id and ``/``; `Store.gc` takes them with it."""


class Clock(Protocol):
    """The host's clocks, as one seam, so that tests own time."""

    def now(self) -> int:
        """Wall clock: microseconds since 1970 UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""
        ...


class SystemClock:
    """The real clocks."""

    def now(self) -> int:
        """Wall clock: microseconds since 1970 UTC."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Seconds on a clock that never steps."""
        return time.monotonic()


class InboxChanged(JournalError):
    """Something came into the run's inbox before this batch could park the run: read it and decide again."""


class ClaimLost(JournalError):
    """The row that a fact is claimed by is not as it was read: somebody else was quicker. Nothing was written."""


class RunExists(JournalError):
    """A run with this id is on record already."""


class Lease:
    """What the holder of a run knows of it. Written to only under the writer's mutex.

    ``rid`` is the store's own short number of the run (None before the run is on record), ``epoch`` the number of
    this lease, ``seq`` the last row that this holder wrote or saw, ``inbox`` how many inbox facts it has seen.
    """

    __slots__ = ("broken", "epoch", "inbox", "rid", "run_id", "seq", "worker")

    def __init__(  # one argument a column of the hot row
        self, run_id: str, worker: str, *, rid: int | None = None, epoch: int = 1, seq: int = 0, inbox: int = 0
    ) -> None:
        self.run_id = run_id
        self.worker = worker
        self.rid = rid
        self.epoch = epoch
        self.seq = seq
        self.inbox = inbox
        self.broken: BaseException | None = None
        """Why a batch of this holder was not written: no other records of its may follow (the writer sees to it)."""


class NewRun(msgspec.Struct, frozen=True):
    """The catalogue's columns of a run that starts. ``input_hash`` (BLAKE2b-128 of the input's text) tells whether
    a second start with the same id asks for the same. ``held``: the starter drives it; else it is ``pending``.
    """

    id: str
    function: str
    door: str
    input_hash: bytes
    created_at: int
    queue: str = "default"
    tags: tuple[str, ...] = ()
    target: str | None = None
    parent: str | None = None
    deadline: int | None = None
    held: bool = True
    ttl: float = 30.0


# What a batch does to the hot row, beside its records. None: nothing; a step never touches the hot row.


class Start(msgspec.Struct, frozen=True):
    """Insert the run: its catalogue row and hot row. The batch's result is `RunExists` if the id is taken."""

    run: NewRun


class Park(msgspec.Struct, frozen=True):
    """Status ``waiting`` until ``wake_at`` — a compare-and-set on the inbox counter (ENGINE.md §4).

    ``release``: the frames are dropped, so nobody holds the run any more.
    """

    wake_at: int | None
    waiting_for: str
    inbox_seen: int
    release: bool


class Unpark(msgspec.Struct, frozen=True):
    """The holder goes on in place: status ``running`` again, or ``rolling_back``.

    With ``inbox_seen`` a compare-and-set as `Park`: the batch is `InboxChanged` if something came that it has not seen
    (what ends a wait for lack of an answer must not overtake one).
    """

    status: OpenStatus = "running"
    inbox_seen: int | None = None


class Release(msgspec.Struct, frozen=True):
    """Nobody holds the run any more: ``interrupted``, ``blocked`` or ``rolling_back``, with the reason."""

    status: OpenStatus
    reason: str | None = None
    wake_at: int | None = None


class End(msgspec.Struct, frozen=True):
    """The run is over: the hot row goes, the catalogue row gets its end."""

    status: EndStatus
    reason: str | None = None


HotChange = Start | Park | Unpark | Release | End


class Note(msgspec.Struct, frozen=True):
    """Something said along the way that replay never asks for: a log line, progress, a heartbeat; events, metrics and
    progress bars of a pipeline's steps (``event``, ``metrics``, ``bar``); which records the code that came to the run's
    end had no use for (``unused``: a JSON list of keys).
    """

    key: str
    kind: Literal["log", "progress", "heartbeat", "unused", "event", "metrics", "bar"]
    at: int
    data: str


class DoorRow(msgspec.Struct, frozen=True):
    """A row of a door's own, written in the batch's transaction; ``data`` None deletes it."""

    door: str
    kind: str
    key: str
    data: bytes | None


class Outgoing(msgspec.Struct, frozen=True):
    """A fact for another run's inbox, delivered in the batch's transaction; dropped if that run is not open."""

    run_id: str
    kind: str
    at: int
    data: bytes


class Claim(msgspec.Struct, frozen=True):
    """A door's row that decides whether a fact is delivered: it must be ``before`` (None: absent) and becomes ``after``
    in the same transaction, so that of two that answer one question only one is heard.
    """

    door: str
    kind: str
    key: str
    before: bytes | None
    after: bytes


class Batch:
    """Records of one run that are written together or not at all."""

    __slots__ = ("blobs", "change", "data", "facts", "inbox_taken", "lease", "notes", "records", "rows", "seq")

    def __init__(  # a batch is what its columns are
        self,
        lease: Lease,
        records: Sequence[AnyRecord],
        change: HotChange | None = None,
        *,
        notes: Sequence[Note] = (),
        inbox_taken: Sequence[int] = (),
        blobs: Sequence[bytes] = (),
        rows: Sequence[DoorRow] = (),
        facts: Sequence[Outgoing] = (),
    ) -> None:
        self.lease = lease
        self.records = records
        self.change = change
        self.notes = notes
        self.inbox_taken = inbox_taken
        """Inbox numbers whose facts became records here; deleted in the same transaction."""
        self.blobs = blobs
        """Hashes that these records refer to."""
        self.rows = rows
        self.facts = facts
        """What it tells other runs; one fact for each at most."""
        self.seq = 0
        """The row's number: given by the writer, ``lease.seq + 1``. A batch without records has no row."""
        self.data = b""
        """The encoded records, filled in by the writer."""

    @property
    def plain(self) -> bool:
        """Records and nothing else: the fast path of every store."""
        return self.change is None and not (self.notes or self.inbox_taken or self.blobs or self.rows or self.facts)


class Entry(msgspec.Struct, frozen=True):
    """One row of a run's journal."""

    seq: int
    epoch: int
    data: bytes


class Fact(msgspec.Struct, frozen=True):
    """Something from outside that waits in a run's inbox. ``n`` is its number, given by the store."""

    n: int
    kind: str
    at: int
    data: bytes


class HotRow(msgspec.Struct, frozen=True):
    """An open run: who may write it, when it wakes."""

    rid: int
    run_id: str
    function: str
    door: str
    queue: str
    status: OpenStatus
    reason: str | None
    owner: str | None
    epoch: int
    wake_at: int | None
    waiting_for: str | None
    inbox: int
    ttl: float


class RunRow(msgspec.Struct, frozen=True):
    """A run as the catalogue shows it. ``status`` is the recorded one; `stepwell.client` turns a held run whose holder
    is gone into ``interrupted``.
    """

    rid: int
    id: str
    function: str
    door: str
    status: Status
    reason: str | None
    created_at: int
    ended_at: int | None
    queue: str
    tags: tuple[str, ...]
    target: str | None
    parent: str | None
    deadline: int | None
    input_hash: bytes
    owner: str | None = None
    epoch: int = 0
    wake_at: int | None = None
    waiting_for: str | None = None
    inbox: int = 0


class RunFilter(msgspec.Struct, frozen=True):
    """Which runs; all that is given must hold. ``text`` is looked for in id, function and reason."""

    statuses: tuple[str, ...] = ()
    function: str | None = None
    door: str | None = None
    queue: str | None = None
    tag: str | None = None
    parent: str | None = None
    id_prefix: str | None = None
    text: str | None = None
    created_from: int | None = None
    created_to: int | None = None
    ended_before: int | None = None


class WorkerInfo(msgspec.Struct, frozen=True):
    """Who a worker is. It can be seen dead at once only where host, boot and pid namespace are the observer's own."""

    id: str
    host: str
    boot: str
    pidns: str
    pid: int
    start: str
    """The process's start time as the kernel tells it, so that a pid used again is not taken for the old process."""
    queues: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    """What it drives by itself; empty for a process that only drives what it was asked for."""


class Taken(msgspec.Struct, frozen=True):
    """What a claim writes beside the lease: the records of its row (`LifeLost` if any, then `LifeStarted`)."""

    epoch: int
    records: tuple[AnyRecord, ...]
    status: OpenStatus = "running"
    ttl: float = 30.0


class GcResult(msgspec.Struct):
    """What `Store.gc` took away (or, dry, would take away)."""

    runs: int = 0
    rows: int = 0
    blobs: int = 0
    bytes: int = 0


class StoreTransaction(Protocol):
    """A transaction of the store's own database lent to a step's body (durable.md §5.6, ``transactional=True``)."""

    @property
    def connection(self) -> Any:
        """The DB-API connection; commit, rollback, close and BEGIN through it are `UsageError`."""
        ...

    def commit(self, batch: Batch) -> JournalError | None:
        """Write the batch as the last statement, with its fence, and commit: both or neither.

        Raises:
            JournalError: it is certain that nothing was committed.
        """
        ...

    def rollback(self) -> None:
        """Give everything up. Idempotent."""
        ...

    def interrupt(self) -> None:
        """From another thread: make what runs on the connection fail (a body's time is up)."""
        ...


class Store(Protocol):
    """One database. Thread-safe for reading; its writing methods are called under the writer's mutex only.

    Any method raises `JournalError` (or a subclass that says more) where the database cannot be used.
    """

    url: str

    @property
    def kind(self) -> Literal["memory", "sqlite", "postgres"]:
        """Which of the three."""
        ...

    transaction_excludes_writer: bool
    """A lent transaction holds the database's only write lock, so the writer must stand still meanwhile (SQLite)."""

    def now(self) -> int:
        """The store's time in microseconds since 1970 UTC; never goes back in this process (ENGINE.md §1)."""
        ...

    def close(self) -> None:
        """Release everything. Idempotent."""
        ...

    # -- writing: under the writer's mutex

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write all batches in one transaction; a batch that is refused fails alone, the others are committed.

        A batch with records inserts the row ``(rid, seq)`` if and only if the hot row has the batch's epoch and owner,
        ``seq`` is free and ``seq - 1`` is there (0 excepted); else its result is `Fenced`. Its other parts are written
        under the same condition. A batch without records must still match the epoch. `Start` sets ``lease.rid``.
        Several batches of one run come in order of ``seq``; a refused one refuses the later ones of its run, too.
        Where the outcome of a commit is unknown the store finds it out before it returns (ENGINE.md §3).

        Returns:
            One entry a batch: None (durable now), `Fenced`, `InboxChanged`, `RunExists`, or another `JournalError`
            that is the batch's own (too large).

        Raises:
            JournalError: nothing was written.
        """
        ...

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run if its hot row is still as seen (epoch, owner, inbox may have grown); one transaction.

        Sets owner, epoch, status and ttl, clears ``wake_at`` and reason; inserts row last + 1 with ``taken.records``.
        Works for a run with no owner, and for one whose owner the caller has judged gone.
        """
        ...

    def run_reopen(self, rid: int, worker: str, taken: Taken) -> Lease | None:
        """As `run_claim`, of an ended run: its hot row is made again (queue and function from the catalogue)."""
        ...

    def fact_deliver(self, run_id: str, kind: str, at: int, data: bytes, claim: Claim | None = None) -> bool:
        """Put a fact into the run's inbox and wake it: inbox + 1 and wake_at = now on its hot row, one transaction.

        A blocked run gets the fact but no wake time. Returns False if the run is not open (nothing written, the row of
        ``claim`` included).

        Raises:
            ClaimLost: the claim's row is not as it was read; nothing was written.
        """
        ...

    def blob_put(self, digest: bytes, chunks: Iterator[bytes]) -> None:
        """Store a blob in chunks of at most 1 MiB, or touch the one that is there (ENGINE.md §11)."""
        ...

    def gc(self, ended: RunFilter, *, dry_run: bool, max_rows: int = 5000) -> Iterator[GcResult]:
        """Take away ended runs that match, children with their parents and with the rows of door `RUN_DOOR` that are
        theirs, then blobs nobody refers to and that were untouched for a day. Each step of the iterator is one small
        transaction; it yields the counts so far.
        """
        ...

    def transaction(self) -> StoreTransaction:
        """Begin a transaction for a step's body. `UsageError` on a store that has none (memory)."""
        ...

    # -- leases of workers

    def worker_register(self, info: WorkerInfo) -> None:
        """The worker lives; its beats can be seen from here on."""
        ...

    def worker_beat(self, worker: str) -> None:
        """One more sign of life. Never waits for the database's write lock (ENGINE.md §2)."""
        ...

    def worker_leave(self, worker: str) -> None:
        """The worker ends in good order, after it handed back its runs."""
        ...

    def worker_list(self) -> list[WorkerInfo]:
        """All workers that registered and did not leave."""
        ...

    def worker_silence(self) -> Mapping[str, float]:
        """How long each *other* worker has been silent, in seconds of this process's monotonic clock since it saw the
        worker's last new beat; infinity for one known dead; 0 for one known alive. ENGINE.md §2 says how it is judged
        (a process that exists and is not stopped counts a tenth).
        """
        ...

    # -- reading

    def hot_get(self, run_id: str) -> HotRow | None:
        """The hot row, or None if the run is not open."""
        ...

    def hot_due(
        self, *, now: int, queues: Sequence[str] | None, functions: Sequence[str] | None,
        silent: Mapping[str, float], limit: int,
    ) -> list[HotRow]:  # fmt: skip
        """Open runs that somebody should take: with no owner and due (pending, interrupted, waiting past ``wake_at``,
        rolling_back), or with an owner that has been silent for at least the row's ttl. Never blocked ones. No lock.
        """
        ...

    def hot_held(self, worker: str) -> list[tuple[int, int, int]]:
        """``(rid, epoch, inbox)`` of every run the worker holds, one query."""
        ...

    def hot_next_wake(self, *, queues: Sequence[str] | None, functions: Sequence[str] | None) -> int | None:
        """The earliest ``wake_at`` of a run with no owner."""
        ...

    def inbox_load(self, rid: int) -> list[Fact]:
        """What waits, in order of arrival."""
        ...

    def record_load(self, rid: int, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Rows of the run's journal in order of seq, from after ``after``."""
        ...

    def note_load(
        self, rid: int, *, kind: str | None, key: str | None, after: int, limit: int
    ) -> list[tuple[int, Note]]:
        """Notes in order of their number ``n``, from after ``after``."""
        ...

    def blob_get(self, digest: bytes) -> bytes | None:
        """The blob, or None."""
        ...

    def row_get(self, door: str, kind: str, key: str) -> bytes | None:
        """A door's own row."""
        ...

    def row_list(self, door: str, kind: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """A door's own rows whose key begins with ``prefix``, in order of key."""
        ...

    def run_get(self, run_id: str) -> RunRow | None:
        """The catalogue's row."""
        ...

    def run_list(self, where: RunFilter, *, limit: int, before: int | None = None) -> list[RunRow]:
        """Newest first; ``before`` is the rid of the last row of the page before."""
        ...

    def run_count(self, where: RunFilter) -> int:
        """How many."""
        ...

    def wait(self, timeout: float) -> None:
        """Return when something may have changed, or after ``timeout`` seconds. A hint; the poll is the truth."""
        ...

    def poke(self) -> None:
        """Make every `wait` of this process return."""
        ...

    def check(self) -> Iterator[str]:
        """Problems of the database itself, one line each (its own integrity check, schema, settings, orphan blobs)."""
        ...

    def facts(self) -> Mapping[str, str]:
        """For `doctor`: schema version, server version, mode of waking, sizes."""
        ...
