"""SIGINT on the main thread is held back while that thread writes (ENGINE.md §3)."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import FrameType

_main = threading.main_thread


class Shield:
    """Between `enter` and `leave` on the main thread a Ctrl-C waits; then it comes as it would have come.

    An interrupt between a commit and its fold would leave a record that its own life does not know of.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._pending = False
        self._before: Any = None
        self._users = 0

    def install(self) -> None:
        """Stand in front of Python's own handler; any other handler stays. Main thread only, nestable."""
        if threading.current_thread() is not _main():
            return
        self._users += 1
        if self._users == 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._on_sigint)

    def remove(self) -> None:
        """Undo `install`."""
        if threading.current_thread() is not _main():
            return
        self._users -= 1
        if self._users == 0 and self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def enter(self) -> None:
        """This thread begins to write."""
        if self._before is not None and threading.current_thread() is _main():
            self._depth += 1

    def leave(self) -> None:
        """It is done: what was held back comes now."""
        if self._depth and threading.current_thread() is _main():
            self._depth -= 1
            if self._pending and not self._depth:
                self._pending = False
                raise KeyboardInterrupt

    def _on_sigint(self, signum: int, frame: FrameType | None) -> None:
        if self._depth:
            self._pending = True
        else:
            signal.default_int_handler(signum, frame)
