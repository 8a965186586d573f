"""A fair lock between the processes that write one SQLite file, and the locks by which a worker's death is seen.

Both are POSIX record locks on bytes of one file beside the database, ``<database>-lock``. Such locks belong to the
process: they vanish with it, however it ends, and a forked child never has them (`flock` survives in a child, and an
unlock there frees the parent's: ENGINE.md §2). The price: *closing any descriptor of the file drops all locks of the
process on it*. So the file is opened once per process and real path, in the registry below, and nothing else opens it.

The fair lock is two bytes. Whoever waits holds the *turnstile* until it gets the *main* byte, so a process that has
just released cannot overtake it; those behind it queue in the kernel for the turnstile, first come, first served.
(SQLite's busy time-out alone starves writers: one of eight got a single commit in three seconds.) A blocking request
knows no time-out, so it is made by a thread of the lock's own, which gives the lock back if its caller went away.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import struct
import sys
import threading
import time
from typing import TYPE_CHECKING

from stepwell.errors import JournalBusy, JournalError, UsageError

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

TURNSTILE, MAIN, WORKERS = 0, 1, 1 << 20
"""Offsets of the locked bytes; a worker's byte lies at ``WORKERS`` + its number. They need not exist in the file."""

PATIENCE = 60.0
"""Seconds to wait for the lock before `JournalBusy`."""

_NOTE = 512
"""Bytes at the start of the file in which a holder that will take long says what it does."""
_WORKER_NUMBERS = 1 << 40
_TAKEN = (errno.EACCES, errno.EAGAIN)
# struct flock, whose order differs between systems; pid_t is an int.
_FLOCK = "hhqqi4x" if sys.platform.startswith("linux") else "qqihh"

_registry: dict[str, FairLock] = {}
_registry_gate = threading.Lock()


class FairLock:
    """``with FairLock.for_path(path):`` nobody else writes the SQLite file at ``path``. Not re-entrant."""

    def __init__(self, target: str) -> None:
        self.target = target
        """Real path of the file that is guarded."""
        self._fd = os.open(f"{target}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._users = 0
        self._own: set[int] = set()
        self._noted = False
        # Record locks do not keep threads of one process apart; this does.
        self._threads = threading.Lock()
        self._thread = 0
        self._queue = _Queue(self._fd)

    @classmethod
    def for_path(cls, path: str | Path) -> FairLock:
        """The process's one lock for an SQLite file, however its path is written. `leave` it when done with it, or
        never: it then stays open until the process ends.

        Raises:
            OSError: the lock file beside it can be neither opened nor made.
        """
        target = os.path.realpath(path)
        with _registry_gate:
            lock = _registry.get(target)
            if lock is None:
                lock = _registry[target] = cls(target)
            lock._users += 1
            return lock

    def leave(self) -> None:
        """One user less; the file is closed after the last, unless a request for its lock is still under way: closing
        it later would drop the locks of whoever uses it then.
        """
        with _registry_gate:
            self._users -= 1
            if self._users == 0 and _registry.get(self.target) is self and self._queue.close():
                del _registry[self.target]
                self._fd = -1

    # -- the fair lock

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def acquire(self, doing: str = "") -> None:
        """Wait for the lock, first come, first served. ``doing``: what others are told who wait for long.

        Raises:
            JournalBusy: not to be had within `PATIENCE` seconds; names the holder.
            UsageError: this thread holds it already (a transactional step that writes to the same file).
            JournalError: made before a fork, used in the child.
        """
        start = 0.0
        if not self._threads.acquire(blocking=False):
            start = self._acquire_thread()
        try:
            # While the thread still waits for a caller that went away, what it is given is this process's lock, too.
            if self._queue.waiting or not self._try():
                self._acquire_queued(start)
            if doing:
                self._note(doing)
        except BaseException:
            if self._fd >= 0 and not self._queue.waiting:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 2, TURNSTILE)  # an interrupt may have come behind the lock
            self._threads.release()
            raise
        self._thread = threading.get_ident()

    def release(self) -> None:
        """Let the next one in. In a forked child, which has nothing to let go of, it does nothing."""
        if self._fd < 0:
            return
        self._thread = 0
        try:
            if self._noted:
                self._note("")
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, MAIN)
            self._threads.release()

    def _acquire_thread(self) -> float:
        if self._thread == threading.get_ident():
            message = f"this thread writes {self.target} already: inside a transactional step use its connection"
            raise UsageError(message)
        start = time.monotonic()
        if not self._threads.acquire(timeout=PATIENCE):
            raise self._busy(f"another thread of this process (pid {os.getpid()}{self._doing(os.getpid())})")
        return start

    def _try(self) -> bool:
        # Both bytes in one request: whoever waits has the turnstile, and cannot be overtaken.
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 2, TURNSTILE)
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        except ValueError:
            message = f"the lock of {self.target} was closed, or opened before a fork: open it again"
            raise JournalError(message) from None
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, TURNSTILE)
        return True

    def _acquire_queued(self, start: float) -> None:
        waited = time.monotonic() - start if start else 0.0
        if not self._queue.wait(max(PATIENCE - waited, 0.0)):
            raise self._busy(self.holder() or "another process")

    def _busy(self, holder: str) -> JournalBusy:
        message = f"{self.target} is held for over {PATIENCE:g} s by {holder}"
        return JournalBusy(message, holder=holder, hint="wait for that process or end it, then try again")

    # -- who holds it

    def holder(self) -> str | None:
        """The other process that holds the lock, as well as it is known; None if none does."""
        pid = self._holder_pid(MAIN)
        if pid is None:
            return None
        return f"process {pid}{self._doing(pid)}" if pid > 0 else "a process outside this container"

    def _holder_pid(self, byte: int) -> int | None:
        """Pid of the other process that holds a byte, 0 if it has no pid here, None if nobody does."""
        linux = _FLOCK.startswith("h")
        wanted = (fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0) if linux else (byte, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)
        found = struct.unpack(_FLOCK, fcntl.fcntl(self._fd, fcntl.F_GETLK, struct.pack(_FLOCK, *wanted)))
        kind, pid = (found[0], found[4]) if linux else (found[3], found[2])
        return None if kind == fcntl.F_UNLCK else max(pid, 0)

    def _note(self, doing: str) -> None:
        # One page, written whole: a reader sees the old text or the new one.
        text = f"{os.getpid()} {doing}" if doing else ""
        os.pwrite(self._fd, text.encode("utf-8", "replace")[: _NOTE - 1].ljust(_NOTE, b"\n"), 0)
        self._noted = bool(doing)

    def _doing(self, pid: int) -> str:
        noted, _, doing = os.pread(self._fd, _NOTE, 0).decode("utf-8", "replace").strip().partition(" ")
        return f", {doing}" if doing and noted == str(pid) else ""

    # -- workers

    @property
    def identity(self) -> str:
        """Which file this is: a worker's byte tells nothing to one who looks at a file that was made anew."""
        status = os.fstat(self._fd)
        return f"{status.st_dev}:{status.st_ino}"

    def worker_hold(self) -> int:
        """Lock a byte that no worker has had until the process ends or `worker_drop`; its number.

        Raises:
            OSError: the system gives no lock.
        """
        while True:
            number = random.randrange(_WORKER_NUMBERS)
            try:
                if number not in self._own:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, WORKERS + number)
                    self._own.add(number)
                    return number
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise

    def worker_drop(self, number: int) -> None:
        """Let the byte go: the worker is dead to whoever looks."""
        if number in self._own:
            self._own.discard(number)
            if self._fd >= 0:
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, WORKERS + number)

    def worker_held(self, number: int) -> bool:
        """Whether any process, this one included, holds the byte."""
        return number in self._own or self._holder_pid(WORKERS + number) is not None


