"""A fair lock between the processes that write one SQLite file.

POSIX record locks on two bytes of one file beside the store: whoever wants the *main* byte first takes the
*turnstile*, so that a process that has just released cannot overtake one that waits. (SQLite's own busy time-out
starves writers: measured, ARCHITECTURE.md §5.) Bytes above ``WORKERS`` are held by workers for life: a free one means
that its worker is dead.

Closing *any* descriptor of the file drops all locks that the process has on it, so the file is opened once per process
and path and never again (ENGINE.md §2). POSIX locks do not keep threads of one process apart: a mutex does.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from pathlib import Path
from typing import Self

from stepwell.errors import JournalBusy

MAIN, TURNSTILE, WORKERS = 0, 1, 1024
PATIENCE = 60.0
"""Seconds to wait for the lock before giving up."""
_FLOCK = "hhqqi4x"
_locks: dict[str, FairLock] = {}
_registry = threading.Lock()


class FairLock:
    """``with FairLock.for_path(path):`` nobody else writes the SQLite file at ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._mutex = threading.RLock()
        self._depth = 0
        self.doing = ""
        self.own: set[int] = set()
        """Worker bytes that this process holds: it cannot see its own locks."""

    @classmethod
    def for_path(cls, path: str | Path) -> FairLock:
        """The process's one lock for an SQLite file, whatever way its path is written."""
        real = f"{os.path.realpath(path)}-lock"
        with _registry:
            if real not in _locks:
                _locks[real] = cls(real)
            return _locks[real]

    def __enter__(self) -> Self:
        self._mutex.acquire()
        self._depth += 1
        if self._depth == 1:
            try:
                self._acquire()
            except BaseException:
                self._depth = 0
                self._mutex.release()
                raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, MAIN)
        self._mutex.release()

    def _try(self, byte: int) -> bool:
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, byte)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise
        return True

    def _acquire(self) -> None:
        if not self._try(TURNSTILE):
            self._wait(TURNSTILE)
        try:
            if not self._try(MAIN):
                self._wait(MAIN)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, TURNSTILE)

    def _wait(self, byte: int) -> None:
        """Until the byte is ours. F_SETLKW knows no time-out, so this looks again, at first often."""
        end = time.monotonic() + PATIENCE
        nap = 0.0002
        while not self._try(byte):
            if time.monotonic() > end:
                holder = self.holder(byte)
                message = f"{self.path.removesuffix('-lock')} is held by process {holder} for over {PATIENCE:g} s"
                raise JournalBusy(message, holder=str(holder), hint="end or wait for that process, then try again")
            time.sleep(nap)
            nap = min(nap * 1.5, 0.002)

    def holder(self, byte: int = MAIN) -> int | None:
        """Pid of the other process that holds a byte; None if nobody does."""
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(self._fd, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else pid

    def worker_hold(self, number: int) -> None:
        """Hold a worker's byte until the process ends."""
        fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, WORKERS + number)
        self.own.add(number)

    def worker_drop(self, number: int) -> None:
        """Let a worker's byte go."""
        if number in self.own:
            self.own.discard(number)
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, WORKERS + number)

    def worker_dead(self, number: int) -> bool:
        """Whether nobody holds the byte any more."""
        return number not in self.own and self.holder(WORKERS + number) is None


def _after_fork() -> None:
    # The child has none of its parent's locks; what it opens itself gets descriptors of its own. The inherited ones
    # stay open: closing them would do no harm to the parent, and nobody uses them.
    global _registry  # noqa: PLW0603 - another thread may have held it at the fork
    _registry = threading.Lock()
    _locks.clear()


os.register_at_fork(after_in_child=_after_fork)
