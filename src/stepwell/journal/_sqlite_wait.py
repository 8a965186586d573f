"""Waiting for a change of an SQLite store: a condition within the process; between processes a bell, and
``data_version`` as the net below it.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from stepwell.journal._sqlite_bell import Bell
from stepwell.journal._sqlite_trouble import BUSY, primary_code, trouble

if TYPE_CHECKING:
    import sqlite3

    from stepwell.journal._sqlite_file import SqliteFile

NAP_SHORT, NAP_LONG = 0.005, 0.05
"""Seconds between two looks, at first and after a while without a change."""


class Waiting:
    """A part of `SqliteStore`. Thread-safe."""

    file: SqliteFile

    def _start_waiting(self) -> None:
        self._changed = threading.Condition()
        self._pokes = 0
        # The number counts the changes that this one connection has seen, so all that wait look through it.
        self._watch: sqlite3.Connection | None = None
        self._watch_lock = threading.Lock()
        self._seen = threading.local()
        self._bell = Bell(Path(f"{os.path.realpath(self.file.path)}-bells"), self._wake)

    def _stop_waiting(self) -> None:
        self._bell.close()
        with self._watch_lock:
            if self._watch is not None:
                self._watch.close()
                self._watch = None
        self._wake()

    def wait(self, timeout: float) -> None:
        """Return when something may have changed since this thread last waited, or after ``timeout`` seconds."""
        self.file.check()
        if not self.file.read_only:
            self._bell.listen()
        end = time.monotonic() + timeout
        nap = NAP_SHORT
        while True:
            with self._changed:
                pokes = self._pokes
            state = (pokes, self._data_version())
            if getattr(self._seen, "state", state) != state:
                self._seen.state = state
                return
            self._seen.state = state
            left = end - time.monotonic()
            if left <= 0:
                return
            with self._changed:
                if self._pokes == pokes:
                    self._changed.wait(min(nap, left))
            nap = min(nap * 1.5, NAP_LONG)

    def _data_version(self) -> int:
        import sqlite3

        with self._watch_lock:
            self.file.check()
            try:
                if self._watch is None:
                    self._watch = self.file.reader_take()
                return int(self._watch.execute("pragma data_version").fetchone()[0])
            except sqlite3.Error as error:
                if self._watch is not None:
                    self._watch.close()
                    self._watch = None
                if primary_code(error) in BUSY:
                    return -1  # somebody is at it: that is a change
                raise trouble(self.file.path, error) from error

    def poke(self) -> None:
        """Make every `wait` of this process return."""
        if self.file.is_usable:  # in a forked child another thread may have had the condition
            self._wake()

    def tell(self) -> None:
        """Somebody, here or in another process, may find something to do, or what it waits for."""
        self.poke()
        self._bell.ring()

    def _wake(self) -> None:
        with self._changed:
            self._pokes += 1
            self._changed.notify_all()
