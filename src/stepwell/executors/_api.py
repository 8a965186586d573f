"""The seam of executors."""

from __future__ import annotations

from typing import Any, Protocol

from stepwell.errors import UsageError


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
