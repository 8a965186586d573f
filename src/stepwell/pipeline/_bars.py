"""What a terminal shows of a pipeline's run while it goes on: how far the whole is, by weight, how far the step under
way is, and what the steps say. In a rollback both go down again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from stepwell import serde
from stepwell.client._follow import Follower
from stepwell.client._outcome import Reader
from stepwell.client._views import eta
from stepwell.pipeline._book import UNDO, Book
from stepwell.pipeline._shown import planned
from stepwell.runtime._values import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.core import Op, RunState
    from stepwell.journal import Note, RunRow, Store

PAGE = 500


class Picture(NamedTuple):
    """How far a run is; percentages from 0 to 100.

    ``name``: of the run; ``step``: the one under way, or being undone; ``seconds_left``: None where nobody knows.
    """

    name: str
    percent: float
    step: str
    step_percent: float
    undoing: bool
    seconds_left: float | None = None


class Unit(NamedTuple):
    """A step of the plan. ``part``: the name under which its progress is shown, for a member that of its group."""

    key: str
    name: str
    weight: float
    part: str


class Sight:
    """A run, looked at again and again: each look reads only what is new.

    ``since``: microseconds; of what was said before, no event is told.
    """

    def __init__(self, store: Store, row: RunRow, since: int) -> None:
        self._since = since
        self._store = store
        self._rid = row.rid
        self._follower = Follower(store, row.id, row.rid)
        self._plan: list[Unit] = []
        self._read = {"bar": 0, "event": 0}
        self._said: dict[str, float] = {}
        self._unsaid: dict[str, float] = {}
        """By step, the fraction that it said to have done; and that its rollback said to have undone."""
        self._ended: dict[str, bool] = {}
        """By key, whether the step ended well; read once."""

    def look(self) -> Picture:
        """How far the run is now."""
        run = self._follower.look()
        if not self._plan:
            self._plan = _units(planned(self._store, run))
        self._listen(run)
        reached = {unit.key: self._level(run, unit) for unit in self._plan}
        if run.rollback is None:
            return self._forward(run, reached)
        return self._backward(run, reached)

    def events(self) -> Iterator[str]:
        """A line for each event that was not told yet."""
        for note in self._notes("event"):
            if note.at < self._since:
                continue
            event, data, file = serde.decode_lenient(note.data)
            place = f" ({file})" if file else ""
            yield f"{note.key or '-'}: {event} {serde.encode(data)}{place}"

    def _forward(self, run: RunState, reached: dict[str, float]) -> Picture:
        last = self._plan[-1].part if self._plan else ""
        name = next((unit.part for unit in self._plan if not self._ended.get(unit.key)), last)
        part = [unit for unit in self._plan if unit.part == name]
        left = eta(run, self._store.now())
        return Picture(
            run.id, _percent(self._plan, reached), name, _percent(part, reached), undoing=False, seconds_left=left
        )

    def _backward(self, run: RunState, reached: dict[str, float]) -> Picture:
        """Steps without a rollback go with the one before them that has one."""
        left = {key for key in run.undoable if not _undone(run, key)}
        now = next((unit for unit in reversed(self._plan) if unit.key in left), None)
        last = next((unit for unit in self._plan if unit.key in run.undoable), None)
        gone = now is None
        for unit in self._plan:
            if gone:
                reached[unit.key] = 0.0
            elif unit is now:
                reached[unit.key] *= 1.0 - self._unsaid.get(unit.name, 0.0)
                gone = True
        shown = now or last
        name, level = ("", 0.0) if shown is None else (shown.name, reached[shown.key])
        return Picture(run.id, _percent(self._plan, reached), name, round(100 * level, 1), undoing=True)

    def _level(self, run: RunState, unit: Unit) -> float:
        """The part of the step that is done, 0 to 1."""
        if unit.key not in self._ended:
            ended = Book(run.ops, self._text).ended(unit.key)
            if ended is not None:
                self._ended[unit.key] = ended.result.success
        return 1.0 if self._ended.get(unit.key) else self._said.get(unit.name, 0.0)

    def _text(self, op: Op) -> str:
        reader: Any = Reader(self._store)
        return text_of(reader, op.payload, op.key)

    def _listen(self, run: RunState) -> None:
        """Take in what steps and rollbacks said of themselves."""
        since = math.inf if run.rollback is None else run.rollback.at
        for note in self._notes("bar"):
            category, current, total, _ = serde.decode_lenient(note.data)
            if category == note.key:
                (self._said if note.at < since else self._unsaid)[note.key] = current / total

    def _notes(self, kind: str) -> Iterator[Note]:
        while page := self._store.note_load(self._rid, kind=kind, key=None, after=self._read[kind], limit=PAGE):
            for n, note in page:
                self._read[kind] = n
                yield note


def _undone(run: RunState, key: str) -> bool:
    op = run.ops.get(UNDO + key)
    return op is not None and op.ended


def _units(plan: list[tuple[str, str, float]]) -> list[Unit]:
    from urllib.parse import unquote

    return [Unit(key, name, weight, unquote(key.partition("/")[0])) for key, name, weight in plan]


def _percent(units: list[Unit], reached: dict[str, float]) -> float:
    """Weighted; where nothing has weight, each counts the same."""
    weigh = any(unit.weight for unit in units)
    total = math.fsum(unit.weight if weigh else 1.0 for unit in units)
    done = math.fsum((unit.weight if weigh else 1.0) * reached[unit.key] for unit in units)
    return round(100 * done / total, 1) if total else 0.0
