"""One SQLite file: its connections, its transactions, and its troubles in one line each (ENGINE.md §6).

The process never opens the database, ``-wal`` or ``-shm`` itself, not even to look at a header: closing such a
descriptor would drop the locks by which SQLite keeps other processes from deleting the WAL. Looking at their size
(`os.stat`) opens nothing.
"""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from stepwell.errors import JournalError
from stepwell.journal._lock import FairLock
from stepwell.journal._sql import SCHEMA
from stepwell.journal._sqlite_schema import schema_check, schema_migrate
from stepwell.journal._sqlite_trouble import BUSY, IN_DOUBT, primary_code, trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Result = TypeVar("Result")
Synchronous = Literal["full", "normal", "off"]

WAL_LIMIT = 64 << 20
"""Bytes at which the WAL is made to begin anew, and to which it is cut then."""
CHECKPOINT_PAGES = 1000
"""Pages in the WAL after which a commit copies them into the database: some 5 ms, once in 4 MB."""
PRIME_AFTER = 24
"""Commits of a process after which its WAL is grown to the size that it will have anyway: a commit into blocks that
the file has already is a third faster, since the file system has nothing of its own to write (measured). A process of
a few commits does not wait for it."""
LOOK_EVERY = 256
"""Commits between two looks at the size of the WAL."""
IDLE_READERS = 4
BUSY_SECONDS = 60.0

_files: weakref.WeakSet[SqliteFile] = weakref.WeakSet()


class StoreWarning(UserWarning):
    """The store works, but not as safely as it should."""


class _Connection(sqlite3.Connection):
    """One that can be referred to weakly."""


