"""Planted bugs: each is one patch of production code, and the simulation finds it by the rule that is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from stepwell.core import Call, Reopened, RunState, StepSucceeded
from stepwell.core import _flow as flow
from stepwell.core import _fold as fold
from stepwell.core._decide import Execute, Lost, ParkUntil, Return, decide
from stepwell.durable import _operations as operations
from stepwell.errors import Suspend
from stepwell.journal import Entry, Start, Unpark, Writer
from stepwell.journal import _writer as writer
from stepwell.journal._memory import MemoryStore
from stepwell.journal._memory_data import batch_write
from stepwell.journal._sqlite_transaction import SqliteTransaction
from stepwell.runtime import Host, Life
from stepwell.runtime import _bodies as bodies
from stepwell.runtime import _drive as drive
from stepwell.runtime import _live as live
from stepwell.runtime import _rollback as rollback
from stepwell.runtime._scope import Scope
from stepwell.testing._simulate import simulate_seed

Patch = pytest.MonkeyPatch
WITHIN = 1000


def fence_left_out(patch: Patch) -> None:
    real = batch_write

    def write(data: Any, batch: Any) -> Any:
        run = data.runs.get(batch.lease.rid)
        if isinstance(batch.change, Start) or run is None or run.hot is None or run.hot.epoch == batch.lease.epoch:
            return real(data, batch)
        run.entries.append(Entry(len(run.entries) + 1, batch.lease.epoch, batch.data))
        return None

    patch.setattr("stepwell.journal._memory.batch_write", write)


def visible_before_durable(patch: Patch) -> None:
    real = Writer._write

    def write(self: Any, tickets: Any) -> Any:
        for ticket in tickets:
            if ticket.fold is not None and ticket.batch.records:
                ticket.fold(ticket.batch.records)
                ticket.fold = None
        return real(self, tickets)

    patch.setattr(Writer, "_write", write)


def key_by_position(patch: Patch) -> None:
    def key_of(self: Any, text: str) -> str:
        self.life.position = place = getattr(self.life, "position", 0) + 1
        return f"{self.key}/{place}" if self.key else str(place)

    patch.setattr(Scope, "key_of", key_of)


def _decide_otherwise(patch: Patch, change: Callable[[Any, Any, Any], Any]) -> None:
    def other(run: Any, want: Any, now: int) -> Any:
        return change(run.ops.get(want.key), run, decide(run, want, now))

    patch.setattr(flow, "decide", other)


def attempt_counted_up_by_a_crash(patch: Patch) -> None:
    def change(op: Any, run: Any, real: Any) -> Any:
        counted = type(real) is Execute and not real.fresh and op.epoch < run.epoch
        return Execute(real.attempt + 1, fresh=True) if counted else real

    _decide_otherwise(patch, change)


def at_most_once_is_at_least_once(patch: Patch) -> None:
    _decide_otherwise(patch, lambda op, run, real: Execute(op.attempt, fresh=False) if type(real) is Lost else real)


def finished_steps_run_again(patch: Patch) -> None:
    def change(op: Any, run: Any, real: Any) -> Any:
        return Execute(op.attempt, fresh=False) if type(real) is Return and op.epoch < run.epoch else real

    patch.setattr(operations, "replay", lambda run, key, kind: None)
    _decide_otherwise(patch, change)


def retry_does_not_wait(patch: Patch) -> None:
    def change(op: Any, run: Any, real: Any) -> Any:
        return Execute(op.attempt + 1, fresh=True) if type(real) is ParkUntil else real

    _decide_otherwise(patch, change)


def success_before_the_body(patch: Patch) -> None:
    real = drive.SYNC[Call]

    def call(scope: Any, effect: Any) -> Any:
        scope.life.commit(scope.branch, (StepSucceeded(scope.life.store.now(), effect.want.key, "null"),))
        return real(scope, effect)

    patch.setitem(drive.SYNC, Call, call)


def undo_in_the_order_of_doing(patch: Patch) -> None:
    real = rollback.to_undo
    patch.setattr(rollback, "to_undo", lambda run, within="": real(run, within)[::-1])


def records_behind_a_hole(patch: Patch) -> None:
    patch.setattr(writer, "_is_behind", lambda ticket: False)


def nothing_left_to_undo(patch: Patch) -> None:
    patch.setattr(live, "undo_all", lambda life, why, error: None)


def late_result_accepted(patch: Patch) -> None:
    patch.setattr(bodies, "remaining", lambda *_: None)


def retry_runs_finished_steps_again(patch: Patch) -> None:
    folds: dict[Any, Any] = cast("Any", fold._FOLDS)
    real = folds[Reopened]

    def reopened(run: Any, record: Any) -> None:
        real(run, record)
        for op in run.ops.values():
            if op.kind == "step" and op.status == "succeeded":
                op.status, op.base = "reopened", op.attempt

    patch.setitem(folds, Reopened, reopened)


def deadline_forgotten_by_later_lives(patch: Patch) -> None:
    patch.setattr(RunState, "deadline", None)


def group_lost_behind_a_refused_batch(patch: Patch) -> None:
    real = MemoryStore.batch_commit

    def commit(self: Any, batches: Any) -> Any:
        results: list[Any] = []
        for batch in batches:
            results += [None] if any(results) else real(self, [batch])
        return results

    patch.setattr(MemoryStore, "batch_commit", commit)


def lease_kept_by_a_life_that_ended(patch: Patch) -> None:
    patch.setattr(Host, "release_again", lambda self: None)


def refused_park_taken_for_one(patch: Patch) -> None:
    real = Life.fail

    def fail(self: Any, error: Any) -> Any:
        return self.over if type(self.over) is Suspend else real(self, error)

    patch.setattr(Life, "fail", fail)


def rows_without_their_record(patch: Patch) -> None:
    real = SqliteTransaction._discard

    def discard(self: Any) -> bool:
        if not self._over and self._connection.in_transaction:
            self._ours = True
            self._connection.execute("commit")
        return real(self)

    patch.setattr(SqliteTransaction, "_discard", discard)


def answer_lost_at_the_deadline(patch: Patch) -> None:
    def never_refused(status: Any, _inbox_seen: int) -> Unpark:
        return Unpark(status)

    patch.setattr("stepwell.runtime._outside.Unpark", never_refused)


def children_left_behind(patch: Patch) -> None:
    def none(life: Any) -> list[str]:
        return []

    patch.setattr(live, "open_children", none)
    patch.setattr("stepwell.runtime._live_async.open_children", none)


PLANTED: dict[Callable[[Patch], None], set[str]] = {
    fence_left_out: {"P3"},
    visible_before_durable: {"ahead"},
    key_by_position: {"P5", "result"},
    attempt_counted_up_by_a_crash: {"attempts"},
    at_most_once_is_at_least_once: {"at-most-once"},
    finished_steps_run_again: {"P1"},
    retry_does_not_wait: {"waits"},
    success_before_the_body: {"ledger"},
    undo_in_the_order_of_doing: {"P6"},
    records_behind_a_hole: {"order"},
    nothing_left_to_undo: {"P6"},
    late_result_accepted: {"late"},
    retry_runs_finished_steps_again: {"P1"},
    deadline_forgotten_by_later_lives: {"deadline"},
    group_lost_behind_a_refused_batch: {"P2"},
    lease_kept_by_a_life_that_ended: {"P5"},
    refused_park_taken_for_one: {"P5"},
    rows_without_their_record: {"P4"},
    answer_lost_at_the_deadline: {"outside"},
    children_left_behind: {"children"},
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_planted_bugs_are_found(
    plant: Callable[[Patch], None], monkeypatch: Patch, tmp_path: Path, found: Callable[[str], None]
) -> None:
    plant(monkeypatch)
    store: Any = "sqlite" if PLANTED[plant] == {"P4"} else "memory"
    for seed in range(WITHIN):
        rules = {violation.rule for violation in simulate_seed(seed, store=store, folder=tmp_path).violations}
        if rules & PLANTED[plant]:
            found(f"seed {seed}, {sorted(rules)}")
            return
    pytest.fail(f"not found within {WITHIN} seeds")
