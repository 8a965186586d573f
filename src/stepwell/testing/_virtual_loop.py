"""An asyncio loop whose time is a `VirtualClock` and which never sleeps: where it would, time jumps."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.testing._clock import VirtualClock


class _Selector(selectors.SelectSelector):
    """Looks at what is there, and lets time jump instead of waiting."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock
        self.on_idle: Callable[[], bool] = _never
        self.on_stuck: Callable[[], bool] = _never

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; else let time pass by ``timeout``."""
        if timeout == 0:
            return super().select(0)
        if self.on_idle():
            return super().select(0)
        # What other threads told the loop meanwhile lies in its pipe.
        found = super().select(0)
        if found:
            return found
        if timeout is not None:
            self._clock.advance(max(timeout, 0.000001))
        elif not self.on_stuck():
            raise AssertionError("every task of the simulation waits, and nothing can end that")
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module. ``on_idle`` is asked before time jumps, and says whether it changed anything; ``on_stuck`` where
    no time is left to jump to. ``owner`` says whose a task is that is made here.
    """

    def __init__(self, clock: VirtualClock, owner: Callable[[], Any]) -> None:
        self._virtual = clock
        self._looking = _Selector(clock)
        super().__init__(self._looking)
        vars(self)["_clock_resolution"] = 0.000001
        self._owner = owner
        self._owners: WeakKeyDictionary[asyncio.Task[Any], Any] = WeakKeyDictionary()
        self.set_task_factory(self._make)
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        """Seconds on the virtual monotonic clock."""
        return self._virtual.monotonic()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call it here and now: what threads did would depend on the machine's mood, and so would time."""
        future: asyncio.Future[Any] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def watch(self, on_idle: Callable[[], bool], on_stuck: Callable[[], bool]) -> None:
        """Ask these before time jumps, and where it cannot."""
        self._looking.on_idle, self._looking.on_stuck = on_idle, on_stuck

    def _make(self, _loop: Any, work: Any, **named: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=self, **named)
        self._owners[task] = self._owner()
        return task

    def end_of(self, owner: Any) -> list[asyncio.Task[Any]]:
        """Cancel what is left of this owner's tasks."""
        left = [task for task, whose in self._owners.items() if whose is owner and not task.done()]
        for task in left:
            task.cancel()
        return left


def _never() -> bool:
    return False
