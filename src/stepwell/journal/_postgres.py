"""The PostgreSQL store: any number of worker processes on any number of hosts.

Connections of a process: one that writes, one for the beats of its workers (a long commit must not make all its leases
lapse), one that listens, opened by the first `wait`, a few that read, and one for each transactional step that runs.
What each of them says lies in ``sql/postgres/``; how it is said, in the modules beside this one:

``_postgres_address`` URL and messages · ``_postgres_link`` a connection that comes back · ``_postgres_wire``
statements and parameters · ``_postgres_schema`` tables · ``_postgres_write``, ``_batch``, ``_doubt`` batches ·
``_postgres_claim`` claims and facts · ``_postgres_worker`` beats · ``_postgres_wait`` waking · ``_postgres_read``
reading · ``_postgres_keep`` blobs and retention · ``_postgres_transaction``, ``_guard``, ``_probe`` lent transactions.
"""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING, Any, Literal

from stepwell.errors import JournalError, MissingExtra
from stepwell.journal._api import SystemClock

try:
    import psycopg  # noqa: F401 - asked for here, so that what is missing is said once and clearly
except ImportError as missing:
    raise MissingExtra("postgres", "a store at postgresql://") from missing

from stepwell.journal._postgres_address import Address
from stepwell.journal._postgres_batch import wakes
from stepwell.journal._postgres_check import facts_of, problems
from stepwell.journal._postgres_claim import Claimer
from stepwell.journal._postgres_keep import BlobWriter, Collector
from stepwell.journal._postgres_link import Link, Mode
from stepwell.journal._postgres_read import Reader, ReadPool
from stepwell.journal._postgres_schema import Sql, schema_open
from stepwell.journal._postgres_time import StoreTime
from stepwell.journal._postgres_transaction import TransactionPool
from stepwell.journal._postgres_wait import PostgresTeller, Waiter
from stepwell.journal._postgres_worker import Workers
from stepwell.journal._postgres_write import BatchWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stepwell.journal._api import (
        Batch,
        Claim,
        Clock,
        Entry,
        Fact,
        GcResult,
        HotRow,
        Lease,
        Note,
        RunFilter,
        RunRow,
        StoreTransaction,
        Taken,
        WorkerInfo,
    )

_after_fork: list[Any] = []
"""What a forked child must neither use nor close: kept, so that nothing in it is collected."""


