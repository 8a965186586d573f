"""What code asked for in a rehearsal, held against what is on record: the changes (durable.md §18, ``check``).

All is compared scope by scope, by keys. A scope counts only if the rehearsal entered it, as a life would: what lies in
a finished scope is not run again, whatever its code says now.
"""

from __future__ import annotations

from bisect import bisect_left
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from stepwell.core import (
    Await,
    BatchWanted,
    Call,
    Commit,
    EndOutside,
    Enter,
    OpenOutside,
    Park,
    Ride,
    ScopeFailed,
    ScopeSucceeded,
    Spawn,
    StartChild,
    TakeSignal,
    parent_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from stepwell.core import Effect, Op, RunState

_ENDS = (Park, Call, Await, OpenOutside, EndOutside, StartChild, TakeSignal)
"""Effects that a rehearsal does not perform: it ends there."""


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One difference between the code and the record of a run. ``to``: the new key of what was renamed or moved into
    another scope.
    """

    change: Literal["added", "removed", "moved", "renamed"]
    key: str
    kind: str
    name: str | None = None
    to: str | None = None


class Seen:
    """What a rehearsal was told: `stepwell.runtime.Watch`."""

    def __init__(self) -> None:
        self.asked: dict[str, dict[str, Any]] = {"": {}}
        """For each scope that was entered: key to what was asked for, in order."""
        self.left: set[str] = set()
        """Scopes that the code went through to their end."""
        self.ends: dict[str, str] = {}
        """For each scope in which the rehearsal ended: at which key."""
        self.batches: dict[str, BatchWanted] = {}
        self.last: str | None = None
        """Key at which it ended last."""

    def __call__(self, seen: Effect | BatchWanted) -> None:
        """This comes next."""
        match seen:
            case BatchWanted():
                self.batches[seen.want.key] = seen
                for branch in seen.branches:
                    self._ask(branch.key, branch)
            case Enter(want=asked):
                self.asked.setdefault(asked.want.key, {})
                if not asked.virtual:
                    self._ask(asked.want.key, asked.want)
            case Ride(records=records) | Commit(records=records):
                for record in records:
                    self._record(record)
            case Spawn():
                pass
            case _:
                want = getattr(seen, "want", None) or getattr(getattr(seen, "asked", None), "want", None)
                if want is not None:
                    self._ask(want.key, want)
                    if isinstance(seen, _ENDS):
                        self._end(want.key)

    def _record(self, record: Any) -> None:
        key: str | None = getattr(record, "key", None)
        if key is None:
            return
        if isinstance(record, ScopeSucceeded | ScopeFailed):
            self.left.add(key)
        self._ask(key, record)
        self._end(key)

    def _ask(self, key: str, what: Any) -> None:
        self.asked.setdefault(parent_of(key), {}).setdefault(key, what)

    def _end(self, key: str) -> None:
        self.ends[parent_of(key)] = self.last = key


class Comparison:
    """The differences that one rehearsal shows.

    Args:
        run: what is on record.
        seen: what the rehearsal was told.
        left: whether the handler itself was gone through to its end.
        aliases: new key to old key, of what is taken for renamed.
    """

    def __init__(self, run: RunState, seen: Seen, *, left: bool, aliases: Mapping[str, str]) -> None:
        self._seen = seen
        self._left = seen.left | ({""} if left else set())
        self._aliases = aliases
        self._ops = run.ops
        self._asked: dict[str, dict[str, None]] = {}
        """For each scope that was entered: what was asked for, in order, by its old key."""
        for scope, keys in seen.asked.items():
            self._asked.setdefault(self._old(scope), {}).update(dict.fromkeys(map(self._old, keys)))
        self._recorded: dict[str, list[str]] = {scope: [] for scope in self._asked}
        """For each of them: what is on record, in order."""
        for key in run.ops:
            if (keys_of := self._recorded.get(parent_of(key))) is not None and not key.startswith("undo/"):
                keys_of.append(key)
        self._unasked = {
            scope: [k for k in keys if k not in self._asked[scope]] for scope, keys in self._recorded.items()
        }
        self._by_label: dict[str, list[str]] = {}
        """What was not asked for, by its label."""
        for scope, keys_of in self._unasked.items():
            for key in keys_of:
                self._by_label.setdefault(key[len(scope) :].lstrip("/"), []).append(key)

    def stranger(self) -> tuple[str, Any] | None:
        """What the code asks for that is not on record, though the record has more: (key, what)."""
        for scope, key in self._seen.ends.items():
            known = self._old(key) in self._ops or scope in self._seen.batches
            if not known and (self._unasked[self._old(scope)] or self._namesake(key)):
                return key, self._seen.asked[scope][key]
        return None

    def successor(self, key: str, kind: str) -> str | None:
        """Key of the recorded operation that ``key`` may be the new name, or the new place, of: of those of its kind
        that nobody asked for, the one that is called most like it, and of these the first.
        """
        likely = [old for old in self._unasked[self._old(parent_of(key))] if self._ops[old].kind == kind]
        if likely:
            matcher = SequenceMatcher(b=key[len(parent_of(key)) :])
            return max(likely, key=lambda old: _likeness(matcher, old[len(parent_of(old)) :]))
        old_place = self._namesake(key)
        return old_place if old_place is not None and self._ops[old_place].kind == kind else None

    def _namesake(self, key: str) -> str | None:
        """An operation with the same label in another scope, that was not asked for there."""
        found = self._by_label.get(key[len(parent_of(key)) :].lstrip("/"), ())
        here = self._old(parent_of(key))
        return next((old for old in found if parent_of(old) != here), None)

    def changes(self) -> Iterable[Change]:
        """Removed and moved operations, and branches that were added to an open batch."""
        for scope, asked in self._asked.items():
            recorded = self._recorded[scope]
            place_of = {key: place for place, key in enumerate(recorded)}
            places = [place_of[key] for key in asked if key in place_of]
            newest = max(places, default=-1)
            gone = scope in self._left or scope in self._seen.batches
            for place, key in enumerate(recorded):
                if key not in asked and (gone or place < newest):
                    yield _change("removed", self._ops[key])
            if scope not in self._seen.batches:
                yield from (_change("moved", self._ops[recorded[place]]) for place in out_of_order(places))
        for key, batch in self._seen.batches.items():
            total = self._ops[self._old(key)].total
            for branch in batch.branches[total:] if total is not None else ():
                yield Change("added", branch.key, branch.kind, branch.name)

    def lost_undos(self, known: frozenset[str]) -> Iterable[Change]:
        """Finished operations that could be undone, whose undo the code no longer has."""
        for keys in self._seen.asked.values():
            for key in keys:
                op = self._ops.get(self._old(key))
                if op is not None and op.undo and key not in known:
                    yield Change("removed", op.key, "undo", op.name)

    def was_asked(self, key: str) -> bool:
        """Whether the code asked for what is on record under this key."""
        return key in self._asked.get(parent_of(key), ())

    def _old(self, key: str) -> str:
        return old_key(self._aliases, key)


def _likeness(matcher: SequenceMatcher[str], label: str) -> float:
    matcher.set_seq1(label)
    return matcher.ratio()


def within(key: str, scope: str) -> bool:
    """Whether it is the scope's own key, or lies inside."""
    return key == scope or key.startswith((f"{scope}/", f"{scope}["))


def old_key(aliases: Mapping[str, str], key: str) -> str:
    """Under which key something is on record: the newest alias is the innermost."""
    for new in reversed(list(aliases)):
        if within(key, new):
            return aliases[new] + key[len(new) :]
    return key


def _change(change: Literal["removed", "moved"], op: Op) -> Change:
    return Change(change, op.key, op.kind, op.name)


def out_of_order(places: list[int]) -> list[int]:
    """The fewest of these that have to go for the rest to be in order, smallest first."""
    ends: list[int] = []
    tops: list[int] = []
    before: list[int | None] = []
    for index, place in enumerate(places):
        at = bisect_left(ends, place)
        before.append(tops[at - 1] if at else None)
        ends[at : at + 1] = [place]
        tops[at : at + 1] = [index]
    stay: set[int] = set()
    index_or_none = tops[-1] if tops else None
    while index_or_none is not None:
        stay.add(places[index_or_none])
        index_or_none = before[index_or_none]
    return sorted(set(places) - stay)
