"""How far a run has come: finished weight over known weight."""

from __future__ import annotations

import pytest

from stepwell.core import RunState, fold_all, progress
from stepwell.core._records import (
    AnyRecord,
    Recorded,
    RunSucceeded,
    ScopeStarted,
    ScopeSucceeded,
    StepFailed,
    StepStarted,
    StepSucceeded,
    WaitStarted,
)
from stepwell.errors import ErrorRecord


def after(*records: AnyRecord) -> RunState:
    run = RunState("r")
    fold_all(run, records)
    return run


def started(key: str, weight: float | None = None) -> StepStarted:
    return StepStarted(1, key, 1, weight=weight)


def done(key: str) -> StepSucceeded:
    return StepSucceeded(2, key, "1")


def test_nothing_is_known_at_the_start() -> None:
    assert progress(after()) == 0


def test_steps_count_alike() -> None:
    assert progress(after(started("a"), done("a"), started("b"))) == 0.5


def test_weights() -> None:
    assert progress(after(started("a", 3), done("a"), started("b"))) == 0.75
    assert progress(after(started("a", 0), done("a"), started("b"))) == 0


def test_waits_and_the_recorded_world_weigh_nothing() -> None:
    run = after(started("a"), done("a"), started("b"), WaitStarted(1, "w", 9), Recorded(1, "now", "now", "1"))
    assert progress(run) == 0.5


def test_what_a_running_step_says_of_itself() -> None:
    run = after(started("a"), done("a"), started("b"))
    assert progress(run, {"b": 0.5}) == 0.75
    assert progress(run, {"b": 7}) == 1
    assert progress(run, {"b": -1}) == 0.5


def test_a_failed_step_is_over() -> None:
    assert progress(after(started("a"), StepFailed(2, "a", ErrorRecord("ValueError", "no")))) == 1


def test_a_scope_counts_its_parts() -> None:
    child = ScopeStarted(1, "c", "child")
    run = after(child, started("c/a"), done("c/a"), started("c/b"), started("d"))
    assert progress(run) == 0.25


def test_a_batch_knows_how_many_branches_are_to_come() -> None:
    batch, item = ScopeStarted(1, "m", "map", total=4), ScopeStarted(1, "m[0]", "map_item")
    run = after(batch, item, started("m[0]/s"), done("m[0]/s"), ScopeSucceeded(2, "m[0]", "1"))
    assert progress(run) == 0.25


def test_undo_is_no_progress() -> None:
    assert progress(after(started("a"), done("a"), started("undo/a"))) == 1


def test_an_ended_run_is_done() -> None:
    assert progress(after(started("a"), RunSucceeded(3, "1"))) == 1


@pytest.mark.parametrize("steps", [1, 7])
def test_it_never_falls_while_known_steps_finish(steps: int) -> None:
    run, last = after(*(started(f"s{n}") for n in range(steps))), 0.0
    for n in range(steps):
        fold_all(run, [done(f"s{n}")])
        assert progress(run) > last
        last = progress(run)
    assert last == 1
