"""`ParallelSteps`: steps that run side by side, each on a copy of the context."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from stepwell.pipeline.steps.base import BaseStep, C, StepResult


class ParallelSteps(BaseStep[C]):
    """A group of steps that run in threads (async ones in the loop), each on a copy of the context as it was when the
    group began. What they changed is merged in the order in which they are given.

    Args:
        name: of the group.
        steps: the members; their names are unique in the registry.
        max_workers: how many run at a time; default all.

    Raises:
        TypeError: a member is no `BaseStep`, or a group itself.
        ValueError: there are no members, two have one name, or ``max_workers`` is below 1.
    """

    def __init__(self, name: str, steps: Sequence[BaseStep[C]], *, max_workers: int | None = None) -> None:
        self._name = name
        self.steps: tuple[BaseStep[C], ...] = tuple(steps)
        self.max_workers = max_workers
        seen: set[str] = set()
        for step in self.steps:
            given: object = step
            if not isinstance(given, BaseStep):
                message = f"expected a BaseStep, got {type(given).__name__}"
                raise TypeError(message)
            refuse_group(step, "a group")
            if step.name in seen:
                message = f"Step '{step.name}' is already registered"
                raise ValueError(message)
            seen.add(step.name)
        if not self.steps:
            message = f"group '{name}' has no steps"
            raise ValueError(message)
        if max_workers is not None and max_workers < 1:
            message = f"max_workers must be at least 1, got {max_workers}"
            raise ValueError(message)

    @property
    def name(self) -> str:
        """What the group is called."""
        return self._name

    @property
    def progress_weight(self) -> float:
        """Sum of the members' weights."""
        return math.fsum(step.progress_weight for step in self.steps)

    def execute(self, context: C) -> StepResult:
        """Raises `TypeError`: a group is executed by an Orchestrator only."""
        message = f"group '{self._name}' is executed by an Orchestrator"
        raise TypeError(message)


def refuse_group(step: BaseStep[Any], where: str) -> None:
    """Raise `TypeError` if it is a group: there is none inside ``where``."""
    if isinstance(step, ParallelSteps):
        message = f"group '{step.name}' cannot be inside {where}"
        raise TypeError(message)
