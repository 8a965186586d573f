"""What a memory store's views share, and how it is read and changed. All functions here run under the data's lock."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stepwell.core import encode_records
from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import (
    MAX_ROW_BYTES,
    RUN_DOOR,
    ClaimLost,
    End,
    Entry,
    Fact,
    HotRow,
    InboxChanged,
    Lease,
    Park,
    Release,
    RunExists,
    RunRow,
    Start,
    Unpark,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stepwell.journal._api import (
        Batch,
        Claim,
        Clock,
        DoorRow,
        EndStatus,
        NewRun,
        Note,
        OpenStatus,
        Outgoing,
        RunFilter,
        Taken,
        WorkerInfo,
    )

BLOB_REST = 86_400 * 1_000_000
"""Microseconds for which a blob must have been untouched before `gc` may take it away."""


class Hot:
    """What is known of a run only while it is open."""

    __slots__ = ("epoch", "inbox", "owner", "reason", "status", "ttl", "waiting_for", "wake_at")

    def __init__(self, status: OpenStatus, owner: str | None, epoch: int, ttl: float, inbox: int = 0) -> None:
        self.status = status
        self.owner = owner
        self.epoch = epoch
        self.ttl = ttl
        self.inbox = inbox
        self.reason: str | None = None
        self.wake_at: int | None = None
        self.waiting_for: str | None = None


class Run:
    """A run with all that belongs to it. ``entries[i]`` is the row with seq i + 1."""

    __slots__ = ("blobs", "end", "ended_at", "entries", "hot", "inbox", "new", "notes", "reason", "rid")

    def __init__(self, rid: int, new: NewRun, hot: Hot) -> None:
        self.rid = rid
        self.new = new
        self.hot: Hot | None = hot
        self.end: EndStatus | None = None
        self.ended_at: int | None = None
        self.reason: str | None = None
        self.entries: list[Entry] = []
        self.notes: list[tuple[int, Note]] = []
        self.inbox: dict[int, Fact] = {}
        self.blobs: set[bytes] = set()

    def hot_row(self, hot: Hot) -> HotRow:
        """What a store tells of an open run."""
        new = self.new
        return HotRow(
            self.rid, new.id, new.function, new.door, new.queue, hot.status, hot.reason, hot.owner, hot.epoch,
            hot.wake_at, hot.waiting_for, hot.inbox, hot.ttl,
        )  # fmt: skip

    def run_row(self) -> RunRow:
        """The run as the catalogue shows it."""
        new, hot = self.new, self.hot
        row = RunRow(
            self.rid, new.id, new.function, new.door, self.end or "failed", self.reason, new.created_at, self.ended_at,
            new.queue, new.tags, new.target, new.parent, new.deadline, new.input_hash,
        )  # fmt: skip
        if hot is None:
            return row
        return replace(
            row, status=hot.status, reason=hot.reason, owner=hot.owner, epoch=hot.epoch, wake_at=hot.wake_at,
            waiting_for=hot.waiting_for, inbox=hot.inbox,
        )  # fmt: skip


class Data:
    """What all views share."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.latest = 0
        self.changed = threading.Condition(threading.Lock())
        self.version = 0
        """Grows whenever a waiting process may find something to do."""
        self.number = 0
        """The newest number given to a run, note or fact."""
        self.runs: dict[int, Run] = {}
        self.ids: dict[str, Run] = {}
        self.open: dict[int, Run] = {}
        self.blobs: dict[bytes, tuple[tuple[bytes, ...], int]] = {}
        self.rows: dict[tuple[str, str], dict[str, bytes]] = {}
        self.workers: dict[str, tuple[WorkerInfo, int]] = {}
        self.left: set[str] = set()
        """Workers that left although runs were still theirs: dead, not silent."""

    def now(self) -> int:
        """The store's time, held still where the clock steps back."""
        self.latest = max(self.latest, self.clock.now())
        return self.latest

    def next_number(self) -> int:
        """A number that no run, note or fact has."""
        self.number += 1
        return self.number

    def wake(self) -> None:
        """Tell all who wait that there may be something to do."""
        self.version += 1
        self.changed.notify_all()


