"""Steps in processes of their own: one process an attempt at a time, kept for the next one.

A child ends when its parent does, however that ends: it waits on a pipe whose other end only the parent holds.
"""

from __future__ import annotations

import multiprocessing
import pickle
import threading
import time
from typing import TYPE_CHECKING, Any

from stepwell.errors import StepInterruptedError, StepTimeoutError, Suspend
from stepwell.executors._api import Stopped, TimeUp, current_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnContext, SpawnProcess

    from stepwell.executors._api import Hear

RETURNED, RAISED, STOPPED = "returned", "raised", "stopped"
"""The last word of a call; all others are said while it runs."""


class _Worker:
    """One child process."""

    def __init__(self, context: SpawnContext) -> None:
        ours, theirs = context.Pipe()
        self.pipe: Connection[Any, Any] = ours
        self.process: SpawnProcess = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


class ProcessExecutor:
    """Calls functions in child processes; idle ones wait for the next call."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def call(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        timeout: float | None,
        name: str,
    ) -> Any:
        """As `Executor.call`."""
        end = None if timeout is None else time.monotonic() + timeout
        try:
            return self.converse(
                func, args, kwargs, name=name, hear=lambda _kind, _what: False,
                left=lambda: None if end is None else end - time.monotonic(),
            )  # fmt: skip
        except TimeUp:
            message = f"step '{name}' timed out after {timeout:g} s; its process was killed"
            raise StepTimeoutError(message) from None

    def converse(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *,
        name: str, left: Callable[[], float | None], hear: Hear,
    ) -> Any:  # fmt: skip
        """As `Talking.converse`."""
        data = pickle.dumps((func, args, kwargs))
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None or not worker.process.is_alive():
            worker = _Worker(self._context)
        try:
            worker.pipe.send_bytes(data)
            kind, value = _listen(worker, left, hear)
        except (EOFError, OSError) as error:
            worker.kill()
            code = worker.process.exitcode
            message = f"the process of step '{name}' died (exit code {code}); it may or may not have run"
            raise StepInterruptedError(message) from error
        except BaseException:
            worker.kill()  # its time was up, or nobody waits for it any more
            raise
        self._put_back(worker)
        if kind == RETURNED:
            return value
        raise Stopped if kind == STOPPED else value

    def _put_back(self, worker: _Worker) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(worker)
                return
        worker.kill()

    def close(self) -> None:
        """End the idle processes. Idempotent."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()


def _listen(worker: _Worker, left: Callable[[], float | None], hear: Hear) -> tuple[str, Any]:
    """How the body ended: kind and value. What it says meanwhile is answered at once."""
    while True:
        seconds = left()
        if (seconds is not None and seconds <= 0) or not worker.pipe.poll(seconds):
            if (seconds := left()) is not None and seconds <= 0:
                raise TimeUp
            continue
        kind, value = pickle.loads(worker.pipe.recv_bytes())  # noqa: S301 - from our own child
        if kind in (RETURNED, RAISED, STOPPED):
            return kind, value
        worker.pipe.send_bytes(pickle.dumps(hear(kind, value)))


class _Stop(Suspend):
    """Leaves a body that should stop: its run is cancelled, or is held by somebody else."""


class _Port:
    """In the child: the way back to the engine (`RemotePort`). Threads of the body may use it, one at a time."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def _say(self, kind: str, what: Any = None) -> bool:
        with self._lock:
            self._pipe.send_bytes(pickle.dumps((kind, what)))
            return bool(pickle.loads(self._pipe.recv_bytes()))  # noqa: S301 - from our own parent

    def heartbeat(self, details: Any) -> None:
        if self._say("heartbeat", details):
            raise _Stop

    def progress(self, done: float, total: float | None, message: str) -> None:
        self._say("progress", (done, total, message))

    def check(self) -> None:
        if self._say("check"):
            raise _Stop

    def cancelled(self) -> bool:
        return self._say("check")

    def lines(self, lines: list[tuple[int, str, float]], dropped: int) -> None:
        self._say("lines", (lines, dropped))


def serve(pipe: Connection[Any, Any]) -> None:
    """The child: answer calls until the parent is gone."""
    current_port.set(_Port(pipe))
    while True:
        try:
            func, args, kwargs = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our own parent
        except EOFError:
            return
        try:
            answer = (RETURNED, func(*args, **kwargs))
        except _Stop:
            answer = (STOPPED, None)
        except Exception as error:
            answer = (RAISED, error)
        pipe.send_bytes(_packed(answer))


def _packed(answer: tuple[str, Any]) -> bytes:
    kind, value = answer
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)  # noqa: S301 - our own
    except Exception as error:
        what = f"{type(value).__name__}: {value}" if kind == RAISED else repr(type(value))
        return pickle.dumps((RAISED, RuntimeError(f"cannot be sent back from the process: {what} ({error})")))
    return data
