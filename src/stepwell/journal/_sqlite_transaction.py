"""A transaction of the store's file lent to a step's body (P4): its rows and the step's record, both or neither.

Each transaction has a connection of its own, so that nothing that a body leaves behind on it (an open cursor, a pragma,
a temporary table) outlives the step. An authorizer guards it where SQLite compiles a statement, so neither comments nor
spelling get round it.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from stepwell.errors import JournalError, UsageError
from stepwell.journal._sqlite_schema import RID_SHIFT
from stepwell.journal._sqlite_trouble import IN_DOUBT, primary_code, trouble

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.journal._api import Batch
    from stepwell.journal._lock import FairLock
    from stepwell.journal._sqlite_write import Writing

Result = TypeVar("Result")

TABLES = frozenset(
    {
        "meta", "run", "hot", "record", "note", "inbox", "blob", "blob_chunk", "blob_ref", "gone", "lock", "timer",
        "signal", "published", "door_row",
    }
)  # fmt: skip
"""Stepwell's own: a body may read them, and never write them."""

_WRITES_FIRST = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE)
_WRITES_SECOND = (
    sqlite3.SQLITE_ALTER_TABLE, sqlite3.SQLITE_CREATE_INDEX, sqlite3.SQLITE_CREATE_TRIGGER, sqlite3.SQLITE_DROP_INDEX,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER, sqlite3.SQLITE_DROP_TRIGGER,
)  # fmt: skip
"""Actions whose first, or second, argument is the table."""
_HARMLESS = (sqlite3.SQLITE_UPDATE, "blob", "touched_at")
"""When a large value was last touched only matters to `gc`, and there only where no run refers to it."""
_PRAGMAS = frozenset(
    {
        "table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list",
        "foreign_key_check", "defer_foreign_keys", "database_list", "compile_options", "function_list",
    }
)  # fmt: skip
"""Those that may be given a value."""

_ENDS = "a transactional step commits or rolls back as a whole, at its end"
_OWN = "a transactional step may read Stepwell's own tables, and never write them"


class LentCursor(sqlite3.Cursor):
    """A cursor of a lent connection: refusals are `UsageError`, and nothing is done outside the transaction."""

    def execute(self, *args: Any) -> LentCursor:
        """As DB-API says."""
        _lent(self).guarded(lambda: super(LentCursor, self).execute(*args))
        return self

    def executemany(self, *args: Any) -> LentCursor:
        """As DB-API says."""
        _lent(self).guarded(lambda: super(LentCursor, self).executemany(*args))
        return self

    def executescript(self, *args: Any) -> NoReturn:
        """Refused: it commits."""
        raise UsageError(f"executescript() commits what was done before it, and {_ENDS}: use execute()")


class LentConnection(sqlite3.Connection):
    """An SQLite connection whose transaction is the step's."""

    refused: str | None = None

    def guarded(self, call: Callable[[], Result]) -> Result:
        """The result of a statement, inside the transaction."""
        if not self.in_transaction:
            # An interrupt, a full disk or INSERT OR ROLLBACK rolls the transaction back by itself.
            raise UsageError("the transaction of this step is over: nothing more can be written in it")
        self.refused = None
        try:
            return call()
        except sqlite3.DatabaseError as error:
            if self.refused is not None:
                raise UsageError(self.refused) from error
            raise

    def cursor(self, factory: Any = LentCursor) -> Any:
        """As DB-API says."""
        if not (isinstance(factory, type) and issubclass(factory, LentCursor)):
            raise UsageError("a transactional step's connection has cursors of its own: cursor() without a factory")
        return super().cursor(factory)

    def execute(self, *args: Any) -> Any:
        """As DB-API says."""
        return self.cursor().execute(*args)

    def executemany(self, *args: Any) -> Any:
        """As DB-API says."""
        return self.cursor().executemany(*args)

    def blobopen(self, table: str, *args: Any, **named: Any) -> Any:
        """As `sqlite3.Connection.blobopen`."""
        if table.lower() in TABLES and not named.get("readonly"):
            raise UsageError(_OWN)
        return super().blobopen(table, *args, **named)

    def _refuse(self, *args: Any, **named: Any) -> NoReturn:
        raise UsageError(_ENDS)

    commit = rollback = close = executescript = __enter__ = __exit__ = _refuse
    set_authorizer = deserialize = _refuse

    @property
    def isolation_level(self) -> None:
        """None; setting it would commit."""
        return

    @isolation_level.setter
    def isolation_level(self, value: object) -> NoReturn:
        raise UsageError(_ENDS)

    @property
    def autocommit(self) -> int:
        """As the connection was opened; setting it would commit."""
        return int(getattr(sqlite3, "LEGACY_TRANSACTION_CONTROL", -1))

    @autocommit.setter
    def autocommit(self, value: object) -> NoReturn:
        raise UsageError(_ENDS)


