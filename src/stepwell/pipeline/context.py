"""`RuntimeContext`: logger, environment and clients of a pipeline, and what it said of itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stepwell.pipeline._sink import sink_of

LEVELS = logging.getLevelNamesMapping()


@dataclass(eq=False)
class RuntimeContext:
    """What a pipeline gets from its surroundings. Every field is optional; nothing of it is ever recorded.

    While an Orchestrator runs with it, its events, progress and metrics are kept beside that run.

    Args:
        logger: where events are logged; default ``logging.getLogger("stepwell.pipeline")``.
        env: default ``os.environ``.
        client: any object for the steps.
        clients: more of them, by name.
        job_id: what the surroundings call this job.
        checkpoint: any object for the steps.
    """

    logger: logging.Logger | None = None
    env: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    client: Any = field(default=None, repr=False)
    clients: dict[str, Any] = field(default_factory=dict, repr=False)
    job_id: Any = None
    checkpoint: Any = None

    def __post_init__(self) -> None:
        self._progress: dict[str | None, tuple[int, int, float]] = {}
        self._metrics: dict[str | None, dict[str, Any]] = {}

    def log(self, event: str, data: Mapping[str, Any], file: str | None = None, level: str = "info") -> None:
        """Say that something happened.

        Args:
            event: its name.
            data: what is to be known of it.
            file: the file it is about.
            level: of the log line: ``debug info warning error critical``.

        Raises:
            TypeError: ``data`` is no mapping.
            ValueError: there is no such level.
        """
        data = checked_data(data)
        number = LEVELS.get(level.upper())
        if number is None:
            message = f"level must be one of debug, info, warning, error, critical, got {level!r}"
            raise ValueError(message)
        sink, mine = sink_of(self)
        shown = dict(data)
        if sink is not None:
            shown = sink.masked(shown)
            if mine:
                sink.event(event, data, file)
        logger = self.logger if self.logger is not None else logging.getLogger("stepwell.pipeline")
        logger.log(number, "%s %s%s", event, shown, f" ({file})" if file else "")

    def log_message(self, text: str, level: str = "info") -> None:
        """The event ``message`` with this text."""
        self.log("message", {"content": text}, level=level)

    def set_progress(self, current: int, total: int, category: str | None = None) -> None:
        """How far ``category`` has come.

        Raises:
            ValueError: unless ``total > 0 and 0 <= current <= total``.
        """
        percent = checked_percent(current, total)
        self._progress[category] = (current, total, percent)
        sink, mine = sink_of(self)
        if sink is not None and mine:
            sink.progress(category, current, total, percent)

    def set_metrics(self, value: Mapping[str, Any], category: str | None = None) -> None:
        """Merge these into the metrics of ``category``.

        Raises:
            TypeError: ``value`` is no mapping.
        """
        value = checked_data(value, "metrics")
        self._metrics.setdefault(category, {}).update(value)
        sink, mine = sink_of(self)
        if sink is not None and mine:
            sink.metrics(category, value)

    @property
    def progress(self) -> dict[str | None, tuple[int, int, float]]:
        """By category: ``(current, total, percent)``, percent with two decimals."""
        return dict(self._progress)

    @property
    def metrics(self) -> dict[str | None, dict[str, Any]]:
        """By category: all that was set, the latest value of each name."""
        return {category: dict(values) for category, values in self._metrics.items()}


def checked_data(data: Any, what: str = "data") -> Mapping[str, Any]:
    """Raise `TypeError` unless it is a mapping."""
    if not isinstance(data, Mapping):
        message = f"{what} must be a mapping, got {type(data).__name__}"
        raise TypeError(message)
    checked: Mapping[str, Any] = data
    return checked


def checked_percent(current: int, total: int) -> float:
    """The percentage, two decimals. Raises `ValueError` unless ``total > 0 and 0 <= current <= total``."""
    if not (total > 0 and 0 <= current <= total):
        message = f"progress needs total > 0 and 0 <= current <= total, got {current} of {total}"
        raise ValueError(message)
    return round(100 * current / total, 2)
