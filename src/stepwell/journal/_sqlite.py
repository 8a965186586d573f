"""The SQLite store: one file, WAL, one writer per process, a fair lock between processes (ENGINE.md §6).

The parts, each in a module of its own: `_sqlite_file` connections and transactions, `_sqlite_write` batches,
`_sqlite_claim` claims and facts, `_sqlite_read` and `_sqlite_catalogue` what is asked, `_sqlite_wait` waking,
`_sqlite_worker` beats, `_sqlite_blob` large values, `_sqlite_gc` retention, `_sqlite_check` the doctor's questions,
`_sqlite_transaction` what is lent to a step.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Literal

from stepwell.journal._api import SystemClock
from stepwell.journal._sql import queries
from stepwell.journal._sqlite_blob import Blobs
from stepwell.journal._sqlite_catalogue import Catalogue
from stepwell.journal._sqlite_check import Checking
from stepwell.journal._sqlite_claim import Claiming
from stepwell.journal._sqlite_file import SqliteFile, StoreWarning
from stepwell.journal._sqlite_gc import Collecting
from stepwell.journal._sqlite_transaction import SqliteTransaction
from stepwell.journal._sqlite_wait import Waiting
from stepwell.journal._sqlite_worker import Workers

if TYPE_CHECKING:
    from pathlib import Path

    from stepwell.journal._api import Clock, StoreTransaction
    from stepwell.journal._sqlite_file import Synchronous


class SqliteStore(Waiting, Claiming, Catalogue, Workers, Blobs, Collecting, Checking):
    """A `Store` in one file, made with its folders if it is not there.

    ``read_only``: nothing is made and nothing written. ``synchronous``: anything but full gives up the promise that a
    power cut takes nothing back, and warns (`StoreWarning`).

    Raises:
        JournalError: it cannot be used; the text says why and what to do.
        SchemaTooNew, SchemaTooOld: its schema is another.
    """

    transaction_excludes_writer = True

    def __init__(
        self,
        path: str | Path,
        clock: Clock | None = None,
        *,
        url: str | None = None,
        read_only: bool = False,
        synchronous: Synchronous = "full",
    ) -> None:
        self.sql = queries("sqlite")
        self._clock = clock or SystemClock()
        self._latest = 0
        self._time_lock = threading.Lock()
        self.file = SqliteFile(path, read_only=read_only, synchronous=synchronous)
        self.url = url or f"sqlite:///{self.file.path}"
        self._start_waiting()
        self._start_writing()
        self._start_workers(self._clock)

    @property
    def kind(self) -> Literal["sqlite"]:
        """Which of the stores."""
        return "sqlite"

    def now(self) -> int:
        """The host's clock in microseconds, held still where it steps back."""
        with self._time_lock:
            self._latest = max(self._latest, self._clock.now())
            return self._latest

    def close(self) -> None:
        """Close every connection, let go of every worker. Idempotent; in a forked child it does nothing."""
        if self.file.unusable is None:
            self._stop_workers()
            self.file.close()
            self._stop_waiting()

    def transaction(self, doing: str = "in a transactional step") -> StoreTransaction:
        """Begin a transaction for a step's body. The caller holds the writer's mutex until its end.

        ``doing``: what other processes are told that wait for long.

        Raises:
            JournalError: it cannot be begun.
        """
        return SqliteTransaction(self, self.file.hold(), doing)


def open_sqlite(
    path: str | Path, clock: Clock | None = None, *, url: str | None = None, read_only: bool = False
) -> SqliteStore:
    """Open the store at ``path``; see `SqliteStore`."""
    return SqliteStore(path, clock, url=url, read_only=read_only)


__all__ = ["SqliteStore", "StoreWarning", "open_sqlite"]