def _lent(cursor: sqlite3.Cursor) -> LentConnection:
    return cast("LentConnection", cursor.connection)


class SqliteTransaction:
    """`StoreTransaction` of an SQLite file. It holds the fair lock until its end; one thread begins and ends it."""

    def __init__(self, store: Writing, lock: FairLock, doing: str) -> None:
        self._store = store
        self._file = store.file
        self._lock = lock
        self._over = False
        self._ours = False
        self._gate = threading.Lock()
        lock.acquire(doing)
        try:
            self._connection = cast("LentConnection", self._file.connect(LentConnection))
            try:
                sqlite3.Connection.execute(self._connection, "begin immediate")
                sqlite3.Connection.set_authorizer(self._connection, self._authorize)
            except BaseException:
                sqlite3.Connection.close(self._connection)
                raise
        except BaseException as error:
            lock.release()
            if isinstance(error, sqlite3.Error):
                raise trouble(self._file.path, error) from error
            raise

    @property
    def connection(self) -> Any:
        """The DB-API connection; commit, rollback, close and BEGIN through it are `UsageError`."""
        return self._connection

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if self._ours:
            return sqlite3.SQLITE_OK
        reason = None
        if action in (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH):
            reason = _ENDS
        elif action in _WRITES_FIRST and (first or "").lower() in TABLES:
            reason = None if (action, first, second) == _HARMLESS else _OWN
        elif action in _WRITES_SECOND and (second or "").lower() in TABLES:
            reason = _OWN
        elif action == sqlite3.SQLITE_PRAGMA and second is not None and (first or "").lower() not in _PRAGMAS:
            reason = f"a transactional step may not set pragma {first}"
        if reason is None:
            return sqlite3.SQLITE_OK
        self._connection.refused = reason
        return sqlite3.SQLITE_DENY

    def commit(self, batch: Batch) -> JournalError | None:
        """Write the batch with its fence as the last statements, and commit: both or neither.

        Raises:
            JournalError: nothing was committed.
        """
        self._file.check()
        connection = self._connection
        if self._over or not connection.in_transaction:
            self.rollback()
            raise JournalError(f"{self._file.path}: the transaction was rolled back before it could be committed")
        self._ours = True
        try:
            cursor = sqlite3.Connection.cursor(connection)
            result = self._store.write_whole(cursor, batch)
            if result is None:
                cursor.execute("commit")
        except sqlite3.Error as error:
            self._discard()
            try:
                if primary_code(error) in IN_DOUBT and self._is_committed(batch):
                    return None
            finally:
                self._lock.release()
            raise trouble(self._file.path, error) from error
        except BaseException:
            self.rollback()
            raise
        self.rollback()  # after a commit: only what is left to let go
        return result

    def _is_committed(self, batch: Batch) -> bool:
        """After an error in COMMIT, still under the fair lock: is the batch's row there?"""
        rid = batch.lease.rid
        if rid is None or not batch.records:
            return False
        try:
            fresh = self._file.connect()
        except sqlite3.Error:
            return False
        try:
            # Taking the write lock makes SQLite look at the WAL as it is now.
            fresh.execute("begin immediate")
            k = rid << RID_SHIFT | batch.seq
            row = fresh.execute(self._store.sql["record_get"], (k,)).fetchone()
            fresh.execute("rollback")
        except sqlite3.Error:
            return False
        finally:
            fresh.close()
        return bool(row == (batch.lease.epoch, batch.data))

    def rollback(self) -> None:
        """Give everything up. Idempotent."""
        if self._discard():
            self._lock.release()

    def _discard(self) -> bool:
        """Roll back what is open on the connection and close it; whether it was still open."""
        with self._gate:
            if self._over:
                return False
            self._over = True
            connection = self._connection
            if self._file.unusable is None:  # else it is a child's, or a closed store's: left alone
                # Closing alone would not do: a cursor that is still alive, in the traceback of the body's error say,
                # keeps a closed connection's transaction, and its lock, until it is gone.
                self._ours = True
                with suppress(sqlite3.Error):
                    sqlite3.Connection.rollback(connection)
                sqlite3.Connection.close(connection)
            return True

    def interrupt(self) -> None:
        """From another thread: make what runs on the connection fail."""
        with self._gate:
            if not self._over:
                self._connection.interrupt()