def batch_write(data: Data, batch: Batch) -> JournalError | None:
    """Check the batch whole, then write it whole."""
    lease, change = batch.lease, batch.change
    if len(batch.data) > MAX_ROW_BYTES:
        size = f"{len(batch.data)} bytes, more than {MAX_ROW_BYTES}"
        return JournalError(f"records of run {lease.run_id} are too large ({size}): return less, or a reference to it")
    if isinstance(change, Start):
        if change.run.id in data.ids:
            return RunExists(f"run {change.run.id} is on record already: choose another id")
        run = _run_start(data, lease, change.run)
        hot = run.hot
    else:
        there = None if lease.rid is None else data.runs.get(lease.rid)
        hot = None if there is None else there.hot
        if there is None or hot is None or (hot.epoch, hot.owner) != (lease.epoch, lease.worker):
            return Fenced(
                f"run {lease.run_id} is not held by life {lease.epoch} of {lease.worker}: nothing was written"
            )
        run = there
        if batch.records and batch.seq != len(run.entries) + 1:
            last = len(run.entries)
            return Fenced(f"row {batch.seq} of run {lease.run_id} cannot follow row {last}: nothing was written")
        if isinstance(change, Park | Unpark) and change.inbox_seen not in (None, hot.inbox):
            return InboxChanged(f"the inbox of run {lease.run_id} holds something new: read it and decide again")
    if batch.records:
        run.entries.append(Entry(batch.seq, lease.epoch, batch.data))
    if not batch.plain:
        _extras_write(data, run, batch)
    return None


def _run_start(data: Data, lease: Lease, new: NewRun) -> Run:
    hot = Hot("running" if new.held else "pending", lease.worker if new.held else None, lease.epoch, new.ttl)
    run = Run(data.next_number(), new, hot)
    data.runs[run.rid] = data.open[run.rid] = data.ids[new.id] = run
    lease.rid = run.rid
    if not new.held:
        data.wake()
    return run


def _extras_write(data: Data, run: Run, batch: Batch) -> None:
    run.notes += [(data.next_number(), note) for note in batch.notes]
    for n in batch.inbox_taken:
        run.inbox.pop(n, None)
    run.blobs.update(batch.blobs)
    for row in batch.rows:
        _row_write(data, row)
    if run.hot is not None:
        _hot_change(data, run, run.hot, batch)
    for fact in batch.facts:
        fact_put(data, fact)


def fact_put(data: Data, fact: Outgoing) -> bool:
    """Put a fact into an open run's inbox and wake it; False if it is not open."""
    run = data.ids.get(fact.run_id)
    if run is None or run.hot is None:
        return False
    n = data.next_number()
    run.inbox[n] = Fact(n, fact.kind, fact.at, fact.data)
    run.hot.inbox += 1
    if run.hot.status != "blocked":
        run.hot.wake_at = data.now()
    data.wake()
    return True


def claim_take(data: Data, claim: Claim) -> None:
    """The claim's row changes hands.

    Raises:
        ClaimLost: it is not as the caller read it.
    """
    rows = data.rows.setdefault((claim.door, claim.kind), {})
    if rows.get(claim.key) != claim.before:
        raise ClaimLost(f"row {claim.key} has changed: read it again")
    rows[claim.key] = claim.after


def _row_write(data: Data, row: DoorRow) -> None:
    rows = data.rows.setdefault((row.door, row.kind), {})
    if row.data is None:
        rows.pop(row.key, None)
    else:
        rows[row.key] = row.data