class _Queue:
    """The thread that waits in the kernel for one `FairLock`, for one caller at a time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._gate = threading.Lock()
        self._kick = threading.Semaphore(0)
        self._caller: threading.Lock | None = None
        self._error: OSError | None = None
        self.waiting = False
        """The thread asks the kernel, or is about to; False only when what it was given is passed on or given back."""
        self._closed = False
        self._started = False
        self._single = threading.Lock()

    def wait(self, timeout: float) -> bool:
        """Have the lock, or False after ``timeout`` seconds. Under the lock's mutex of threads.

        Raises:
            OSError: the system gives no lock.
        """
        caller = threading.Lock()
        caller.acquire()
        try:
            with self._gate:
                self._caller, self._error = caller, None
                if not self.waiting:  # else the place in the queue of a caller that went away is this one's
                    self._kick.release()
                    self.waiting = True
                if not self._started:
                    threading.Thread(target=self._run, name="stepwell-lock", daemon=True).start()
                    self._started = True
            granted = caller.acquire(timeout=timeout)
        except BaseException:  # an interrupt, at any place
            if self._withdraw():  # it may have come in this very moment, and nobody will use it
                fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, MAIN)
            raise
        granted = self._withdraw() or granted
        if self._error is not None:
            raise self._error
        return granted

    def _withdraw(self) -> bool:
        """Want it no longer; whether it has been given."""
        with self._gate:
            given = self._caller is None and self._error is None
            self._caller = None
            return given

    def close(self) -> bool:
        """Close the file; False if the thread still asks for a lock on it."""
        with self._gate:
            if self.waiting:
                return False
            self._closed = True
            os.close(self._fd)
            self._kick.release()
            return True

    def _run(self) -> None:
        if not self._single.acquire(blocking=False):
            return  # an interrupt came between start and note of the thread that is there already
        while True:
            self._kick.acquire()
            if self._closed:
                return
            error = self._enter()
            with self._gate:
                self.waiting = False
                caller, self._caller, self._error = self._caller, None, error
                if caller is not None:
                    caller.release()
                elif error is None:
                    fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, MAIN)

    def _enter(self) -> OSError | None:
        for byte in (TURNSTILE, MAIN):
            while True:
                try:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX, 1, byte)
                    break
                except OSError as error:
                    # The kernel takes two processes whose *threads* wait for each other's files for a deadlock.
                    if error.errno != errno.EDEADLK:
                        if byte == MAIN:
                            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, TURNSTILE)
                        return error
                    time.sleep(0.002)
        fcntl.lockf(self._fd, fcntl.LOCK_UN, 1, TURNSTILE)
        return None


def _after_fork() -> None:
    # The child has none of the locks. What it opens itself gets descriptors of its own; the inherited ones are never
    # closed, since the number might be in use elsewhere, and never used: the parent's objects are dead here.
    global _registry_gate  # noqa: PLW0603 - another thread may have held it at the fork
    _registry_gate = threading.Lock()
    for lock in _registry.values():
        lock._fd = -1
        lock._own.clear()
        lock._threads = threading.Lock()
        lock._thread = 0
    _registry.clear()


os.register_at_fork(after_in_child=_after_fork)
