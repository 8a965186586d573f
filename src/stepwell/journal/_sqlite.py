"""The SQLite store: one file, WAL, one writer per process, a fair lock between processes (ENGINE.md §6)."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Literal

from stepwell.core import encode_records
from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import (
    Batch,
    End,
    InboxChanged,
    Lease,
    Park,
    Release,
    RunExists,
    Start,
    SystemClock,
    Unpark,
)
from stepwell.journal._sql import queries
from stepwell.journal._sqlite_file import SqliteFile, StoreWarning, trouble
from stepwell.journal._sqlite_keep import Keeping
from stepwell.journal._sqlite_read import Reading
from stepwell.journal._sqlite_transaction import SqliteTransaction
from stepwell.journal._sqlite_worker import Workers

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from stepwell.journal._api import Clock, HotRow, NewRun, StoreTransaction, Taken

MAX_ROW_BYTES = 64 * 1024 * 1024


class SqliteStore(Reading, Workers, Keeping):
    """See the module. Open it with `open_sqlite`."""

    transaction_excludes_writer = True

    def __init__(
        self, path: str | Path, clock: Clock | None = None, *, url: str | None = None, read_only: bool = False
    ) -> None:
        self.path = str(path)
        self.url = url or f"sqlite:///{self.path}"
        self.clock = clock or SystemClock()
        self.sql = queries("sqlite")
        self._latest = 0
        self._changed = threading.Condition()
        self._version = 0
        self.file = SqliteFile(self.path, read_only=read_only)
        self._start_reading()
        self._start_workers()

    @property
    def kind(self) -> Literal["sqlite"]:
        """Which of the stores."""
        return "sqlite"

    def now(self) -> int:
        """The host's clock, held still where it steps back."""
        now = self.clock.now()
        self._latest = max(self._latest, now)
        return self._latest

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self._stop_workers()
        self.file.close()

    # -- writing

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write all batches in one transaction; a refused one fails alone."""
        self.file.check_alive()
        try:
            with self.file.lock:
                return self._commit(batches)
        except OSError as error:
            raise trouble(self.path, error) from error

    def _commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        for again in (False, True):
            try:
                results = self._attempt(batches)
            except sqlite3.Error as error:
                # Whether a commit that met an error is durable is not known: the same batches are submitted again on
                # a new connection, and rows that are there with our epoch and content are ours (ENGINE.md §3).
                self.file.recover()
                if again or not _in_doubt(error):
                    raise trouble(self.path, error) from error
                self.file.reopen()
            except BaseException as error:
                # A value that cannot be bound, an interrupt: nothing of the group may stay in an open transaction, or
                # the next row would be written into it and be lost with it.
                self.file.recover()
                if isinstance(error, Exception):
                    raise trouble(self.path, error) from error
                raise
            else:
                if any(batch.change is not None for batch in batches):
                    self.poke()
                return [
                    self._ours(batch, result) if again else result
                    for batch, result in zip(batches, results, strict=True)
                ]
        raise AssertionError

    def _attempt(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        write = self.file.write
        if len(batches) == 1 and batches[0].plain and batches[0].records:
            return [self._insert(write, batches[0])]
        refused: set[int] = set()
        results: list[JournalError | None] = []
        write.execute("begin immediate")
        for batch in batches:
            if id(batch.lease) in refused:
                results.append(_fenced(batch))
                continue
            result = self._insert(write, batch) if batch.plain and batch.records else self._apart(write, batch)
            if result is not None:
                refused.add(id(batch.lease))
            results.append(result)
        write.execute("commit")
        return results

    def _insert(self, write: sqlite3.Connection, batch: Batch) -> JournalError | None:
        if len(batch.data) > MAX_ROW_BYTES:
            return _too_large(batch)
        lease = batch.lease
        values = {
            "rid": lease.rid, "seq": batch.seq, "epoch": lease.epoch, "owner": lease.worker, "data": batch.data,
        }  # fmt: skip
        try:
            done = write.execute(self.sql["batch_insert"], values).rowcount
        except sqlite3.IntegrityError:
            done = 0
        return None if done == 1 else _fenced(batch)

    def _apart(self, write: sqlite3.Connection, batch: Batch) -> JournalError | None:
        """A batch that does more than insert its row: in a savepoint, so that it fails alone."""
        write.execute("savepoint batch")
        result = self._write_all(write, batch)
        if result is not None:
            write.execute("rollback to batch")
            if isinstance(batch.change, Start):
                batch.lease.rid = None
        write.execute("release batch")
        return result

    def _write_all(self, write: sqlite3.Connection, batch: Batch) -> JournalError | None:
        lease, change = batch.lease, batch.change
        if len(batch.data) > MAX_ROW_BYTES:
            return _too_large(batch)
        if isinstance(change, Start):
            try:
                lease.rid = self._start(write, lease, change.run)
            except sqlite3.IntegrityError:
                return RunExists(f"run {change.run.id} is on record already: choose another id")
        hot = write.execute("select epoch, owner, inbox from hot where rid = ?", (lease.rid,)).fetchone()
        holder = None if isinstance(change, Start) and not change.run.held else lease.worker
        if hot is None or hot[0] != lease.epoch or hot[1] != holder:
            return _fenced(batch)
        if isinstance(change, Park) and change.inbox_seen != hot[2]:
            return InboxChanged(f"the inbox of run {lease.run_id} holds something new: read it and decide again")
        if batch.records:
            values = {"rid": lease.rid, "seq": batch.seq, "epoch": lease.epoch, "owner": holder, "data": batch.data}
            try:
                if write.execute(self.sql["batch_insert"], values).rowcount != 1:
                    return _fenced(batch)
            except sqlite3.IntegrityError:
                return _fenced(batch)
        self._extras(write, batch)
        self._change(write, batch)
        return None

    def _start(self, write: sqlite3.Connection, lease: Lease, new: NewRun) -> int:
        values = {
            "id": new.id, "function": new.function, "door": new.door, "created_at": new.created_at,
            "queue": new.queue, "tags": f",{','.join(new.tags)}," if new.tags else "", "target": new.target,
            "parent": new.parent, "deadline": new.deadline, "input_hash": new.input_hash,
        }  # fmt: skip
        rid = write.execute(self.sql["run_insert"], values).lastrowid
        owner, status = (lease.worker, "running") if new.held else (None, "pending")
        self._hot_insert(write, (rid, new.queue, new.function, status, owner, lease.epoch, new.ttl, 0))
        return int(rid or 0)

    def _hot_insert(self, write: sqlite3.Connection, values: tuple[Any, ...]) -> None:
        names = ("rid", "queue", "function", "status", "owner", "epoch", "ttl", "inbox")
        write.execute(self.sql["hot_insert"], dict(zip(names, values, strict=True)))

    def _extras(self, write: sqlite3.Connection, batch: Batch) -> None:
        rid = batch.lease.rid
        for note in batch.notes:
            sql = "insert into note (rid, key, kind, at, data) values (?, ?, ?, ?, ?)"
            write.execute(sql, (rid, note.key, note.kind, note.at, note.data.encode("utf-8", "surrogatepass")))
        for n in batch.inbox_taken:
            write.execute("delete from inbox where n = ? and rid = ?", (n, rid))
        for digest in batch.blobs:
            write.execute("insert or ignore into blob_ref values (?, ?)", (rid, digest))
        for row in batch.rows:
            place = (row.door, row.kind, row.key)
            if row.data is None:
                write.execute("delete from door_row where door = ? and kind = ? and key = ?", place)
            else:
                write.execute("insert or replace into door_row values (?, ?, ?, ?)", (*place, row.data))

    def _change(self, write: sqlite3.Connection, batch: Batch) -> None:
        lease, values = batch.lease, dict.fromkeys(("reason", "wake_at", "waiting_for", "release"))
        match batch.change:
            case Park(wake_at=wake_at, waiting_for=waiting_for, release=release):
                values |= {"status": "waiting", "wake_at": wake_at, "waiting_for": waiting_for, "release": release}
            case Unpark(status=status):
                values |= {"status": status, "release": False}
            case Release(status=status, reason=reason, wake_at=wake_at):
                values |= {"status": status, "reason": reason, "wake_at": wake_at, "release": True}
            case End(status=end, reason=reason):
                write.execute(self.sql["hot_delete"], {"rid": lease.rid})
                at = {"rid": lease.rid, "status": end, "reason": reason, "at": self.now()}
                write.execute(self.sql["run_end"], at)
                return
            case _:
                return
        write.execute(self.sql["hot_change"], values | {"rid": lease.rid, "epoch": lease.epoch})

    def _ours(self, batch: Batch, result: JournalError | None) -> JournalError | None:
        """After a commit in doubt: a conflict with our own row is success."""
        if result is None or not batch.records:
            return result
        rid = batch.lease.rid
        if rid is None and isinstance(batch.change, Start):
            row = self.run_get(batch.change.run.id)
            rid = None if row is None or row.owner != batch.lease.worker else row.rid
        if rid is None:
            return result
        there = self.file.write.execute(
            "select epoch, data from record where rid = ? and seq = ?", (rid, batch.seq)
        ).fetchone()
        if there is None or there[0] != batch.lease.epoch or there[1] != batch.data:
            return result
        batch.lease.rid = rid
        return None

    def run_claim(self, hot: HotRow, worker: str, taken: Taken) -> Lease | None:
        """Take the run if its hot row is still as seen."""
        found: list[Lease] = []

        def work(write: sqlite3.Connection) -> None:
            values = {
                "rid": hot.rid, "worker": worker, "epoch": taken.epoch, "status": taken.status, "ttl": taken.ttl,
                "seen": hot.epoch, "owner": hot.owner,
            }  # fmt: skip
            if write.execute(self.sql["hot_claim"], values).rowcount == 1:
                inbox = write.execute("select inbox from hot where rid = ?", (hot.rid,)).fetchone()[0]
                found.append(self._life_begin(write, hot.rid, hot.run_id, worker, taken, inbox))

        self.file.writing(work)
        return found[0] if found else None

    def run_reopen(self, rid: int, worker: str, taken: Taken) -> Lease | None:
        """As `run_claim`, of an ended run."""
        found: list[Lease] = []

        def work(write: sqlite3.Connection) -> None:
            row = write.execute("select id, queue, function, status from run where rid = ?", (rid,)).fetchone()
            if row is None or row[3] is None:
                return
            last = write.execute("select max(epoch) from record where rid = ?", (rid,)).fetchone()[0] or 0
            if taken.epoch <= last:
                return
            waits = write.execute("select count(*) from inbox where rid = ?", (rid,)).fetchone()[0]
            self._hot_insert(write, (rid, row[1], row[2], taken.status, worker, taken.epoch, taken.ttl, waits))
            write.execute("update run set status = null, reason = null, ended_at = null where rid = ?", (rid,))
            found.append(self._life_begin(write, rid, row[0], worker, taken, waits))

        self.file.writing(work)
        return found[0] if found else None

    def _life_begin(
        self, write: sqlite3.Connection, rid: int, run_id: str, worker: str, taken: Taken, inbox: int
    ) -> Lease:
        seq = write.execute(self.sql["record_last"], {"rid": rid}).fetchone()[0] + 1
        data = encode_records(list(taken.records))
        write.execute("insert into record values (?, ?, ?, ?)", (rid, seq, taken.epoch, data))
        return Lease(run_id, worker, rid=rid, epoch=taken.epoch, seq=seq, inbox=inbox)

    def fact_deliver(self, run_id: str, kind: str, at: int, data: bytes) -> bool:
        """Put a fact into the run's inbox and wake it."""
        told: list[bool] = []

        def work(write: sqlite3.Connection) -> None:
            sql = (
                "update hot set inbox = inbox + 1, wake_at = case when status = 'blocked' then wake_at else ? end "
                "where rid = (select rid from run where id = ?)"
            )
            if write.execute(sql, (self.now(), run_id)).rowcount == 1:
                rid = write.execute("select rid from run where id = ?", (run_id,)).fetchone()[0]
                write.execute("insert into inbox (rid, kind, at, data) values (?, ?, ?, ?)", (rid, kind, at, data))
                told.append(True)

        self.file.writing(work)
        self.poke()
        return bool(told)

    def transaction(self) -> StoreTransaction:
        """Lend the write connection to a step's body. The caller holds the writer's mutex."""
        self.file.check_alive()
        return SqliteTransaction(self)


def _in_doubt(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)


def _fenced(batch: Batch) -> Fenced:
    lease = batch.lease
    return Fenced(f"run {lease.run_id} is not held by life {lease.epoch} of {lease.worker}: nothing was written")


def _too_large(batch: Batch) -> JournalError:
    size = f"{len(batch.data)} bytes, more than {MAX_ROW_BYTES}"
    return JournalError(
        f"records of run {batch.lease.run_id} are too large ({size}): return less, or a reference to it"
    )


def open_sqlite(
    path: str, clock: Clock | None = None, *, url: str | None = None, read_only: bool = False
) -> SqliteStore:
    """Open the store at ``path``, making it and its folders if need be (not when ``read_only``).

    Raises:
        JournalError: it cannot be used; the text says why and what to do.
        SchemaTooNew, SchemaTooOld: its schema is another.
    """
    return SqliteStore(path, clock, url=url, read_only=read_only)


__all__ = ["SqliteStore", "StoreWarning", "open_sqlite"]
