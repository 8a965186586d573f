"""A coroutine on the engine's loop, for a thread that waits for its end: an async body in a sync run."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio


class OnLoop:
    """It runs from here on, in a copy of the caller's context. Other threads may cancel it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Any) -> None:
        self._loop = loop
        self._work = work
        self._end: Future[Any] = Future()
        self._task: asyncio.Task[Any] | None = None
        loop.call_soon_threadsafe(self._begin)

    def result(self) -> Any:
        """Block until it has ended, also where it was cancelled: its last line has run then.

        Raises:
            concurrent.futures.CancelledError: it was cancelled.
        """
        return self._end.result()

    def cancel(self) -> None:
        """Cancel it, as a task is cancelled. Harmless after its end."""
        try:
            self._loop.call_soon_threadsafe(self._cancel)
        except RuntimeError:
            pass  # the loop is closed, and everything on it has ended

    def _begin(self) -> None:
        self._task = self._loop.create_task(_awaited(self._work))
        self._task.add_done_callback(self._ended)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._end.set_exception(CancelledError())
        elif (error := task.exception()) is not None:
            self._end.set_exception(error)
        else:
            self._end.set_result(task.result())


async def _awaited(work: Any) -> Any:
    return await work
