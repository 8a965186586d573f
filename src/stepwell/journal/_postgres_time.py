"""The store's time: the server's clock, carried on by this process's monotonic one (ENGINE.md §1)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stepwell.journal._api import Clock


class StoreTime:
    """The host's wall clock is never looked at: two workers whose clocks are an hour apart agree on what is due."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._sampled = 0
        self._at = 0.0
        self._latest = 0

    def monotonic(self) -> float:
        """This process's monotonic clock, for `sample`."""
        return self._clock.monotonic()

    def sample(self, server: int, asked: float, answered: float) -> None:
        """The server said this between these two monotonic times; it is taken to have looked in the middle."""
        with self._lock:
            self._sampled = server
            self._at = (asked + answered) / 2

    def now(self) -> int:
        """Microseconds since 1970 UTC. Stands still where the server's clock was set back; never goes back."""
        with self._lock:
            now = self._sampled + round((self._clock.monotonic() - self._at) * 1_000_000)
            self._latest = max(self._latest, now)
            return self._latest
