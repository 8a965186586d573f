"""Pipelines: what a step costs, and what a large field of the context adds to it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stepwell.pipeline import BaseStep, BaseStepContext, Orchestrator, RuntimeContext, StepRegistry, StepResult

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell import Engine

STEPS = 1000
LARGE = 10_000_000
"""Bytes of the field that does not change."""
BESIDE = 50
"""Steps beside it."""


@dataclass
class Context(BaseStepContext):
    """One field."""

    kept: Any = None


class Empty(BaseStep[Context]):
    """Does nothing."""

    name = ""
    progress_weight = 1.0

    def __init__(self, number: int) -> None:
        self.name = f"step-{number}"

    def execute(self, context: Context) -> StepResult:
        return StepResult()


def taken(engine: Engine, steps: int, kept: Any = None) -> float:
    """Seconds from the end of the first step to that of the last."""
    registry = StepRegistry[Context]()
    for number in range(steps + 1):
        registry.register(Empty(number))
    at: list[float] = []
    context = Context(RuntimeContext(), kept)
    Orchestrator(registry, context, lambda *_: at.append(time.perf_counter()), engine=engine, name="bench").execute()
    return at[-1] - at[0]


def empty_steps(engine: Engine) -> float:
    """Steps a second."""
    return STEPS / taken(engine, STEPS)


def large_fields(engine: Engine) -> Iterator[tuple[str, float]]:
    """What 10 MB that do not change add to a step: of what, milliseconds."""
    lines = [f"{number:099}" for number in range(LARGE // 100)]
    kinds: dict[str, Any] = {"a text": "x" * LARGE, "a tuple of texts": tuple(lines), "a list of texts": lines}
    bare = min(taken(engine, BESIDE) for _ in range(3))
    for name, kept in kinds.items():
        most = min(taken(engine, BESIDE, kept) for _ in range(3))
        yield name, max(0.0, most - bare) / BESIDE * 1e3