def _hot_change(data: Data, run: Run, hot: Hot, batch: Batch) -> None:
    match batch.change:
        case Park(wake_at=wake_at, waiting_for=waiting_for, release=release):
            hot.status, hot.wake_at, hot.waiting_for, hot.reason = "waiting", wake_at, waiting_for, None
            if release:
                hot.owner = None
                data.wake()
        case Unpark(status=status):
            hot.status, hot.wake_at, hot.waiting_for, hot.reason = status, None, None, None
        case Release(status=status, reason=reason, wake_at=wake_at):
            hot.status, hot.wake_at, hot.waiting_for, hot.reason, hot.owner = status, wake_at, None, reason, None
            data.wake()
        case End(status=end, reason=reason):
            run.hot, run.end, run.reason, run.ended_at = None, end, reason, data.now()
            del data.open[run.rid]
            data.wake()
        case _:
            pass


def life_begin(run: Run, inbox: int, worker: str, taken: Taken) -> Lease:
    """The run's next life: a hot row, and a row of the journal that says so."""
    run.hot = Hot(taken.status, worker, taken.epoch, taken.ttl, inbox)
    seq = len(run.entries) + 1
    run.entries.append(Entry(seq, taken.epoch, encode_records(list(taken.records))))
    return Lease(run.new.id, worker, rid=run.rid, epoch=taken.epoch, seq=seq, inbox=inbox)


def open_runs(data: Data, queues: Sequence[str] | None, functions: Sequence[str] | None) -> Iterator[tuple[Run, Hot]]:
    """Open runs of these queues and functions (None: of all)."""
    for run in data.open.values():
        if (
            run.hot is not None
            and (queues is None or run.new.queue in queues)
            and (functions is None or run.new.function in functions)
        ):
            yield run, run.hot


def is_due(hot: Hot, now: int, silent: Mapping[str, float]) -> bool:
    """Somebody should take the run: see `Store.hot_due`."""
    if hot.status == "blocked":
        return False
    if hot.owner is not None:
        return silent.get(hot.owner, 0.0) >= hot.ttl
    if hot.wake_at is None:
        return hot.status != "waiting"
    return hot.wake_at <= now


def matches(row: RunRow, where: RunFilter) -> bool:
    """All that the filter names holds of the row."""
    return (
        (not where.statuses or row.status in where.statuses)
        and where.function in (None, row.function)
        and where.door in (None, row.door)
        and where.queue in (None, row.queue)
        and (where.tag is None or where.tag in row.tags)
        and where.parent in (None, row.parent)
        and (where.id_prefix is None or row.id.startswith(where.id_prefix))
        and (where.created_from is None or row.created_at >= where.created_from)
        and (where.created_to is None or row.created_at < where.created_to)
        and (where.ended_before is None or (row.ended_at is not None and row.ended_at < where.ended_before))
        and (where.text is None or _holds(row, where.text.lower()))
    )


def gc_choose(data: Data, ended: RunFilter) -> list[Run]:
    """Ended runs that match and have no parent on record, each followed by its children, if all of them have ended."""
    children: dict[str, list[Run]] = {}
    for run in data.runs.values():
        if run.new.parent is not None and run.new.parent in data.ids:
            children.setdefault(run.new.parent, []).append(run)
    doomed: list[Run] = []
    for root in data.runs.values():
        if root.new.parent in data.ids or not matches(root.run_row(), ended):
            continue
        family = [root]
        for run in family:
            family += children.get(run.new.id, ())
        if all(run.hot is None for run in family):
            doomed += family
    return doomed


def gc_detach(data: Data, run: Run) -> bool:
    """Take the run out of the catalogue first, so that nobody can open again what is half away."""
    if run.hot is not None or data.runs.pop(run.rid, None) is None:
        return False
    data.ids.pop(run.new.id, None)
    prefix = f"{run.new.id}/"
    for (door, _), rows in data.rows.items():
        if door == RUN_DOOR:
            for key in [key for key in rows if key.startswith(prefix)]:
                del rows[key]
    return True


def _holds(row: RunRow, text: str) -> bool:
    return any(text in place.lower() for place in (row.id, row.function, row.reason or ""))
