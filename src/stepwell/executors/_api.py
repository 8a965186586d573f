"""The seam of executors."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol

from stepwell.errors import UsageError

Hear = Callable[[str, Any], bool]
"""Called with what a body says of itself, heartbeat, progress, lines or check; True: it should stop."""


class TimeUp(Exception):
    """The attempt's time was up; what ran it was killed."""


class Stopped(Exception):
    """The body was told to stop, and did."""


class RemotePort(Protocol):
    """The engine's side of a body, where it runs in another process."""

    def heartbeat(self, details: Any) -> None:
        """The body is alive."""

    def progress(self, done: float, total: float | None, message: str) -> None:
        """How far the body has come."""

    def check(self) -> None:
        """Leave the body if it should stop."""

    def cancelled(self) -> bool:
        """Whether the body should stop."""
        ...

    def lines(self, lines: list[tuple[int, str, float]], dropped: int) -> None:
        """What its loggers said, and how many lines more."""


current_port: ContextVar[RemotePort | None] = ContextVar("stepwell_port", default=None)
"""In a process of an executor that talks with its bodies: the way back."""


class Executor(Protocol):
    """Runs functions somewhere. Thread-safe."""

    def call(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        timeout: float | None,
        name: str,
    ) -> Any:
        """Call ``func(*args, **kwargs)`` there and give its result; its exception comes out as it is.

        Raises:
            StepTimeoutError: it took longer than ``timeout`` seconds; it was killed.
            StepInterruptedError: what ran it died; it may or may not have run.
        """
        ...

    def close(self) -> None:
        """End what it started. Idempotent."""
        ...


class Talking(Protocol):
    """An executor whose bodies can say something while they run."""

    def converse(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *,
        name: str, left: Callable[[], float | None], hear: Hear,
    ) -> Any:  # fmt: skip
        """As `Executor.call`. ``left``: seconds that the attempt still has, asked again after each word of the body.

        Raises:
            TimeUp: there are none left.
            Stopped: ``hear`` said so, and the body has stopped.
            StepInterruptedError: what ran it died.
        """
        ...


def open_executor(name: str) -> Executor:
    """The executor with this name.

    Raises:
        UsageError: there is none.
    """
    if name == "process":
        from stepwell.executors._process import ProcessExecutor

        return ProcessExecutor()
    message = f"executor {name!r}: there are 'thread' and 'process', or give an executor object"
    raise UsageError(message)
