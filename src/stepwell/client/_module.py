"""`stepwell.run` and its like: one cached engine per store URL and process."""

from __future__ import annotations

import atexit
import os
import threading
from typing import TYPE_CHECKING, Any

from stepwell.client._none import NONE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stepwell.client._engine import Engine
    from stepwell.client._handle import RunHandle

_engines: dict[str, Engine] = {}
_lock = threading.Lock()


def engine_for(store: str | None = None) -> Engine:
    """The engine of this process for a store; it drives only the runs that it is asked for."""
    # Importing `run` costs nothing; calling it brings the engine.
    from stepwell.client._engine import Engine
    from stepwell.journal import store_url

    url = store_url(store)
    with _lock:
        if url not in _engines:
            _engines[url] = Engine(url)
        return _engines[url]


def _forget() -> None:
    """In a forked child every engine is dead: a use opens a new one."""
    global _lock  # noqa: PLW0603 - another thread may have held it at the fork
    _lock = threading.Lock()
    _engines.clear()


def _stop_all() -> None:
    for engine in list(_engines.values()):
        engine.stop(grace=2)
    _engines.clear()


os.register_at_fork(after_in_child=_forget)
atexit.register(_stop_all)


def run(
    fn: Any, input: Any = NONE, *, id: str | None = None, store: str | None = None,
    timeout: Any = None, tags: Sequence[str] = (), queue: str | None = None, plugins: Sequence[Any] = (),
) -> Any:  # fmt: skip
    """Start a run of a durable function, or attach to the one with this id; block; return its result.

    Args:
        fn: a `DurableFunction`, a plain function with its signature, or a registered name.
        input: the event; left out it is ``{}``, or the recorded one of a known id.
        id: 1 to 128 printable characters without spaces or ``/``; the same id never runs twice.
        store: URL; default ``STEPWELL_STORE``, else ``sqlite:///.stepwell/stepwell.db``.
        timeout: for this call's waiting only (`Duration` or seconds).
        tags: words to find the run by.
        queue: which workers may take it up.
        plugins: told of the run's lives in this process (`stepwell.durable.plugin`).

    Raises:
        RunFailed: it failed; also an instance of the class that left the handler.
        RunCancelled, RunTimedOut, RunBlocked, RollbackFailed: as it ended.
        DuplicateRun: the id belongs to another function or input.
        TimeoutError: the waiting time is over; the run goes on.
        JournalError: the store cannot be used.
    """
    return engine_for(store).run(fn, input, id=id, timeout=timeout, tags=tags, queue=queue, plugins=plugins)


async def run_async(
    fn: Any, input: Any = NONE, *, id: str | None = None, store: str | None = None,
    timeout: Any = None, tags: Sequence[str] = (), queue: str | None = None, plugins: Sequence[Any] = (),
) -> Any:  # fmt: skip
    """As `run`, for async callers; an async function is driven on their loop."""
    return await engine_for(store).run_async(fn, input, id=id, timeout=timeout, tags=tags, queue=queue, plugins=plugins)


def start(
    fn: Any, input: Any = NONE, *, id: str | None = None, store: str | None = None,
    tags: Sequence[str] = (), queue: str | None = None, plugins: Sequence[Any] = (),
) -> RunHandle:  # fmt: skip
    """Start a run and return its handle once the start is durable; this process drives it in the background."""
    return engine_for(store).start_run(fn, input, id=id, tags=tags, queue=queue, plugins=plugins)
