"""Time that a test owns."""

from __future__ import annotations

import threading

from stepwell.errors import UsageError

START = 1_700_000_000_000_000
"""Where a virtual wall clock begins unless told otherwise: 2023-11-14 22:13:20 UTC, in microseconds since 1970."""


class VirtualClock:
    """A host's clocks, which stand still until they are moved. Thread-safe.

    ``start`` is the wall clock's first reading in microseconds since 1970 UTC. The monotonic clock begins at 1,000
    seconds, since code that takes 0 for "never" should not pass by luck. Fractions of a microsecond are rounded.
    """

    def __init__(self, start: int = START) -> None:
        self._lock = threading.Lock()
        self._wall = start
        self._mono = 1_000_000_000

    def __repr__(self) -> str:
        return f"<VirtualClock wall {self._wall} µs, monotonic {self.monotonic():.6f} s>"

    def now(self) -> int:
        """Wall clock: microseconds since 1970 UTC."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds on the clock that never steps."""
        return self._mono / 1_000_000

    def advance(self, seconds: float) -> None:
        """Let time pass, on both clocks.

        Raises:
            UsageError: ``seconds`` is negative; only a wall clock goes back (`step_wall`).
        """
        if seconds < 0:
            raise UsageError(f"time does not pass backwards ({seconds} seconds): use step_wall to set a clock back")
        step = round(seconds * 1_000_000)
        with self._lock:
            self._wall += step
            self._mono += step

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as a person or NTP does; the monotonic clock is as it was."""
        with self._lock:
            self._wall += round(seconds * 1_000_000)
