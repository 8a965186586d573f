"""One SQLite file: its connections, its schema, and its troubles in one line each."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.errors import Corrupt, JournalBusy, JournalError, SchemaTooNew, SchemaTooOld
from stepwell.journal._lock import FairLock
from stepwell.journal._sql import SCHEMA, migrations

if TYPE_CHECKING:
    from collections.abc import Callable

_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
WAL_LIMIT = 64 * 1024 * 1024


class StoreWarning(UserWarning):
    """The store works, but not as safely as it should."""


def trouble(path: str, error: BaseException) -> JournalError:
    """What went wrong with the file, and what to do."""
    text = str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB or "not a database" in text:
        return Corrupt(f"{path} is no SQLite database", hint="give another path; this file was left as it is")
    if code == sqlite3.SQLITE_CORRUPT:
        return Corrupt(f"{path} is damaged: {text}", hint="restore it from a backup; `stepwell doctor` says more")
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) in (28, 122):
        return JournalError(f"{path}: the disk is full", hint="make room, then run `stepwell resume RUN`")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) or isinstance(error, PermissionError):
        return JournalError(f"{path} cannot be written: {text}", hint="check the rights of the file and its folder")
    if code == sqlite3.SQLITE_BUSY:
        return JournalBusy(f"{path} is locked by a program that is not Stepwell: {text}", hint="close it, try again")
    if code == sqlite3.SQLITE_CANTOPEN or isinstance(error, OSError):
        return JournalError(
            f"{path} cannot be opened: {text}", hint="check that it is a file in a folder you may write"
        )
    return JournalError(f"{path}: {text}", hint="run `stepwell doctor`")


class SqliteFile:
    """The connections of one process to one file."""

    def __init__(self, path: str, *, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only
        self.closed = False
        self._pid = os.getpid()
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        try:
            if not read_only:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            elif not Path(path).is_file():
                raise FileNotFoundError(2, "no such file")
            if Path(path).is_dir():
                raise IsADirectoryError(21, "it is a folder")
            self.lock = FairLock.for_path(path)
            self.write = self.connect()
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise trouble(path, error) from error

    def connect(self) -> sqlite3.Connection:
        """A new connection."""
        name = f"file:{Path(self.path).as_posix().replace('%', '%25').replace('?', '%3f').replace('#', '%23')}"
        mode = "?mode=ro" if self.read_only else ""
        connection = sqlite3.connect(
            name + mode, uri=True, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=256
        )
        connection.execute("pragma foreign_keys = off")
        return connection

    def _prepare(self) -> None:
        found = self._schema()
        if found is not None and found > SCHEMA:
            message = f"{self.path} has schema {found}; this version of Stepwell knows {SCHEMA}: install a newer one"
            raise SchemaTooNew(message, found=found, expected=SCHEMA)
        if self.read_only:
            if found is None or found < SCHEMA:
                message = f"{self.path} has schema {found or 0}, not {SCHEMA}: open it once for writing to bring it up"
                raise SchemaTooOld(message, found=found or 0, expected=SCHEMA)
            return
        with self.lock:
            self.write.execute("pragma journal_mode = wal")
            self._settings(self.write)
            if found != SCHEMA:
                self._migrate()

    def _settings(self, connection: sqlite3.Connection) -> None:
        connection.execute("pragma synchronous = full")
        connection.execute(f"pragma journal_size_limit = {WAL_LIMIT}")
        connection.execute("pragma wal_autocheckpoint = 4000")

    def _schema(self) -> int | None:
        self.write.execute("pragma schema_version").fetchone()  # reads the header: raises where it is no database
        there = self.write.execute("select 1 from sqlite_master where name = 'meta'").fetchone()
        if there is None:
            return None
        row = self.write.execute("select value from meta where key = 'schema'").fetchone()
        return None if row is None else int(row[0])

    def _migrate(self) -> None:
        found = self._schema() or 0
        for number, _, sql in migrations("sqlite"):
            if number > found:
                script = f"begin immediate;{sql};insert or replace into meta values ('schema', '{number}');commit;"
                try:
                    self.write.executescript(script)
                except sqlite3.Error:
                    if self.write.in_transaction:
                        self.write.execute("rollback")
                    raise

    def check_alive(self) -> None:
        """Raise if the store is closed, or was opened before a fork."""
        if self.closed:
            raise JournalError(f"{self.path} was closed; open it again")
        if self._pid != os.getpid():
            raise JournalError(f"{self.path} was opened before fork; open it again")

    def reopen(self) -> None:
        """A new write connection, after the old one met an error whose extent is unknown."""
        try:
            self.write.close()
        except sqlite3.Error:
            pass  # it is given up either way
        self.write = self.connect()
        self._settings(self.write)

    @property
    def reader(self) -> sqlite3.Connection:
        """This thread's connection for reading."""
        self.check_alive()
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self.connect()
            self._local.connection = connection
            with self._guard:
                self._readers.append(connection)
                self._drop_dead()
        return connection

    def _drop_dead(self) -> None:
        """Close readers of threads that are gone when there are many: each holds descriptors."""
        if len(self._readers) > 256:
            old, self._readers = self._readers[:64], self._readers[64:]
            self._retired = getattr(self, "_retired", [])
            self._retired += old

    def read(self, sql: str, values: object = ()) -> list[tuple[object, ...]]:
        """All rows of a query; no read transaction is open afterwards. Raises `JournalError`."""
        for attempt in range(50):
            try:
                return self.reader.execute(sql, values).fetchall()  # type: ignore[arg-type]
            except sqlite3.OperationalError as error:
                # A reader may meet the moment in which a WAL is recovered.
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or attempt == 49:
                    raise trouble(self.path, error) from error
                time.sleep(0.01)
            except sqlite3.Error as error:
                raise trouble(self.path, error) from error
        raise AssertionError

    def writing(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run work in one transaction under the fair lock. Raises `JournalError` with nothing written."""
        self.check_alive()
        with self.lock:
            try:
                self.write.execute("begin immediate")
                work(self.write)
                self.write.execute("commit")
            except sqlite3.Error as error:
                self.recover()
                raise trouble(self.path, error) from error
            except BaseException:
                self.recover()
                raise

    def recover(self) -> None:
        """Leave no transaction open."""
        try:
            if self.write.in_transaction:
                self.write.execute("rollback")
        except sqlite3.Error:
            self.reopen()

    def close(self) -> None:
        """Close every connection. Idempotent."""
        if self.closed or self._pid != os.getpid():
            self.closed = True
            return
        self.closed = True
        with self._guard:
            connections = [*self._readers, *getattr(self, "_retired", []), self.write]
            self._readers = []
        for connection in connections:
            try:
                connection.close()
            except sqlite3.Error:
                pass  # nothing can be done about it, and the journal is durable