class SqliteFile:
    """The connections of one process to one file: one that writes, and as many readers as read at once."""

    def __init__(self, path: str | Path, *, read_only: bool = False, synchronous: Synchronous = "full") -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - no resolving: messages say what was given
        self.read_only = read_only
        self._synchronous = synchronous
        self.unusable: str | None = None
        """Why the file cannot be used any more: closed, or a fork."""
        self._idle: list[sqlite3.Connection] = []
        self._connections: weakref.WeakSet[sqlite3.Connection] = weakref.WeakSet()
        self._commits = 0
        self._blocked_until = 0.0
        if synchronous != "full":
            message = f"{self.path} is written with synchronous = {synchronous}: a power cut may take steps back"
            warnings.warn(message, StoreWarning, stacklevel=4)
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            raise trouble(self.path, error) from error
        _files.add(self)

    def _open(self) -> None:
        if Path(self.path).is_dir():
            raise IsADirectoryError(21, "it is a folder")
        if self.read_only and not Path(self.path).exists():
            raise FileNotFoundError(2, "there is no such file")
        if not self.read_only:
            Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        there = Path(self.path).exists()
        self.write = self.connect()
        self.lock: FairLock | None = None
        try:
            # Before anything is put beside a file that may be no store at all.
            found = schema_check(self.write, self.path, read_only=self.read_only) if there else 0
            if not self.read_only:
                self.lock = FairLock.for_path(self.path)
                # A store that is as it should be is opened without the lock, which a step may hold for seconds.
                if found != SCHEMA or self.write.execute("pragma journal_mode").fetchone()[0] != "wal":
                    with self.lock:
                        self._prepare()
        except BaseException:
            self.write.close()
            if self.lock is not None:
                self.lock.leave()
            raise
        self.cursor = self.write.cursor()

    def _prepare(self) -> None:
        """Settings of the file and its schema. Under the fair lock: changing to WAL wants the file for itself."""
        self.write.execute("pragma auto_vacuum = incremental")  # counts only before the first table
        mode = self.write.execute("pragma journal_mode = wal").fetchone()[0]
        if mode != "wal":
            message = f"{self.path} cannot have a write-ahead log (mode {mode}): put it on a disk of this machine"
            raise JournalError(message)
        schema_migrate(self.write, self.path)

    def connect(self, factory: type[sqlite3.Connection] | None = None) -> sqlite3.Connection:
        """A new connection that may write (unless the whole store may not). The caller closes it.

        Raises:
            sqlite3.Error: it cannot be opened.
        """
        quoted = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        name = f"file://{quoted}?mode={'ro' if self.read_only else 'rwc'}"
        connection = sqlite3.connect(
            name, uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS,
            cached_statements=256, factory=factory or _Connection,
        )  # fmt: skip
        try:
            for name, value in (
                ("synchronous", self._synchronous),
                ("wal_autocheckpoint", CHECKPOINT_PAGES),
                ("journal_size_limit", WAL_LIMIT),
            ):
                # Not through the object: one that is lent to a step refuses what is said outside a transaction.
                sqlite3.Connection.execute(connection, f"pragma {name} = {value}")
        except BaseException:
            sqlite3.Connection.close(connection)
            raise
        self._connections.add(connection)
        return connection

    @property
    def is_usable(self) -> bool:
        """Neither closed nor a fork's."""
        return self.unusable is None

    def check(self) -> None:
        """Whether the file may be used here and now.

        Raises:
            JournalError: it is closed, or was opened before a fork.
        """
        if self.unusable is not None:
            raise JournalError(self.unusable)

    def close(self) -> None:
        """Close every connection that nobody uses; those in use are closed when they are given back. Idempotent."""
        if self.unusable is not None:
            return
        self.unusable = f"{self.path} was closed: open it again"
        _files.discard(self)
        self._drain()
        try:
            self.write.close()
        except sqlite3.Error:
            pass  # what is committed is safe in the WAL
        if self.lock is not None:
            self.lock.leave()

    # -- reading

    def read(self, sql: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query; no read transaction is open afterwards.

        Raises:
            JournalError: the file cannot be read, or is closed.
        """
        self.check()
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            connection = None
            try:
                connection = self.reader_take()
                rows = connection.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                if connection is not None:
                    connection.close()
                # A reader may meet the moment in which another process recovers the WAL, or deletes it on leaving.
                if primary_code(error) not in BUSY or time.monotonic() > deadline:
                    raise trouble(self.path, error) from error
                time.sleep(0.005)
            except BaseException:
                if connection is not None:
                    connection.close()
                raise
            else:
                self.reader_give(connection)
                return rows

    def reader_take(self) -> sqlite3.Connection:
        """A connection that reads only. Give it back."""
        try:
            return self._idle.pop()
        except IndexError:
            connection = self.connect()
            connection.execute("pragma query_only = on")
            return connection

    def reader_give(self, connection: sqlite3.Connection) -> None:
        """It is needed no longer."""
        if len(self._idle) < IDLE_READERS and self.unusable is None:
            self._idle.append(connection)
        else:
            connection.close()
        if not self.is_usable:  # closed in this moment
            self._drain()

    def _drain(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return

    # -- writing

    def hold(self) -> FairLock:
        """The lock between processes, for a ``with``.

        Raises:
            JournalError: the file may not be written.
        """
        self.check()
        if self.lock is None:
            raise JournalError(f"{self.path} was opened for reading only")
        return self.lock

    def writing(self, work: Callable[[sqlite3.Connection, bool], Result]) -> Result:
        """The result of ``work(connection, again)``, done in one transaction under the fair lock.

        After an error that leaves open whether the commit is durable it is done again, once, with ``again`` true: work
        that must not happen twice looks first whether it is there.

        Raises:
            JournalError: nothing was written, as far as the disk says.
        """
        with self.hold():
            return self.attempts(lambda again: self._transaction(work, again=again))

    def _transaction(self, work: Callable[[sqlite3.Connection, bool], Result], *, again: bool) -> Result:
        self.write.execute("begin immediate")
        result = work(self.write, again)
        self.write.execute("commit")
        self.committed()
        return result

    def attempts(self, attempt: Callable[[bool], Result]) -> Result:
        """What ``attempt(again)`` returns. Under the fair lock. Leaves no transaction open, whatever happens.

        A file that is locked by a program other than Stepwell is waited for; an error in doubt (ENGINE.md §3) is met
        with a fresh connection and one more attempt.

        Raises:
            JournalError: it failed.
        """
        again = False
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return attempt(again)
            except sqlite3.Error as error:
                self._roll_back()
                code = primary_code(error)
                if code in BUSY and time.monotonic() < deadline:
                    time.sleep(0.005)
                    continue
                if again or code not in IN_DOUBT:
                    raise trouble(self.path, error) from error
                again = True
                self._replace()
            except BaseException as error:
                # A value that cannot be bound, an interrupt: nothing of the group may stay in an open transaction, or
                # the next row would be written into it and be lost with it.
                self._roll_back()
                if isinstance(error, Exception) and not isinstance(error, JournalError):
                    raise trouble(self.path, error) from error
                raise

    def _roll_back(self) -> None:
        try:
            if self.write.in_transaction:
                self.write.execute("rollback")
        except sqlite3.Error:
            self._replace()

    def _replace(self) -> None:
        """A new write connection in the place of one that met an error whose extent is unknown."""
        try:
            fresh = self.connect()
        except sqlite3.Error:
            return  # a full disk may allow no new one; the old one is all there is
        try:
            self.write.close()
        except sqlite3.Error:
            pass  # it is given up either way
        self.write = fresh
        self.cursor = fresh.cursor()

    # -- the WAL

    def committed(self) -> None:
        """Something was committed: look after the WAL now and then. Under the fair lock, outside a transaction."""
        self._commits += 1
        if self._commits == PRIME_AFTER:
            self._wal_prime()
        elif self._commits % LOOK_EVERY == 0 and self.wal_bytes() > WAL_LIMIT:
            self._wal_reset()

    def wal_bytes(self) -> int:
        """Size of the WAL."""
        try:
            return os.stat(f"{self.path}-wal").st_size  # noqa: PTH116 - nothing is opened
        except OSError:
            return 0

    def _wal_prime(self) -> None:
        """Write pages that are then rolled back: they have no commit mark, so nobody ever reads them."""
        size = CHECKPOINT_PAGES * 4200
        if self.wal_bytes() >= size:
            return
        try:
            self.write.execute("pragma cache_size = 16")  # so few that a large value spills into the WAL at once
            self.write.execute("begin immediate")
            self.write.execute("insert into blob_chunk (hash, i, data) values (x'', 0, zeroblob(?))", (size,))
        except sqlite3.Error:
            pass  # a full disk: it was only to be quicker
        finally:
            self._roll_back()
            self.write.execute("pragma cache_size = -2000")

    def _wal_reset(self) -> None:
        """Copy all into the database and begin the WAL anew, if no reader stands in the way for long."""
        if time.monotonic() < self._blocked_until:
            return
        try:
            self.write.execute("pragma busy_timeout = 200")
            blocked = self.write.execute("pragma wal_checkpoint(restart)").fetchone()[0]
            if blocked:
                self._blocked_until = time.monotonic() + 5.0
        except sqlite3.Error:
            self._blocked_until = time.monotonic() + 5.0
        finally:
            self.write.execute(f"pragma busy_timeout = {int(BUSY_SECONDS * 1000)}")


def _after_fork() -> None:
    # In the child nothing is closed and nothing used: SQLite's memory of locks is the parent's, and closing could
    # drop or delete what the parent needs. The connections get a reference that is never given back, so that not even
    # the interpreter's end closes them.
    import ctypes

    for file in list(_files):
        file.unusable = f"{file.path} was opened before a fork: open it again in the child"
        for connection in list(file._connections):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
    _files.clear()


os.register_at_fork(after_in_child=_after_fork)
