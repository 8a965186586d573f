"""Map and parallel: when a batch is over, and the coordinator that hands out its slots (durable.md §10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from stepwell.core._decide import diverged
from stepwell.core._effects import (
    AskCompletion,
    BranchEnded,
    CancelBranches,
    CancelledHere,
    Commit,
    Conclude,
    Diverge,
    Flow,
    Now,
    Rebuild,
    Replayed,
    Ride,
    Spawn,
    TakeEvent,
)
from stepwell.core._records import ScopeCancelled, ScopeStarted, ScopeSucceeded

if TYPE_CHECKING:
    from stepwell.core._decide import Wanted
    from stepwell.core._state import Op, RunState

Reason = Literal[
    "ALL_COMPLETED",
    "MIN_SUCCESSFUL_REACHED",
    "FAILURE_TOLERANCE_EXCEEDED",
    "CUSTOM_COMPLETION_SUCCEEDED",
    "CUSTOM_COMPLETION_FAILED",
]


class Completion(msgspec.Struct, frozen=True):
    """When a batch ends early. ``custom``: the user's function alone decides."""

    min_successful: int | None = None
    tolerated_failure_count: int | None = None
    tolerated_failure_percentage: float | None = None
    custom: bool = False


class BatchWanted(msgspec.Struct, frozen=True):
    """A map or parallel that code asks for. ``branches``: one `Wanted` each, in order of index."""

    want: Wanted
    branches: tuple[Wanted, ...]
    completion: Completion
    max_concurrency: int | None = None
    virtual: bool = False
    body: Any = None


def verdict(rule: Completion, *, succeeded: int, failed: int, total: int) -> Reason | None:
    """Why the batch is over, or None while it goes on (``custom`` is asked by the coordinator first)."""
    if not rule.custom and _intolerable(rule, failed, total):
        return "FAILURE_TOLERANCE_EXCEEDED"
    if succeeded + failed >= total:
        return "ALL_COMPLETED"
    if not rule.custom and rule.min_successful is not None and succeeded >= rule.min_successful:
        return "MIN_SUCCESSFUL_REACHED"
    return None


def _intolerable(rule: Completion, failed: int, total: int) -> bool:
    count, percentage = rule.tolerated_failure_count, rule.tolerated_failure_percentage
    if count is None and percentage is None:
        return rule.min_successful is None and failed > 0
    if count is not None and failed > count:
        return True
    return percentage is not None and failed > 0 and 100 * failed / total > percentage


class _Tally:
    """What the coordinator knows of its branches."""

    def __init__(self, asked: BatchWanted) -> None:
        self.asked = asked
        self.ended: dict[int, BranchEnded] = {}
        self.started: set[int] = set()
        self.succeeded = 0

    def take(self, event: BranchEnded) -> None:
        self.ended[event.index] = event
        self.started.add(event.index)
        self.succeeded += event.ok

    def over(self) -> Flow[str | None]:
        failed = len(self.ended) - self.succeeded
        if self.asked.completion.custom and self.ended and (answer := (yield AskCompletion(self.asked, self.ended))):
            return str(answer)
        total = len(self.asked.branches)
        return verdict(self.asked.completion, succeeded=self.succeeded, failed=failed, total=total)


def batch(run: RunState, asked: BatchWanted) -> Flow[Any]:
    """Fill free slots in index order, take one event, decide, fill again; then let go of what still runs."""
    want = asked.want
    op = run.ops.get(want.key)
    if op is not None:
        if other := diverged(op, want):
            yield Diverge(want, other)
        if op.status == "succeeded":
            return (yield from _replayed(asked, op))
        if op.status == "failed" and op.error is not None:
            raise (yield Rebuild(want, op.error, 1))
        if op.status == "cancelled":
            yield CancelledHere(want)
    if op is None or op.status == "reopened":
        total = len(asked.branches)
        started = ScopeStarted((yield Now()), want.key, want.kind, want.name, want.sub_type, total, want.weight)
        yield Ride((started,))
    tally = _Tally(asked)
    reason = yield from _coordinate(run, tally)
    let_go = tuple((yield CancelBranches())) if len(tally.started) > len(tally.ended) else ()
    done = yield Conclude(asked, reason, tally.ended, frozenset(tally.started))
    cancelled = () if asked.virtual else tuple(ScopeCancelled(done.at, asked.branches[i].key) for i in let_go)
    yield Commit((*cancelled, ScopeSucceeded(done.at, want.key, done.payload, done.replay_children)))
    return done.value


def _coordinate(run: RunState, tally: _Tally) -> Flow[str]:
    asked = tally.asked
    waiting: list[int] = []
    for index, branch in enumerate(asked.branches):
        # A branch that ended in an earlier life is an event that has happened: it needs no slot.
        recorded = None if asked.virtual else run.ops.get(branch.key)
        if recorded is not None and (recorded.ended and recorded.status != "cancelled"):
            yield Spawn(index)
            tally.take((yield TakeEvent()))
            if reason := (yield from tally.over()):
                return reason
        else:
            waiting.append(index)
    if reason := (yield from tally.over()):
        return reason
    slots = asked.max_concurrency or len(asked.branches)
    waiting.reverse()
    while True:
        while waiting and len(tally.started) - len(tally.ended) < slots:
            index = waiting.pop()
            tally.started.add(index)
            yield from _begin(run, asked, index)
            yield Spawn(index)
        tally.take((yield TakeEvent()))
        if reason := (yield from tally.over()):
            return reason


def _begin(run: RunState, asked: BatchWanted, index: int) -> Flow[None]:
    """A branch's start is on record when it gets its slot, before its body: it can be let go of from then on."""
    want = asked.branches[index]
    op = run.ops.get(want.key)
    if not asked.virtual and (op is None or op.status == "reopened"):
        yield Ride((ScopeStarted((yield Now()), want.key, want.kind, want.name, want.sub_type, None, want.weight),))


def _replayed(asked: BatchWanted, op: Op) -> Flow[Any]:
    """The recorded result; where its parts were too large to keep, they are made again from the records inside."""
    missing: tuple[int, ...] = yield Replayed(asked, op.payload, op.replay_children, None)
    ended: dict[int, BranchEnded] = {}
    for index in missing:
        yield Spawn(index)
        event = yield TakeEvent()
        ended[event.index] = event
    return (yield Replayed(asked, op.payload, op.replay_children, ended))
