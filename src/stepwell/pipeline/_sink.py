"""Where events, progress and metrics of a pipeline go that runs: beside its run, each exactly once.

An event may come through the step's context or straight through the runtime context, and a step's context calls the
runtime context itself. Whoever comes first keeps it; what it calls meanwhile finds ``quiet`` set and only logs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol


class Sink(Protocol):
    """The side of a run that hears what its pipeline says of itself."""

    def event(self, event: str, data: Mapping[str, Any], file: str | None) -> None:
        """Something happened."""

    def progress(self, category: str | None, current: int, total: int, percent: float) -> None:
        """How far it has come."""

    def metrics(self, category: str | None, value: Mapping[str, Any]) -> None:
        """Figures."""

    def masked(self, value: Any) -> Any:
        """The value without the run's secrets."""


_quiet: ContextVar[bool] = ContextVar("stepwell_pipeline_quiet", default=False)
_current: ContextVar[Sink | None] = ContextVar("stepwell_pipeline_sink", default=None)
_bound: dict[int, list[Sink]] = {}
"""Runs under way, by the identity of their runtime context: threads that a body starts have no context variables."""


@contextmanager
def bound(runtime: object, sink: Sink) -> Iterator[None]:
    """While an Orchestrator runs, what this runtime context says belongs to its run."""
    sinks = _bound.setdefault(id(runtime), [])
    sinks.append(sink)
    token = _current.set(sink)
    try:
        yield
    finally:
        _current.reset(token)
        sinks.remove(sink)
        if not sinks:
            _bound.pop(id(runtime), None)


@contextmanager
def speaking(sink: Sink) -> Iterator[None]:
    """What this thread or task says belongs to this run."""
    token = _current.set(sink)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def quiet() -> Iterator[None]:
    """What is said meanwhile was kept already."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def sink_of(runtime: object) -> tuple[Sink | None, bool]:
    """The run that this runtime context speaks for now, and whether what it says is still to be kept."""
    sinks = _bound.get(id(runtime))
    if not sinks:
        return None, False
    current = _current.get()
    return (current if current in sinks else sinks[-1]), not _quiet.get()
