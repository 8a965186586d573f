"""How far a run has come: Σ weight·fraction / Σ known weights, and never back again (durable.md §5.6).

Kept by `fold`, record by record, so that every reader of a journal sees the same. A step weighs what it was given (1 by
default), waits and the recorded world nothing, a scope what is inside it. What is known of the rest:

- a scope whose code has not returned holds at least one more step, or a run would be done after its first one;
- a map or parallel holds its ``total`` of branches; one that has not begun, or has nothing inside, counts 1.

Work that nobody knew of makes the fraction smaller: what is shown is the highest that was reached. Only success is
100 %; a run that ends otherwise, and one that is rolled back, keeps what it had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from stepwell.core._keys import parent_of
from stepwell.core._records import RunSucceeded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stepwell.core._state import Op, RunState

_UNDO = "undo/"


class _Part:
    """A scope: what is known inside it, and done of that. ``known``, ``done``: what it adds to the scope around it.

    ``state`` virtual: it has no records, so that nobody is told when it begins or ends.
    """

    __slots__ = (
        "begun", "done", "inner_done", "inner_known", "known", "least", "parent", "state", "told", "total", "weight",
    )  # fmt: skip

    def __init__(self, parent: _Part | None, least: float, state: Literal["open", "virtual"]) -> None:
        self.parent = parent
        self.least = least
        self.state: Literal["open", "virtual", "ended"] = state
        self.total: int | None = None
        self.begun = 0
        """Branches that have begun."""
        self.weight: float | None = None
        self.told = 0.0
        """What the code in it says of it."""
        self.inner_known = self.inner_done = self.known = self.done = 0.0

    def add(self, known: float, done: float) -> None:
        """Something inside has changed by so much; all scopes around are told."""
        part = self
        while part.parent is not None:
            part.inner_known += known
            part.inner_done += done
            before = part.known, part.done
            part.known, part.done = part._counted()
            known, done = part.known - before[0], part.done - before[1]
            part = part.parent
        part.inner_known += known
        part.inner_done += done

    def _counted(self) -> tuple[float, float]:
        known, done = self.inner_known, self.inner_done
        if self.state == "ended":
            known = done = max(known, self.least)
        elif self.total is not None:
            known += max(0, self.total - self.begun)
        elif self.state == "open":
            known = max(known, done + 1.0)
        else:
            known = max(known, self.least)
        if self.told:
            done = max(done, self.told * known)
        if self.weight is None:
            return known, done
        return self.weight, self.weight * (done / known if known else float(self.state == "ended"))


class Reached:
    """What the records of a run say of its progress. Only `fold` and `tell` write to it."""

    __slots__ = ("_parts", "_root", "_told", "mark")

    def __init__(self) -> None:
        self.mark = 0.0
        """The highest fraction that was reached."""
        self._clear()

    def _clear(self) -> None:
        self._root = _Part(None, 0.0, "open")
        self._parts: dict[str, _Part] = {}
        self._told: dict[str, float] = {}

    def _look(self) -> None:
        """Something was done: it may be more than was ever reached."""
        root = self._root
        done, known = root.inner_done, root.inner_known
        reached = done / (max(done + 1.0, known))
        self.mark = max(self.mark, reached)

    def _part(self, key: str) -> _Part:
        if not key:
            return self._root
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = self._new(key, "virtual")
        return part

    def _new(self, key: str, state: Literal["open", "virtual"]) -> _Part:
        parent, is_branch = self._part(parent_of(key)), key.endswith("]")
        parent.begun += is_branch
        return _Part(parent, 1.0 if is_branch or state == "open" else 0.0, state)

    def step_begun(self, key: str, weight: float | None) -> None:
        """A step is on record for the first time."""
        known = 1.0 if weight is None else weight
        if "/" not in key:  # most of all there are
            self._root.inner_known += known
        elif not key.startswith(_UNDO):
            self._part(parent_of(key)).add(known, 0.0)

    def scope_begun(self, key: str, total: int | None, weight: float | None) -> None:
        """A scope began, or begins anew."""
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = self._new(key, "open")
        part.state, part.total, part.weight = "open", total, weight
        part.add(0.0, 0.0)

    def ended(self, op: Op) -> None:
        """A step or a scope has ended, however."""
        part = self._parts.get(op.key) if self._parts else None
        if part is not None:
            part.state = "ended"
            part.add(0.0, 0.0)
        elif op.attempt:
            self._step_ended(op.key, 1.0 if op.weight is None else op.weight)
        self._look()

    def _step_ended(self, key: str, weight: float) -> None:
        done = weight * (1.0 - self._told.pop(key, 0.0)) if self._told else weight
        if "/" not in key:
            self._root.inner_done += done
        elif not key.startswith(_UNDO):
            self._part(parent_of(key)).add(0.0, done)

    def told(self, key: str, op: Op | None, fraction: float) -> None:
        """A running step, or code in a scope, says how far it is. What says less than before is not heard."""
        fraction = min(1.0, fraction)
        part = self._parts.get(key)
        if not key:
            self.mark = max(self.mark, fraction)
        elif part is not None:
            part.told = max(part.told, fraction)
            part.add(0.0, 0.0)
        elif op is not None and op.attempt and not op.ended and not key.startswith(_UNDO):
            before = self._told.get(key, 0.0)
            if fraction > before:
                self._told[key] = fraction
                weight = 1.0 if op.weight is None else op.weight
                self._part(parent_of(key)).add(0.0, (fraction - before) * weight)
        self._look()

    def count_anew(self, ops: Iterable[Op]) -> None:
        """Some of what had ended is asked for again. What was reached stays."""
        scopes = {key for key, part in self._parts.items() if part.state != "virtual"}
        self._clear()
        for op in ops:
            if op.key in scopes:
                self.scope_begun(op.key, op.total, op.weight)
            elif op.attempt:
                self.step_begun(op.key, op.weight)
            if op.ended:
                self.ended(op)


def progress(run: RunState) -> float:
    """Fraction of the known work that is done, 0 to 1."""
    return 1.0 if isinstance(run.end, RunSucceeded) else min(1.0, run.reached.mark)


def tell(run: RunState, key: str, fraction: float) -> None:
    """A step that runs, or the code of a scope, has said how far it is: a note, folded in its place among records."""
    run.reached.told(key, run.ops.get(key), fraction)
