"""The loggers of contexts and steps (durable.md §15)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import logging

    from stepwell.durable.types import LoggerInterface

__all__ = ["Logger"]

Sink = Callable[[int, str, float], None]
"""Keeps one line beside a step: level, text, and seconds since the epoch."""

current_sink: ContextVar[Sink | None] = ContextVar("stepwell_sink", default=None)
"""Where the lines go that are logged here. Set while a step's body runs."""

_DEBUG, INFO, _WARNING, _ERROR = 10, 20, 30, 40  # as in `logging`, which is imported with the first line
_NAMES = {_DEBUG: "debug", INFO: "info", _WARNING: "warning", _ERROR: "error"}
_backends: list[logging.Logger] = []


class Redacts(Protocol):
    """Masks secrets: `stepwell.serde.Redactor`."""

    @property
    def active(self) -> bool:
        """Whether there is anything to mask."""
        ...

    def redact(self, text: str) -> str:
        """The text without them."""
        ...

    def redact_value(self, value: Any) -> Any:
        """The value without them."""
        ...


class Logger:
    """Logs for one context or one step.

    Lines go to ``logging.getLogger("stepwell.run")`` or to what ``set_logger`` gave, with the place in the run as
    ``extra``; those of a step, level INFO up, are also kept beside it. Lines of a context that replays are dropped.
    Secrets that the run knows are masked before any handler sees the line.
    """

    __slots__ = ("_backend", "_extra", "_is_replaying", "_redactor")

    def __init__(
        self,
        extra: Mapping[str, object] | Callable[[], Mapping[str, object]],
        *,
        backend: LoggerInterface | None = None,
        is_replaying: Callable[[], bool] | None = None,
        redactor: Redacts | None = None,
    ) -> None:
        self._extra = extra
        self._backend = backend
        self._is_replaying = is_replaying
        self._redactor = redactor

    def debug(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log at DEBUG. ``args`` are put into ``msg`` by ``%``; ``extra`` is added to the record and wins."""
        self._log(_DEBUG, msg, args, extra)

    def info(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log at INFO. ``args`` are put into ``msg`` by ``%``; ``extra`` is added to the record and wins."""
        self._log(INFO, msg, args, extra)

    def warning(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log at WARNING. ``args`` are put into ``msg`` by ``%``; ``extra`` is added to the record and wins."""
        self._log(_WARNING, msg, args, extra)

    def error(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log at ERROR. ``args`` are put into ``msg`` by ``%``; ``extra`` is added to the record and wins."""
        self._log(_ERROR, msg, args, extra)

    def exception(self, msg: object, *args: object, extra: Mapping[str, object] | None = None) -> None:
        """Log at ERROR, with the exception that is being handled."""
        self._log(_ERROR, msg, args, extra, sys.exc_info())

    def with_is_replaying(self, is_replaying: Callable[[], bool]) -> Logger:
        """The same logger with another rule: lines are dropped while ``is_replaying()`` is true."""
        return Logger(self._extra, backend=self._backend, is_replaying=is_replaying, redactor=self._redactor)

    def with_backend(self, backend: LoggerInterface | None) -> Logger:
        """The same logger with another backend; None: ``logging.getLogger("stepwell.run")``."""
        return Logger(self._extra, backend=backend, is_replaying=self._is_replaying, redactor=self._redactor)

    def _log(
        self, level: int, msg: object, args: tuple[object, ...], extra: Mapping[str, object] | None, error: Any = None
    ) -> None:
        if self._is_replaying is not None and self._is_replaying():
            return
        from stepwell.durable import _capture

        known = self._extra() if callable(self._extra) else self._extra
        merged = {**known, **(extra or {})}
        redactor = self._redactor if self._redactor is not None and self._redactor.active else None
        if error is not None and error[0] is None:
            error = None
        sink = current_sink.get() if level >= INFO else None
        if sink is not None:
            line = _capture.line_of(msg, args, error)
            sink(level, redactor.redact(line) if redactor is not None else line, _capture.now())
        if redactor is not None:
            msg, args, merged = redactor.redact(_capture.text_of(msg, args)), (), redactor.redact_value(merged)
        token = current_sink.set(None)  # it is kept already
        try:
            self._send(level, msg, args, merged, error, redactor)
        finally:
            current_sink.reset(token)

    def _send(
        self,
        level: int,
        msg: object,
        args: tuple[object, ...],
        extra: dict[str, object],
        error: Any,
        redactor: Redacts | None,
    ) -> None:
        backend: Any = self._backend or _default_backend()
        from stepwell.durable import _capture

        if _capture.is_standard(backend):
            _capture.emit(backend, level, msg, args, extra, error, redactor)
            return
        if error is not None and redactor is None:
            backend.exception(msg, *args, extra=extra)
            return
        if error is not None and redactor is not None:
            # The backend would format the exception itself, secrets and all.
            msg = f"{msg}\n{redactor.redact(_capture.traceback_of(error))}"
        getattr(backend, _NAMES[level])(msg, *args, extra=extra)


def _default_backend() -> logging.Logger:
    if not _backends:
        from logging import getLogger

        _backends.append(getLogger("stepwell.run"))
    return _backends[0]
