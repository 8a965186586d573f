"""Steps in processes of their own: one process an attempt at a time, kept for the next one.

A child ends when its parent does, however that ends: it waits on a pipe whose other end only the parent holds.
"""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from typing import TYPE_CHECKING, Any

from stepwell.errors import StepInterruptedError, StepTimeoutError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnContext, SpawnProcess


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
        data = pickle.dumps((func, args, kwargs))
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        if worker is None or not worker.process.is_alive():
            worker = _Worker(self._context)
        try:
            worker.pipe.send_bytes(data)
            if not worker.pipe.poll(timeout):
                worker.kill()
                message = f"step '{name}' timed out after {timeout:g} s; its process was killed"
                raise StepTimeoutError(message)
            ok, value = pickle.loads(worker.pipe.recv_bytes())  # noqa: S301 - from our own child
        except (EOFError, OSError) as error:
            worker.kill()
            code = worker.process.exitcode
            message = f"the process of step '{name}' died (exit code {code}); it may or may not have run"
            raise StepInterruptedError(message) from error
        self._put_back(worker)
        if ok:
            return value
        raise value

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


def serve(pipe: Connection[Any, Any]) -> None:
    """The child: answer calls until the parent is gone."""
    while True:
        try:
            func, args, kwargs = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our own parent
        except EOFError:
            return
        try:
            answer = (True, func(*args, **kwargs))
        except Exception as error:
            answer = (False, error)
        pipe.send_bytes(_packed(answer))


def _packed(answer: tuple[bool, Any]) -> bytes:
    try:
        data = pickle.dumps(answer)
        pickle.loads(data)  # noqa: S301 - our own
    except Exception as error:
        what = f"{type(answer[1]).__name__}: {answer[1]}" if not answer[0] else repr(type(answer[1]))
        return pickle.dumps((False, RuntimeError(f"cannot be sent back from the process: {what} ({error})")))
    return data
