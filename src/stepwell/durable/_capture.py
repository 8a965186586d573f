"""Lines beside the step: what any logger says inside a step's body, kept as text.

They are caught where `logging` makes its records (its record factory, which is meant for that), and not by a handler
on the root logger: a handler there would turn ``logging.basicConfig()`` of the user's program into a no-op and silence
the warnings that Python prints when nothing is configured. What a program's levels suppress makes no record and is not
kept. Only imported with the first step that keeps lines, or the first line that is logged.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from time import time as now
from typing import TYPE_CHECKING, Any

from stepwell.durable.logger import INFO, current_sink
from stepwell.serde import current_redactor

if TYPE_CHECKING:
    from stepwell.durable.logger import Redacts

__all__ = ["LIMIT", "StepLines", "emit", "install", "is_standard", "line_of", "now", "text_of", "traceback_of"]

LIMIT = 1 << 20
"""Bytes of text that are kept for one step; further lines are only counted."""


class StepLines:
    """The lines of one step, in order: ``(level, text, seconds since the epoch)``. To be set as ``current_sink``."""

    # Defaults of the class, since nearly all steps keep no line.
    lines: Sequence[tuple[int, str, float]] = ()
    dropped: int = 0
    """Lines for which there was no room."""
    _room = LIMIT

    def __call__(self, level: int, text: str, at: float) -> None:
        """Keep a line, or count it once there is no room for one."""
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        if self.dropped or size > self._room:
            self.dropped += 1
            return
        self._room -= size
        if not isinstance(self.lines, list):
            self.lines = []
        self.lines.append((level, text, at))


_KEPT = "stepwell_kept"
_lock = threading.Lock()
_installed: Any = None


def install() -> None:
    """Catch records from now on. Cheap to call again; catches anew where a program has set its own factory since."""
    global _installed  # noqa: PLW0603  one factory per process
    if logging.getLogRecordFactory() is _installed:
        return
    with _lock:
        make = logging.getLogRecordFactory()
        if make is _installed:
            return

        def make_and_keep(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make(*args, **kwargs)
            sink = current_sink.get()
            # A program may have wrapped a factory of ours in its own: each record is kept once.
            if sink is not None and record.levelno >= INFO and _KEPT not in record.__dict__:
                record.__dict__[_KEPT] = True
                _keep(sink, record)
            return record

        logging.setLogRecordFactory(make_and_keep)
        _installed = make_and_keep


def _keep(sink: Any, record: logging.LogRecord) -> None:
    token = current_sink.set(None)  # what a strange message logs while it is formatted is not of the step
    try:
        line = line_of(record.msg, record.args or (), record.exc_info)
        redactor = current_redactor.get()
        if redactor is not None and redactor.active:
            line = redactor.redact(line)
        sink(record.levelno, line, record.created)
    finally:
        current_sink.reset(token)


def text_of(msg: object, args: tuple[object, ...] | Mapping[str, object]) -> str:
    """Message and arguments as `logging` puts them together; side by side where they do not fit. Never raises."""
    try:
        text = str(msg)
        if not args:
            return text
        single = args[0] if isinstance(args, tuple) and len(args) == 1 else None
        return text % (single if isinstance(single, Mapping) and single else args)
    except Exception:
        try:
            return f"{msg} {args}"
        except Exception as error:
            return f"<a message that cannot be formatted: {type(error).__name__}>"


def line_of(msg: object, args: tuple[object, ...] | Mapping[str, object], error: Any) -> str:
    """A line as it is kept: the text, and below it the exception."""
    text = text_of(msg, args)
    return f"{text}\n{traceback_of(error)}" if isinstance(error, tuple) and error[0] is not None else text


def traceback_of(error: Any) -> str:
    """An exception (as of ``sys.exc_info()``) as `logging` shows it."""
    return logging.Formatter().formatException(error)


def is_standard(backend: object) -> bool:
    """Whether records can be made for this logger, so that nothing but the record leaves here."""
    return isinstance(backend, logging.Logger)


def emit(
    backend: logging.Logger,
    level: int,
    msg: object,
    args: tuple[object, ...],
    extra: Mapping[str, object],
    error: Any,
    redactor: Redacts | None,
) -> None:
    """Log on a logger of `logging`, with the place of the caller of our own logger."""
    if not backend.isEnabledFor(level):
        return
    file, line, function, _ = backend.findCaller(False, _OUR_FRAMES)
    record = backend.makeRecord(backend.name, level, file, line, msg, args, error, function, extra)
    if redactor is not None and record.exc_info:
        # Formatters print `exc_text` where it is set; the exception itself holds the secrets.
        record.exc_text = redactor.redact(traceback_of(record.exc_info))
        record.exc_info = None
    backend.handle(record)


_OUR_FRAMES = 5
"""From `findCaller` up to the user's code: emit, _send, _log, info and the caller of that."""