class PostgresStore:
    """One database. See `stepwell.journal._api.Store`."""

    kind: Literal["memory", "sqlite", "postgres"] = "postgres"
    transaction_excludes_writer = False

    def __init__(self, url: str, clock: Clock | None = None, *, read_only: bool = False) -> None:
        """Connect; make the tables if there are none. ``read_only``: nothing is made, migrated or written.

        Raises:
            NoStoreYet: there are none, and ``read_only`` makes none.
            UsageError: the URL has no sense.
            JournalError: the server cannot be reached, knows neither user nor database, or refuses to make the tables.
            SchemaTooOld, SchemaTooNew: another version of Stepwell made them.
        """
        self._address = Address(url)
        self.url = self._address.url
        clock = clock or SystemClock()
        self._times = StoreTime(clock)
        self._mode = Mode(read_only=read_only)
        self._sql = Sql(self._address)
        self._pid = os.getpid()
        self._closed = False
        token = uuid.uuid4().hex[:12]
        self._link = Link(self._address, self._times, self._mode, "write")
        try:
            self._schema = schema_open(self._link, self._sql)
        except BaseException:
            self._link.close()
            raise
        self._beats = Link(self._address, self._times, self._mode, "beat")
        self._pool = ReadPool(self._address, self._mode)
        self._transactions = TransactionPool(self._address, self._link, self._sql, self._times)
        self._waiter = Waiter(self._address, token, pooled=self._mode.pooled, send=self._notify)
        self._teller = PostgresTeller(self._address.channel, token, lambda: self._notify(token))
        self._writer = BatchWriter(self._link, self._sql, self._times, self._teller)
        self._claimer = Claimer(self._link, self._sql, self._times, self._teller)
        self._workers = Workers(self._beats, self._sql, self._times, clock)
        self._reader = Reader(self._pool, self._sql)
        _after_fork.append(self)

    def _notify(self, token: str) -> None:
        values = {"channel": self._address.channel, "token": token}
        self._pool.query(self._sql.text("batch_notify"), values, prepare=False)

    def _alive(self) -> None:
        if self._pid != os.getpid():
            raise JournalError(
                f"PostgreSQL at {self._address.place} was opened before this process was forked: open it again"
            )
        if self._closed:
            raise JournalError(f"the store at {self._address.place} is closed: open it again to go on")

    def now(self) -> int:
        """The server's time, carried on by this process's monotonic clock."""
        return self._times.now()

    def close(self) -> None:
        """Close all connections. Idempotent; in a forked child it does nothing."""
        if self._pid != os.getpid() or self._closed:
            return
        self._teller.close()
        self._closed = True
        self._waiter.close()
        self._transactions.close()
        self._pool.close()
        self._beats.close()
        self._link.close()
        _after_fork.remove(self)

    # -- writing

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write all batches; see `Store.batch_commit`."""
        results = self._writer.commit(batches)
        for batch in batches:
            if (batch.change is not None or batch.facts) and wakes(batch, self._times.now()):
                self._waiter.poke()
                break
        return results

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run if its hot row is still as it was seen."""
        lease = self._claimer.claim(hot, worker, taken)
        if lease is not None:
            self._waiter.busy()
        return lease

    def run_reopen(self, rid: int, worker: str, taken: Taken) -> Lease | None:
        """Open an ended run again. Facts that nobody took before its end still wait in its inbox."""
        return self._claimer.reopen(rid, worker, taken)

    def fact_deliver(self, run_id: str, kind: str, at: int, data: bytes, claim: Claim | None = None) -> bool:
        """Put a fact into the run's inbox and wake it, if ``claim`` holds."""
        if not self._claimer.deliver(run_id, kind, at, data, claim):
            return False
        self._waiter.poke()
        return True

    def blob_put(self, digest: bytes, chunks: Iterator[bytes]) -> None:
        """Store a blob, or touch the one that is there."""
        BlobWriter(self._link, self._sql).put(digest, chunks)

    def gc(self, ended: RunFilter, *, dry_run: bool, max_rows: int = 5000) -> Iterator[GcResult]:
        """Take away ended runs, then blobs that nobody refers to."""
        collector = Collector(self._link, self._pool, self._sql)
        return collector.count(ended) if dry_run else collector.collect(ended, max_rows)

    def transaction(self) -> StoreTransaction:
        """Begin a transaction for a step's body, on a connection of its own."""
        self._alive()
        return self._transactions.begin()

    # -- leases of workers

    def worker_register(self, info: WorkerInfo) -> None:
        """The worker lives, in this process."""
        self._workers.register(info)

    def worker_beat(self, worker: str) -> None:
        """One more sign of life, on a connection of its own."""
        self._workers.beat(worker)

    def worker_leave(self, worker: str) -> None:
        """The worker is no more; what it still holds is anybody's."""
        self._workers.leave(worker)

    def worker_list(self) -> list[WorkerInfo]:
        """All workers that registered and did not leave."""
        return self._workers.listed()

    def worker_silence(self) -> Mapping[str, float]:
        """Seconds of silence of each worker that is not of this process."""
        return self._workers.silence()

    # -- reading

    def hot_get(self, run_id: str) -> HotRow | None:
        """The hot row, or None if the run is not open."""
        return self._reader.hot_get(run_id)

    def hot_due(
        self, *, now: int, queues: Sequence[str] | None, functions: Sequence[str] | None,
        silent: Mapping[str, float], limit: int,
    ) -> list[HotRow]:  # fmt: skip
        """Open runs that somebody should take, the longest due first."""
        due = self._reader.hot_due(now=now, queues=queues, functions=functions, silent=silent, limit=limit)
        if due:
            self._waiter.busy()
        return due

    def hot_held(self, worker: str) -> list[tuple[int, int, int]]:
        """``(rid, epoch, inbox)`` of every run the worker holds."""
        return self._reader.hot_held(worker)

    def hot_next_wake(self, *, queues: Sequence[str] | None, functions: Sequence[str] | None) -> int | None:
        """The earliest ``wake_at`` of a run with no owner."""
        return self._reader.hot_next_wake(queues=queues, functions=functions)

    def inbox_load(self, rid: int) -> list[Fact]:
        """What waits, in order of arrival."""
        return self._reader.inbox_load(rid)

    def record_load(self, rid: int, *, after: int = 0, limit: int | None = None) -> list[Entry]:
        """Rows of the run's journal in order of seq."""
        return self._reader.record_load(rid, after, limit)

    def note_load(
        self, rid: int, *, kind: str | None, key: str | None, after: int, limit: int
    ) -> list[tuple[int, Note]]:
        """Notes in order of their number."""
        return self._reader.note_load(rid, kind=kind, key=key, after=after, limit=limit)

    def blob_get(self, digest: bytes) -> bytes | None:
        """The blob, or None."""
        return self._reader.blob_get(digest)

    def row_get(self, door: str, kind: str, key: str) -> bytes | None:
        """A door's own row."""
        return self._reader.row_get(door, kind, key)

    def row_list(self, door: str, kind: str, prefix: str = "") -> list[tuple[str, bytes]]:
        """A door's own rows whose key begins with ``prefix``, in order of key (by code point)."""
        return self._reader.row_list(door, kind, prefix)

    def run_get(self, run_id: str) -> RunRow | None:
        """The catalogue's row."""
        return self._reader.run_get(run_id)

    def run_list(self, where: RunFilter, *, limit: int, before: int | None = None) -> list[RunRow]:
        """Newest first."""
        return self._reader.run_list(where, limit, before)

    def run_count(self, where: RunFilter) -> int:
        """How many."""
        return self._reader.run_count(where)

    # -- the whole

    def wait(self, timeout: float) -> None:
        """Return when something may have changed, or after ``timeout`` seconds."""
        self._alive()
        self._waiter.wait(timeout)

    def poke(self) -> None:
        """Make every `wait` of this process return. Harmless after `close`: a life may end behind its store."""
        if not self._closed:
            self._alive()
            self._waiter.poke()

    def check(self) -> Iterator[str]:
        """Problems of the database itself, one line each."""
        self._alive()
        return problems(self._pool, self._sql, self._address.place)

    def facts(self) -> Mapping[str, str]:
        """Schema, server, mode of waking, settings, sizes."""
        self._alive()
        found = facts_of(self._pool, self._sql, self._address)
        found["schema version"] = str(self._schema)
        found["waking"] = self._waiter.mode
        found["prepared statements"] = "yes" if self._mode.prepared else "no: behind a pooler in transaction mode"
        return found
