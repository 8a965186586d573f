"""The write connection lent to a step's body (P4)."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from stepwell.errors import UsageError
from stepwell.journal._sqlite_file import trouble

if TYPE_CHECKING:
    from stepwell.errors import JournalError
    from stepwell.journal._api import Batch
    from stepwell.journal._sqlite import SqliteStore

_OURS = frozenset(("meta", "run", "hot", "record", "inbox", "gone", "lock"))
"""Tables whose change from outside could let a step run twice; the rest is the user's own risk."""
_WRITES = (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE, sqlite3.SQLITE_DROP_TABLE)


class LentConnection:
    """A connection whose transaction is the step's: it cannot be ended from inside."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name in ("commit", "rollback", "close", "executescript", "set_authorizer", "isolation_level"):
            message = f"a transactional step's connection has no {name}: the step commits or rolls back as a whole"
            raise UsageError(message)
        found = getattr(self._inner, name)
        if name in ("execute", "executemany"):
            return lambda *args: _refusing(found, *args)
        if name == "cursor":
            return lambda *args: LentConnection(found(*args))
        return found

    def __iter__(self) -> Any:
        return iter(self._inner)


def _refusing(call: Any, *args: Any) -> Any:
    try:
        return call(*args)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_AUTH or "not authorized" in str(error):
            message = "a transactional step may not begin or end transactions, nor write Stepwell's own tables"
            raise UsageError(message) from error
        raise


def _authorize(action: int, first: str | None, _second: str | None, _db: str | None, _trigger: str | None) -> int:
    if action == sqlite3.SQLITE_TRANSACTION or (action in _WRITES and first in _OURS):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


class SqliteTransaction:
    """`stepwell.journal._api.StoreTransaction` on the store's file; holds the fair lock until its end."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self._file = store.file
        self._open = False
        self._file.lock.__enter__()
        try:
            self._file.write.execute("begin immediate")
            self._file.write.set_authorizer(_authorize)
        except sqlite3.Error as error:
            self._file.lock.__exit__()
            raise trouble(store.path, error) from error
        self._open = True
        self.connection: Any = LentConnection(self._file.write)

    def commit(self, batch: Batch) -> JournalError | None:
        """Write the batch with its fence as the last statement, and commit: both or neither."""
        write = self._file.write
        write.set_authorizer(None)
        try:
            result = self._store._write_all(write, batch)
            if result is None:
                write.execute("commit")
        except sqlite3.Error as error:
            self.rollback()
            raise trouble(self._store.path, error) from error
        if result is not None:
            self.rollback()
            return result
        self._over()
        return None

    def rollback(self) -> None:
        """Give everything up. Idempotent."""
        if not self._open:
            return
        try:
            self._file.write.set_authorizer(None)
        finally:
            self._file.recover()
            self._over()

    def _over(self) -> None:
        self._open = False
        self._file.lock.__exit__()

    def interrupt(self) -> None:
        """From another thread: make what runs on the connection fail."""
        if self._open:
            self._file.write.interrupt()
