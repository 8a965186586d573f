"""`StepRegistry`: the ordered steps of a pipeline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Generic, cast

from stepwell.pipeline.steps.base import BaseStep, C
from stepwell.pipeline.steps.group import ParallelSteps


class StepRegistry(Generic[C]):
    """An ordered list of steps with unique names."""

    def __init__(self) -> None:
        self._steps: list[BaseStep[C]] = []

    def register(self, step: BaseStep[C]) -> None:
        """Append a step.

        Raises:
            TypeError: it is no `BaseStep`, or its name is no text.
            ValueError: its name is empty or taken, or its weight is not a finite number >= 0.
        """
        self._place(len(self._steps), step)

    def register_group(self, name: str, steps: Sequence[BaseStep[C]], *, max_workers: int | None = None) -> None:
        """Append a `ParallelSteps` of these. Raises as `register`."""
        self.register(ParallelSteps(name, steps, max_workers=max_workers))

    def insert_after(self, name: str, step: BaseStep[C]) -> None:
        """Place a step behind the one called ``name``. A step of the same class that has the new one's name goes.

        Raises:
            ValueError: there is no step ``name``, or as `register`.
        """
        self._insert(name, step, 1)

    def insert_before(self, name: str, step: BaseStep[C]) -> None:
        """As `insert_after`, in front of it."""
        self._insert(name, step, 0)

    def unregister(self, name: str) -> bool:
        """Remove a step. Returns whether there was one with this name."""
        kept = [step for step in self._steps if step.name != name]
        removed = len(kept) < len(self._steps)
        self._steps = kept
        return removed

    def replace(self, name: str, step: BaseStep[C]) -> None:
        """Put a step in the place of the one called ``name``. Raises as `insert_after`."""
        index = self._index(name)
        check_step(step)
        self._refuse_taken(step, [s for s in self._steps if s.name != name])
        self._steps[index] = step

    def get_steps(self) -> list[BaseStep[C]]:
        """The steps in order, as a new list."""
        return list(self._steps)

    @property
    def total_weight(self) -> float:
        """Sum of the weights; 0 when empty."""
        return math.fsum(step.progress_weight for step in self._steps) if self._steps else 0

    def __len__(self) -> int:
        return len(self._steps)

    def __contains__(self, name: object) -> bool:
        return any(step.name == name for step in self._steps)

    def __iter__(self) -> Iterator[BaseStep[C]]:
        return iter(self.get_steps())

    def _place(self, index: int, step: BaseStep[C]) -> None:
        check_step(step)
        self._refuse_taken(step, self._steps)
        self._steps.insert(index, step)

    def _insert(self, name: str, step: BaseStep[C], offset: int) -> None:
        check_step(step)
        self._index(name)
        twin = next((s for s in self._steps if s.name == step.name and type(s) is type(step)), None)
        rest = [s for s in self._steps if s is not twin]
        self._refuse_taken(step, rest)
        if twin is not None and twin.name == name:  # beside itself: it stays where it is
            self._steps[self._index(name)] = step
            return
        self._steps = rest
        self._steps.insert(self._index(name) + offset, step)

    def _index(self, name: str) -> int:
        for index, step in enumerate(self._steps):
            if step.name == name:
                return index
        message = f"Step '{name}' not found"
        raise ValueError(message)

    def _refuse_taken(self, step: BaseStep[C], others: Sequence[BaseStep[C]]) -> None:
        taken = {name for other in others for name in names_of(other)}
        for name in names_of(step):
            if name in taken:
                message = f"Step '{name}' is already registered"
                raise ValueError(message)


def names_of(step: BaseStep[C]) -> list[str]:
    """Its name and those of its members."""
    if ParallelSteps not in type(step).__mro__:  # asked of all steps for each new one: `isinstance` of an ABC is slow
        return [step.name]
    group = cast("ParallelSteps[C]", step)
    return [group.name, *(member.name for member in group.steps)]


def check_step(step: object) -> None:
    """Raise unless it is a step with a usable name and weight.

    Raises:
        TypeError: it is no `BaseStep`, or its name is no text.
        ValueError: its name is empty, or its weight is not a finite number >= 0.
    """
    if not isinstance(step, BaseStep):
        message = f"expected a BaseStep, got {type(step).__name__}"
        raise TypeError(message)
    name: object = step.name
    if not isinstance(name, str):
        message = f"the name of a step must be a str, got {type(name).__name__}"
        raise TypeError(message)
    if not name:
        raise ValueError("the name of a step must not be empty")
    weight: object = step.progress_weight
    if not is_weight(weight):
        message = f"Step '{name}': progress_weight must be a finite number >= 0, got {weight!r}"
        raise ValueError(message)
    if isinstance(step, ParallelSteps):
        for member in step.steps:
            check_step(member)


def is_weight(weight: object) -> bool:
    """Whether it is a finite number >= 0."""
    if isinstance(weight, bool):
        return False
    try:
        return math.isfinite(weight) and weight >= 0  # type: ignore[arg-type,operator]  # what is no number raises
    except (TypeError, OverflowError):
        return False
