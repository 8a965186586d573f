"""A run's state for viewers: folded page by page, without its values, in little memory.

A run of 100,000 steps must be looked at in less than 60 MiB, the interpreter included. So payloads are dropped as they
go by, and what has ended well becomes a `Past`, which takes half of what an `Op` takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import msgspec

from stepwell.client._follow import Follower
from stepwell.core import Op, Reopened, fold, parent_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.core import AnyRecord, Kind, OpStatus, RunState
    from stepwell.errors import ErrorRecord
    from stepwell.journal import RunRow, Store


class Past(msgspec.Struct, gc=False):
    """An operation that has ended, as far as viewers look at it. `fold` reads its status and never writes to it."""

    key: str
    kind: Kind
    status: OpStatus
    own_name: str | None
    """Its name; "" where the key ends with it, as most do."""
    attempt: int
    started_at: int
    ended_at: int

    ended: ClassVar[bool] = True
    error: ClassVar[ErrorRecord | None] = None
    weight: ClassVar[float | None] = None
    total: ClassVar[int | None] = None

    @property
    def name(self) -> str | None:
        """Its name."""
        return self.own_name if self.own_name != "" else _label(self.key)


def slim_state(store: Store, row: RunRow) -> RunState:
    """The run's journal, folded, without payloads; ended operations are `Past`. Raises `Corrupt` if it cannot be."""
    return Follower(store, row.id, row.rid, fold_slim).look()


def fold_slim(run: RunState, record: AnyRecord) -> None:
    """As `fold`, but what has ended becomes a `Past`, and no list of what could be undone is kept."""
    if type(record) is Reopened:
        _widen(run)
    fold(run, record)
    if type(record) is Reopened:
        for op in list(run.ops.values()):
            _slim(run, op)
    elif (known := run.ops.get(getattr(record, "key", ""))) is not None:
        _slim(run, known)
    if run.undoable:
        run.undoable.clear()


def _slim(run: RunState, op: Op) -> None:
    # Assigned, not deleted: deleting would give each operation a dictionary of its own.
    if op.payload is not None:
        op.payload = None
    if op.fingerprint is not None:
        op.fingerprint = None
    if op.ended and op.error is None and op.weight is None and op.total is None:
        name = "" if op.name and op.name == _label(op.key) else op.name
        past = Past(op.key, op.kind, op.status, name, op.attempt, op.started_at, op.ended_at)
        run.ops[op.key] = cast("Any", past)


def _widen(run: RunState) -> None:
    """All that has ended may be asked again: make it what `fold` may write to."""
    for key, past in cast("dict[str, Op | Past]", run.ops).items():
        if isinstance(past, Past):
            op = run.ops[key] = Op(past.key, past.kind, past.status)
            op.name, op.attempt, op.started_at, op.ended_at = past.name, past.attempt, past.started_at, past.ended_at


def _label(key: str) -> str:
    return key.rpartition("/")[2].partition("#")[0]


class Tree:
    """The operations of a run as a tree, in call order, whatever they are inside of that is on record."""

    def __init__(self, run: RunState) -> None:
        self._run = run
        self._children: dict[str, list[Op]] = {}
        for op in run.ops.values():
            if parent := self._parent(op):
                self._children.setdefault(parent, []).append(op)

    def _parent(self, op: Op) -> str:
        """The nearest operation around it that is on record; "" for the run itself."""
        parent = parent_of(op.key)
        while parent and parent not in self._run.ops:
            parent = parent_of(parent)
        return parent and self._run.ops[parent].key  # its own, not one more text for each that is inside

    def top(self) -> Iterator[Op]:
        """What is inside of nothing but the run."""
        return (op for op in self._run.ops.values() if not self._parent(op))

    def inside(self, op: Op) -> list[Op]:
        """What is right inside of an operation."""
        return self._children.get(op.key, [])
