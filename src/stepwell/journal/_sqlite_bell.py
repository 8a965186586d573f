"""Bells: how a commit wakes the processes that wait for one, without their looking all the time (ENGINE.md §8).

A process that waits makes a FIFO in ``<database>-bells/``, and a thread of it sleeps at its end. Whoever commits
what others may wait for (a run to take, the end of one) puts a byte into each FIFO there. That is a hint, as NOTIFY is:
where it gets lost, or FIFOs cannot be made, polling finds the change a little later.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

APART = 0.002
"""Seconds between two times that one process is woken: who waits beside a thousand commits a second has work to do."""


class Bell:
    """The one that this process listens to, and those that it rings. Thread-safe."""

    def __init__(self, folder: Path, heard: Callable[[], None]) -> None:
        self._folder = folder
        self._heard = heard
        self._name = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock = threading.Lock()
        self._handle = -1
        self._closed = False
        self._thread: threading.Thread | None = None

    def listen(self) -> None:
        """Call ``heard`` from here on when another process rings. Idempotent; where no bell can be made, nothing."""
        with self._lock:
            if self._thread is not None or self._closed:
                return
            with contextlib.suppress(OSError, AttributeError):  # the last to leave may take the folder in this moment
                self._handle = self._make()
                self._thread = threading.Thread(target=self._listen, name="stepwell-bell", daemon=True)
                self._thread.start()

    def _make(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f".{self._name}"
        os.mkfifo(fresh)
        try:
            # For writing, too, or it would be at its end as soon as the first who rings has left. Not to be found
            # before somebody listens: a bell without a listener is taken away.
            handle = os.open(fresh, os.O_RDWR | os.O_CLOEXEC)
            fresh.rename(self._folder / self._name)
        except BaseException:
            fresh.unlink()
            raise
        return handle

    def _listen(self) -> None:
        while os.read(self._handle, 4096) and not self._closed:
            self._heard()
            time.sleep(APART)

    def ring(self) -> None:
        """Wake every other process that listens. Never waits, never raises."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - a quarter of the time, and nobody listens mostly
        except OSError:
            return
        for name in names:
            if name != self._name and not name.startswith("."):
                with contextlib.suppress(OSError):
                    self._ring(str(self._folder / name))

    def _ring(self, path: str) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ENXIO:  # its process was killed
                Path(path).unlink(missing_ok=True)
            return
        try:
            os.write(handle, b"!")
        finally:
            os.close(handle)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        with self._lock:
            self._closed = True
            thread, self._thread = self._thread, None
        if thread is None:
            return
        with contextlib.suppress(OSError):
            os.write(self._handle, b"!")
        if thread is not threading.current_thread():
            thread.join()
        os.close(self._handle)
        with contextlib.suppress(OSError):
            (self._folder / self._name).unlink()
            self._folder.rmdir()  # if it was the last
