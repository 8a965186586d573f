"""What the checks of the store conformance suite are written with: processes, leases and batches on one database."""

from __future__ import annotations

import inspect
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from stepwell.core import LifeStarted, Recorded, RunStarted, encode_records
from stepwell.journal._api import Batch, Lease, NewRun, Park, RunFilter, Start, Taken, WorkerInfo
from stepwell.testing._clock import START, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from stepwell.core import AnyRecord
    from stepwell.errors import JournalError
    from stepwell.journal._api import Clock, DoorRow, HotChange, HotRow, Note, OpenStatus, Outgoing, RunRow, Store

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
"""Microseconds."""


class NotConforming(AssertionError):
    """A store breaks a promise: the rule, and what was seen."""


class StoreRig:
    """A fresh database, and what one check does to it.

    ``open_store(clock)`` opens the *same* database each time; every store that it returns stands for another process
    and is closed after the check.
    """

    def __init__(self, open_store: Callable[[Clock], Store]) -> None:
        self._open_store = open_store
        self._stores: list[Store] = []
        self._first: Store | None = None
        self._rule = ""
        self.clock = VirtualClock()
        """The clock of the first process."""

    def run(self, name: str) -> None:
        """Run the check with this name and close what it opened.

        Raises:
            NotConforming: the store breaks the rule.
        """
        check = getattr(self, name)
        self._rule = f"{name}: {inspect.getdoc(check) or ''}"
        try:
            check()
        finally:
            for store in self._stores:
                store.close()

    # -- processes

    @property
    def store(self) -> Store:
        """The first process's store."""
        if self._first is None:
            self._first = self.open(self.clock)
        return self._first

    def open(self, clock: Clock | None = None) -> Store:
        """One more process on the same database, with a clock of its own unless one is given."""
        store = self._open_store(clock or VirtualClock())
        self._stores.append(store)
        return store

    def worker(self, name: str, **place: Any) -> WorkerInfo:
        """A worker on a host of its own, so that nobody can look for its process."""
        where: dict[str, Any] = {
            "host": f"host-of-{name}",
            "boot": f"boot-of-{name}",
            "pidns": "1",
            "pid": 1,
            "start": "1",
        }
        return WorkerInfo(name, **(where | place))

    # -- what is expected

    def expect(self, holds: bool, what: str) -> None:
        """Fail with ``what`` unless it holds."""
        if not holds:
            raise NotConforming(f"{self._rule}\n  seen: {what}")

    def equal(self, found: object, wanted: object, what: str) -> None:
        """Fail unless both are equal."""
        self.expect(found == wanted, f"{what}: {found!r}, expected {wanted!r}")

    def kinds(self, results: Iterable[JournalError | None], wanted: Sequence[type | None], what: str) -> None:
        """Fail unless each result is an instance of the class at its place (None: no error)."""
        found = list(results)
        fits = len(found) == len(wanted) and all(
            result is None if kind is None else isinstance(result, kind)
            for result, kind in zip(found, wanted, strict=True)
        )
        names = [kind and kind.__name__ for kind in wanted]
        self.expect(fits, f"{what}: {found!r}, expected {names}")

    # -- runs

    def record(self, text: str = "x") -> Recorded:
        """Some record."""
        return Recorded(START, f"key-{text}", "now", f'"{text}"')

    def new_run(self, run_id: str, **columns: Any) -> NewRun:
        """The columns of a run."""
        given: dict[str, Any] = {"function": "app:handler", "door": "durable", "input_hash": b"h" * 16}
        given |= {"created_at": START} | columns
        return NewRun(run_id, **given)

    def start_batch(self, run_id: str, worker: str = "w1", **columns: Any) -> Batch:
        """A batch that starts the run; its lease is ``.lease``."""
        lease = Lease(run_id, worker)
        records: list[AnyRecord] = [RunStarted(START, "app:handler", "{}")]
        if columns.get("held", True):
            records.append(LifeStarted(START, 1, worker, "start"))
        return self.batch(lease, *records, change=Start(self.new_run(run_id, **columns)))

    def start(self, run_id: str, worker: str = "w1", *, store: Store | None = None, **columns: Any) -> Lease:
        """A run on record, held by ``worker`` unless ``held=False``."""
        batch = self.start_batch(run_id, worker, **columns)
        self.commit(batch, store=store)
        return batch.lease

    def batch(
        self,
        lease: Lease,
        *records: AnyRecord,
        change: HotChange | None = None,
        seq: int | None = None,
        notes: Sequence[Note] = (),
        inbox_taken: Sequence[int] = (),
        blobs: Sequence[bytes] = (),
        rows: Sequence[DoorRow] = (),
        facts: Sequence[Outgoing] = (),
    ) -> Batch:
        """A batch as the writer makes it: numbered after the lease's last row, encoded."""
        batch = Batch(lease, records, change, notes=notes, inbox_taken=inbox_taken, blobs=blobs, rows=rows, facts=facts)
        if records:
            batch.seq = lease.seq + 1 if seq is None else seq
            batch.data = encode_records(list(records))
        return batch

    def submit(self, *batches: Batch, store: Store | None = None) -> list[JournalError | None]:
        """Commit as one group; leases move on as the writer moves them."""
        results = (store or self.store).batch_commit(batches)
        self.equal(len(results), len(batches), "number of results")
        for batch, result in zip(batches, results, strict=True):
            if result is None and batch.records:
                batch.lease.seq = batch.seq
        return results

    def commit(self, *batches: Batch, store: Store | None = None) -> None:
        """Commit as one group; all must be accepted."""
        self.kinds(self.submit(*batches, store=store), [None] * len(batches), "results of batches that are in order")

    def refused(self, kind: type[JournalError], batch: Batch, store: Store | None = None) -> None:
        """Commit the batch alone; it must be refused with this class, and nothing of its run may change by it."""
        before = self.seen(batch.lease.run_id)
        self.kinds(self.submit(batch, store=store), [kind], "result")
        self.equal(self.seen(batch.lease.run_id), before, "what is on record after the refusal")

    def append(self, lease: Lease, *texts: str, store: Store | None = None) -> None:
        """One row for each text."""
        for text in texts or ("x",):
            self.commit(self.batch(lease, self.record(text)), store=store)

    def park(self, lease: Lease, wake_at: int | None, *, release: bool = True) -> None:
        """The run waits."""
        hot = self.hot(lease.run_id)
        self.commit(self.batch(lease, self.record("parked"), change=Park(wake_at, "timer", hot.inbox, release)))

    def taken(self, hot: HotRow, worker: str, *, status: OpenStatus = "running", ttl: float = 30.0) -> Taken:
        """What a claim of this hot row writes."""
        return self.taken_as(hot.epoch + 1, worker, status=status, ttl=ttl)

    def taken_as(self, epoch: int, worker: str, *, status: OpenStatus = "running", ttl: float = 30.0) -> Taken:
        """What the life with this epoch begins with."""
        return Taken(epoch, (LifeStarted(START, epoch, worker, "due"),), status, ttl)

    def claim(self, run_id: str, worker: str, *, store: Store | None = None, ttl: float = 30.0) -> Lease:
        """The run, taken by ``worker`` from whoever has it."""
        hot = self.hot(run_id)
        lease = (store or self.store).run_claim(hot, worker, self.taken(hot, worker, ttl=ttl))
        self.expect(lease is not None, f"nobody else wants {run_id}, yet the claim got nothing")
        assert lease is not None
        return lease

    def hot(self, run_id: str, store: Store | None = None) -> HotRow:
        """The hot row of a run that is open."""
        hot = (store or self.store).hot_get(run_id)
        self.expect(hot is not None, f"run {run_id} has no hot row")
        assert hot is not None
        return hot

    def row(self, run_id: str) -> RunRow:
        """The catalogue's row of a run that is on record."""
        row = self.store.run_get(run_id)
        self.expect(row is not None, f"run {run_id} is not in the catalogue")
        assert row is not None
        return row

    def rid(self, lease: Lease) -> int:
        """The rid of a run that was started."""
        self.expect(lease.rid is not None, f"the start of {lease.run_id} set no lease.rid")
        assert lease.rid is not None
        return lease.rid

    def due(
        self,
        now: int,
        *,
        store: Store | None = None,
        queues: Sequence[str] | None = None,
        functions: Sequence[str] | None = None,
        silent: Mapping[str, float] | None = None,
        limit: int = 100,
    ) -> list[str]:
        """Ids of the runs that `Store.hot_due` gives."""
        rows = (store or self.store).hot_due(
            now=now, queues=queues, functions=functions, silent=silent or {}, limit=limit
        )
        return [row.run_id for row in rows]

    def ids(self, where: RunFilter, *, limit: int = 100, before: int | None = None) -> list[str]:
        """Ids of the runs that `Store.run_list` gives."""
        return [row.id for row in self.store.run_list(where, limit=limit, before=before)]

    def texts(self, rid: int | None, *, after: int = 0, limit: int | None = None) -> list[tuple[int, int, bytes]]:
        """The run's rows, as (seq, epoch, data)."""
        assert rid is not None
        return [(e.seq, e.epoch, e.data) for e in self.store.record_load(rid, after=after, limit=limit)]

    def blob(self, text: str, *, old: bool = True) -> bytes:
        """A blob on record, untouched for two days if ``old``."""
        digest = blake2b(text.encode(), digest_size=32).digest()
        self.store.blob_put(digest, iter([text.encode()]))
        if old:
            self.blobs_age()
        return digest

    def blobs_age(self) -> None:
        """All blobs were last touched two days ago: by the clock, or in an SQL database by its table."""
        if self.store.kind == "memory":
            self.clock.advance(2 * DAY / 1_000_000)
            return
        lease = self.start(f"ager-{self.store.run_count(RunFilter())}", door="ager")
        transaction = self.store.transaction()
        table = "stepwell.blob" if self.store.kind == "postgres" else "blob"
        transaction.connection.execute(f"UPDATE {table} SET touched_at = touched_at - {2 * DAY}")
        self.equal(transaction.commit(self.batch(lease, self.record())), None, "result of the transaction")

    def seen(self, run_id: str) -> dict[str, object]:
        """All that the store tells of a run, for comparing before and after."""
        row = self.store.run_get(run_id)
        rid = -1 if row is None else row.rid
        return {
            "run": row,
            "hot": self.store.hot_get(run_id),
            "records": self.store.record_load(rid),
            "notes": self.store.note_load(rid, kind=None, key=None, after=0, limit=1000),
            "inbox": self.store.inbox_load(rid),
        }
