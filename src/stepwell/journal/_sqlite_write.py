"""Writing batches into an SQLite store: the fast path of a step, and groups in which one may fail alone."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import msgspec

from stepwell.errors import Fenced, JournalError
from stepwell.journal._api import (
    MAX_ROW_BYTES,
    End,
    InboxChanged,
    Park,
    Release,
    RunExists,
    Start,
    Unpark,
)
from stepwell.journal._sqlite_schema import MAX_SEQ, RID_SHIFT
from stepwell.journal._sqlite_trouble import trouble

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from stepwell.journal._api import Batch, Lease, NewRun, Outgoing
    from stepwell.journal._sqlite_file import SqliteFile


class Writing:
    """The writing of batches, a part of `SqliteStore`. Called under the writer's mutex."""

    file: SqliteFile
    sql: Mapping[str, str]

    def now(self) -> int:
        """The store's time."""
        raise NotImplementedError

    def tell(self) -> None:
        """Somebody may find something to do, here or in another process."""
        raise NotImplementedError

    def _start_writing(self) -> None:
        self._append_sql = self.sql["batch_append"]

    def batch_commit(self, batches: Sequence[Batch]) -> list[JournalError | None]:
        """Write all batches in one transaction; a refused one fails alone. See `Store.batch_commit`."""
        file = self.file
        with file.hold():
            if len(batches) == 1 and batches[0].plain and batches[0].records:
                try:
                    result = self._append(file.cursor, batches[0])
                except sqlite3.Error:
                    pass  # the slow way finds out what became of it
                else:
                    file.committed()
                    return [result]
                results = file.attempts(lambda again: self._append_alone(batches[0], again=again))
            else:
                results = file.attempts(lambda again: self._group(batches, again=again))
        if any(_wakes(batch) for batch in batches):
            self.tell()
        return results

    def _append_alone(self, batch: Batch, *, again: bool) -> list[JournalError | None]:
        # Not in doubt for the first time only where it is: the fast path has failed before.
        if self._is_written(batch):
            return [None]
        return [self._append(self.file.cursor, batch)]

    def _append(self, cursor: sqlite3.Cursor, batch: Batch) -> JournalError | None:
        """A plain batch, in one statement. Alone it is a transaction of its own: a step costs no more than this."""
        lease, seq, data = batch.lease, batch.seq, batch.data
        rid = lease.rid
        if rid is None or not 1 < seq <= MAX_SEQ or len(data) > MAX_ROW_BYTES:
            return self._refusal(batch)
        k = rid << RID_SHIFT | seq
        done = cursor.execute(self._append_sql, (k, data, rid, lease.epoch, lease.worker, k - 1)).rowcount
        return None if done == 1 else _fenced(batch)

    def _refusal(self, batch: Batch) -> JournalError:
        """Why a batch cannot be written whatever the database says."""
        run_id = batch.lease.run_id
        if batch.seq > MAX_SEQ:
            hint = "let the run end and continue in a new one"
            return JournalError(f"run {run_id} has {MAX_SEQ} rows, the most that a run can have", hint=hint)
        if len(batch.data) > MAX_ROW_BYTES:
            size = f"{len(batch.data)} bytes, more than {MAX_ROW_BYTES}"
            return JournalError(f"records of run {run_id} are too large ({size}): return less, or a reference to it")
        return _fenced(batch)  # a run that is not on record, or a row before the first

    # -- groups

    def _group(self, batches: Sequence[Batch], *, again: bool) -> list[JournalError | None]:
        file = self.file
        rids = [batch.lease.rid for batch in batches]
        file.write.execute("begin immediate")
        try:
            results = self._group_write(batches, again=again)
            # A batch that is refused with nothing beside it leaves nothing to commit.
            file.write.execute("rollback" if len(batches) == 1 and results[0] is not None else "commit")
        except BaseException:
            for batch, rid in zip(batches, rids, strict=True):
                batch.lease.rid = rid  # a start that is not committed has given no number
            raise
        file.committed()
        return results

    def _group_write(self, batches: Sequence[Batch], *, again: bool) -> list[JournalError | None]:
        cursor, alone = self.file.cursor, len(batches) == 1
        # Refused is the lease, not the run: a zombie and the run's new holder may sit in one process.
        refused: set[int] = set()
        results: list[JournalError | None] = []
        result: JournalError | None
        for batch in batches:
            if again and self._is_written(batch):
                result = None
            elif id(batch.lease) in refused:
                result = _fenced(batch)
            elif batch.plain and batch.records:
                result = self._append(cursor, batch)
            else:
                result = self._apart(cursor, batch, alone=alone)
            if result is not None:
                refused.add(id(batch.lease))
            results.append(result)
        return results

    def _is_written(self, batch: Batch) -> bool:
        """After a commit in doubt: a row in this batch's place with its epoch and content is this batch."""
        lease, cursor = batch.lease, self.file.cursor
        if not batch.records:
            return self._is_done(cursor, batch)
        rid = lease.rid
        if rid is None and isinstance(batch.change, Start):
            found = cursor.execute("select rid from run where id = ?", (batch.change.run.id,)).fetchone()
            rid = None if found is None else found[0]
        if rid is None:
            return False
        row = cursor.execute(self.sql["record_get"], (rid << RID_SHIFT | batch.seq,)).fetchone()
        if row != (lease.epoch, batch.data):
            return False
        lease.rid = rid
        return True

    def _is_done(self, cursor: sqlite3.Cursor, batch: Batch) -> bool:
        """After a commit in doubt, of a batch without a row: what it told others is there, or the run as it left it.
        (The fair lock was held ever since: nobody can have changed either.) The rest may be written twice.
        """
        if any(self.fact_there(cursor, fact) for fact in batch.facts):
            return True
        lease = batch.lease
        row = cursor.execute(self.sql["run_state"], (lease.rid,)).fetchone()
        match batch.change:
            case End(status=status):
                return row is not None and row[:2] == (status, None)
            case Release(status=status):
                return row is not None and row[1:] == (lease.epoch, None, status)
            case Park(release=True):
                return row is not None and row[1:] == (lease.epoch, None, "waiting")
            case _:
                return False

    def _apart(self, cursor: sqlite3.Cursor, batch: Batch, *, alone: bool) -> JournalError | None:
        """A batch that does more than insert its row: in a savepoint where others must live on without it."""
        rid = batch.lease.rid
        if not alone:
            cursor.execute("savepoint batch")
        try:
            result = self.write_whole(cursor, batch)
        except (sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError, UnicodeError) as error:
            result = trouble(self.file.path, error)  # a value of this batch that no row can hold
        if result is not None:
            batch.lease.rid = rid
            if not alone:
                cursor.execute("rollback to batch")
        if not alone:
            cursor.execute("release batch")
        return result

    def write_whole(self, cursor: sqlite3.Cursor, batch: Batch) -> JournalError | None:
        """Check the batch's fence, then write all its parts; in the caller's transaction, which a refusal must undo."""
        lease, change = batch.lease, batch.change
        if len(batch.data) > MAX_ROW_BYTES or batch.seq > MAX_SEQ:
            return self._refusal(batch)
        if isinstance(change, Start):
            if not self._start(cursor, lease, change.run):
                return RunExists(f"run {change.run.id} is on record already: choose another id")
            if batch.records and not self._row(cursor, batch):
                return _fenced(batch)
        else:
            seen = change.inbox_seen if isinstance(change, Park | Unpark) else None
            if seen is not None or not batch.records:
                hot = cursor.execute(self.sql["hot_fence"], (lease.rid,)).fetchone()
                if hot is None or hot[0] != lease.epoch or hot[1] != lease.worker:
                    return _fenced(batch)
                if seen not in (None, hot[2]):
                    what = f"the inbox of run {lease.run_id} holds something new"
                    return InboxChanged(f"{what}: read it and decide again")
            if batch.records and (refused := self._append(cursor, batch)) is not None:
                return refused
        self._extras(cursor, batch)
        self._change(cursor, batch)
        for fact in batch.facts:
            self.fact_put(cursor, fact)  # dropped where that run is not open
        return None

    def _start(self, cursor: sqlite3.Cursor, lease: Lease, new: NewRun) -> bool:
        values = {
            "id": new.id, "function": new.function, "door": new.door, "created_at": new.created_at,
            "queue": new.queue, "tags": tags_write(new.tags), "target": new.target,
            "parent": new.parent, "deadline": new.deadline, "input_hash": new.input_hash,
        }  # fmt: skip
        if cursor.execute(self.sql["run_insert"], values).rowcount != 1:
            return False
        lease.rid = rid = int(cursor.lastrowid or 0)
        owner, status = (lease.worker, "running") if new.held else (None, "pending")
        self.hot_insert(cursor, rid, new.queue, new.function, status, owner, lease.epoch, new.ttl, 0)
        return True

    def hot_insert(self, cursor: sqlite3.Cursor, *values: object) -> None:
        """A run is open: rid, queue, function, status, owner, epoch, ttl, inbox."""
        names = ("rid", "queue", "function", "status", "owner", "epoch", "ttl", "inbox")
        cursor.execute(self.sql["hot_insert"], dict(zip(names, values, strict=True)))

    def _row(self, cursor: sqlite3.Cursor, batch: Batch) -> bool:
        """The first row of records of a run that starts."""
        rid = batch.lease.rid
        assert rid is not None
        if batch.seq != 1:
            return False
        k = rid << RID_SHIFT | batch.seq
        return cursor.execute(self.sql["record_insert"], (k, batch.lease.epoch, batch.data)).rowcount == 1

    def _extras(self, cursor: sqlite3.Cursor, batch: Batch) -> None:
        rid, sql = batch.lease.rid, self.sql
        for note in batch.notes:
            data = note.data.encode("utf-8", "surrogatepass")
            cursor.execute(sql["note_insert"], (rid, note.key, note.kind, note.at, data))
        for n in batch.inbox_taken:
            cursor.execute(sql["fact_delete"], (n, rid))
        for digest in batch.blobs:
            cursor.execute(sql["blob_ref_insert"], (rid, digest))
        for row in batch.rows:
            if row.data is None:
                cursor.execute(sql["row_delete"], (row.door, row.kind, row.key))
            else:
                cursor.execute(sql["row_put"], (row.door, row.kind, row.key, row.data))

    def fact_put(self, write: sqlite3.Cursor | sqlite3.Connection, fact: Outgoing) -> bool:
        """Put a fact into an open run's inbox and wake it, in the caller's transaction; False if it is not open."""
        woken = write.execute(self.sql["fact_wake"], {"id": fact.run_id, "now": self.now()}).fetchall()
        if not woken:
            return False
        values = {"rid": woken[0][0], "kind": fact.kind, "at": fact.at, "data": fact.data}
        write.execute(self.sql["fact_insert"], values)
        return True

    def fact_there(self, write: sqlite3.Cursor | sqlite3.Connection, fact: Outgoing) -> bool:
        """Whether the fact waits in the run's inbox."""
        values = {"id": fact.run_id, "kind": fact.kind, "at": fact.at, "data": fact.data}
        return write.execute(self.sql["fact_there"], values).fetchone() is not None

    def _change(self, cursor: sqlite3.Cursor, batch: Batch) -> None:
        rid = batch.lease.rid
        values: dict[str, object] = {"rid": rid, "reason": None, "wake_at": None, "waiting_for": None, "release": False}
        match batch.change:
            case Park(wake_at=wake_at, waiting_for=waiting_for, release=release):
                values |= {"status": "waiting", "wake_at": wake_at, "waiting_for": waiting_for, "release": release}
            case Unpark(status=status):
                values["status"] = status
            case Release(status=status, reason=reason, wake_at=wake_at):
                values |= {"status": status, "reason": reason, "wake_at": wake_at, "release": True}
            case End(status=status, reason=reason):
                cursor.execute(self.sql["hot_delete"], (rid,))
                at = {"rid": rid, "status": status, "reason": reason, "at": self.now()}
                cursor.execute(self.sql["run_end"], at)
                return
            case _:
                return
        cursor.execute(self.sql["hot_change"], values)


def tags_write(tags: Sequence[str]) -> str | None:
    """Tags as the catalogue keeps them."""
    return msgspec.json.encode(tags).decode() if tags else None


def _wakes(batch: Batch) -> bool:
    """Whether the batch makes a run claimable, ends one that somebody may wait for, or tells others something."""
    if batch.facts:
        return True
    match batch.change:
        case Release() | End():
            return True
        case Start(run=run):
            return not run.held
        case Park(release=release):
            return release
        case _:
            return False


def _fenced(batch: Batch) -> Fenced:
    lease = batch.lease
    return Fenced(f"run {lease.run_id} is not held by life {lease.epoch} of {lease.worker}: nothing was written")
