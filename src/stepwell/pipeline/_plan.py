"""The steps of a run, as they were when it began: names and weights are asked once; and the arithmetic of progress."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepwell.durable._door import key_of
from stepwell.pipeline.steps.base import BaseStep
from stepwell.pipeline.steps.group import ParallelSteps
from stepwell.pipeline.steps.registry import check_step
from stepwell.pipeline.steps.utils._wrapper import innermost


@dataclass(frozen=True)
class Unit:
    """One step: alone, or a member of a group."""

    step: BaseStep[Any]
    name: str
    weight: float
    key: str
    group: str | None = None

    def overrides(self, method: str) -> bool:
        """Whether the class inside all wrappers has this method of its own."""
        return getattr(type(innermost(self.step)), method) is not getattr(BaseStep, method)


@dataclass(frozen=True)
class Group:
    """Steps side by side."""

    name: str
    key: str
    members: tuple[Unit, ...]
    max_workers: int | None


Part = Unit | Group


class Plan:
    """The steps in order.

    Raises:
        TypeError, ValueError: a step cannot be used, or two have one name.
    """

    def __init__(self, steps: Sequence[BaseStep[Any]]) -> None:
        self.parts: list[Part] = []
        taken: set[str] = set()
        for step in steps:
            check_step(step)
            name = step.name
            _claim(taken, name)
            if isinstance(step, ParallelSteps):
                members = []
                for member in step.steps:
                    own = member.name
                    _claim(taken, own)
                    members.append(Unit(member, own, member.progress_weight, key_of(name, own), name))
                self.parts.append(Group(name, key_of(name), tuple(members), step.max_workers))
            else:
                self.parts.append(Unit(step, name, step.progress_weight, key_of(name)))
        self.units: list[Unit] = [
            u for part in self.parts for u in (part.members if isinstance(part, Group) else [part])
        ]

    def shown(self) -> list[list[Any]]:
        """As it is recorded: ``[name, weight]``, and for a group a third entry, its members'."""
        return [
            [p.name, math.fsum(m.weight for m in p.members), [[m.name, m.weight] for m in p.members]]
            if isinstance(p, Group)
            else [p.name, p.weight]
            for p in self.parts
        ]


def _claim(taken: set[str], name: str) -> None:
    if name in taken:
        message = f"Step '{name}' is already registered"
        raise ValueError(message)
    taken.add(name)


class ExactSum:
    """`math.fsum` of what was added so far, without adding all of it again each time.

    Kept as numbers that do not overlap and whose sum is exact (Shewchuk, Adaptive Precision Floating-Point Arithmetic,
    1997); there are few of them.
    """

    def __init__(self) -> None:
        self._parts: list[float] = []

    def add(self, number: float) -> None:
        """One more."""
        kept = []
        for part in self._parts:
            large, small = (number, part) if abs(number) >= abs(part) else (part, number)
            number = large + small
            if rest := small - (number - large):
                kept.append(rest)
        self._parts = [*kept, number]

    @property
    def value(self) -> float:
        """The sum, rounded once."""
        return math.fsum(self._parts)


class Progress:
    """How far a run has come, in whole percent."""

    def __init__(self, weights: Sequence[float]) -> None:
        self.total = math.fsum(weights)
        self._left = len(weights)
        self._done = ExactSum()
        self.percent = 0

    def step_done(self, weight: float) -> int | None:
        """One more has ended: the percentage for the callback, never less than before; None if nothing has weight."""
        self._done.add(weight)
        self._left -= 1
        if self.total <= 0:
            return None
        if self._left <= 0:
            self.percent = 100
        else:
            reached = min(100, int(100 * self.fraction() + 1e-9))
            self.percent = max(self.percent, reached)
        return self.percent

    def fraction(self, more: float = 0.0) -> float:
        """The part that is done, 0 to 1; ``more``: weight that is done beyond whole steps."""
        return 0.0 if self.total <= 0 else min(1.0, (self._done.value + more) / self.total)
