"""An asyncio loop whose time is a `VirtualClock` and which never sleeps: where it would, time jumps."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.testing._clock import VirtualClock


class Stuck(BaseException):
    """Every task waits, and nothing can end that."""


class _Selector(selectors.SelectSelector):
    """Looks at what is there, and lets time jump instead of waiting."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.on_idle: Callable[[], bool] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; else let time pass by ``timeout``."""
        found = super().select(0)
        if found or timeout == 0:
            return found
        if self.on_idle is not None and self.on_idle():
            return super().select(0)
        if timeout is None:
            raise Stuck
        self._clock.advance(max(timeout, 0.000001))
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. ``on_idle`` is asked before time jumps, and says whether it changed anything."""

    def __init__(self, clock: VirtualClock) -> None:
        self._virtual = clock
        self._looking = _Selector(clock)
        super().__init__(self._looking)
        vars(self)["_clock_resolution"] = 0.000001

    def time(self) -> float:
        """Seconds on the virtual monotonic clock."""
        return self._virtual.monotonic()

    def watch(self, on_idle: Callable[[], bool] | None) -> None:
        """Ask this before time jumps."""
        self._looking.on_idle = on_idle

    def end_tasks(self) -> None:
        """Cancel what is left over and let it end."""
        left: set[asyncio.Task[Any]] = asyncio.all_tasks(self)
        for task in left:
            task.cancel()
        if left:
            self.run_until_complete(asyncio.gather(*left, return_exceptions=True))
