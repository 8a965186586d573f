"""How far a run has come: finished weight over known weight, and never back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.core import RunState, fold_all, progress, tell
from stepwell.core._records import (
    AnyRecord,
    OperationCancelled,
    Recorded,
    Reopened,
    RollbackStarted,
    RunCancelled,
    RunFailed,
    RunSucceeded,
    ScopeCancelled,
    ScopeStarted,
    ScopeSucceeded,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    WaitStarted,
)
from stepwell.errors import ErrorRecord

ERROR = ErrorRecord("ValueError", "no")


def after(*records: AnyRecord) -> RunState:
    run = RunState("r")
    fold_all(run, records)
    return run


def started(key: str, weight: float | None = None) -> StepStarted:
    return StepStarted(1, key, 1, weight=weight)


def done(key: str) -> StepSucceeded:
    return StepSucceeded(2, key, "1")


def begun(key: str, kind: str = "child", total: int | None = None) -> ScopeStarted:
    return ScopeStarted(1, key, kind, total=total)  # type: ignore[arg-type]


def over(key: str) -> ScopeSucceeded:
    return ScopeSucceeded(2, key, "1")


def test_nothing_is_known_at_the_start() -> None:
    assert progress(after()) == 0


def test_steps_count_alike() -> None:
    assert progress(after(started("a"), started("b"), done("a"))) == 0.5


def test_weights() -> None:
    assert progress(after(started("a", 3), started("b"), done("a"))) == 0.75
    assert progress(after(started("a", 0), started("b"), done("a"))) == 0


def test_the_weight_of_the_first_attempt_stands() -> None:
    run = after(started("a"), started("b"), StepRetryPlanned(2, "a", 1, 3), StepStarted(3, "a", 2, weight=9), done("a"))
    assert progress(run) == 0.5


def test_a_run_that_goes_on_is_not_done() -> None:
    """Steps one after the other: nobody knows of the next one yet, but that the handler has not returned."""
    seen, run = [], RunState("r")
    for key in "abc":
        fold_all(run, [started(key)])
        seen.append(progress(run))
        fold_all(run, [done(key)])
        seen.append(progress(run))
    assert seen == [0, 1 / 2, 1 / 2, 2 / 3, 2 / 3, 3 / 4]


def test_waits_and_the_recorded_world_weigh_nothing() -> None:
    run = after(started("a"), started("b"), done("a"), WaitStarted(1, "w", 9), Recorded(1, "now", "now", "1"))
    assert progress(run) == 0.5


def test_what_a_running_step_says_of_itself() -> None:
    run = after(started("a"), started("b"), started("c"))
    seen = []
    for fraction in (-1, 0.5, 0.2, 0.75, 7):
        tell(run, "b", fraction)
        seen.append(progress(run))
    assert seen == pytest.approx([0, 0.5 / 3, 0.5 / 3, 0.25, 1 / 3])
    fold_all(run, [done("b")])
    assert progress(run) == pytest.approx(1 / 3)
    tell(run, "b", 1)
    tell(run, "nobody", 1)
    assert progress(run) == pytest.approx(1 / 3)


def test_what_an_attempt_said_counts_for_the_next_one() -> None:
    run = after(started("a"), started("b"))
    tell(run, "a", 0.8)
    fold_all(run, [StepRetryPlanned(2, "a", 1, 3), StepStarted(3, "a", 2)])
    tell(run, "a", 0.1)
    assert progress(run) == 0.4
    fold_all(run, [done("a")])
    assert progress(run) == 0.5


def test_what_the_handler_and_a_scope_say_of_themselves() -> None:
    run = after(started("a"))
    tell(run, "", 0.25)
    assert progress(run) == 0.25
    run = after(begun("c"), started("d"))
    tell(run, "c", 0.5)
    assert progress(run) == 0.25


def test_a_failed_step_is_over() -> None:
    assert progress(after(started("a"), started("b"), StepFailed(2, "a", ERROR))) == 0.5


def test_a_cancelled_step_is_over() -> None:
    assert progress(after(started("a"), started("b"), OperationCancelled(2, "a"))) == 0.5
    assert progress(after(OperationCancelled(2, "a"), started("b"))) == 0, "it never began"


def test_a_scope_counts_its_parts() -> None:
    run = after(begun("c"), started("c/a"), started("c/b"), started("d"), done("c/a"))
    assert progress(run) == 1 / 3
    fold_all(run, [done("c/b"), over("c")])
    assert progress(run) == 2 / 3


def test_a_scope_that_has_a_weight_counts_as_that() -> None:
    run = after(ScopeStarted(1, "c", "child", weight=8), started("d", 2), started("c/a"), started("c/b"), done("c/a"))
    assert progress(run) == 0.4


def test_a_batch_knows_how_many_branches_are_to_come() -> None:
    run = after(begun("m", "map", 4), begun("m[0]", "map_item"), started("m[0]/s"), done("m[0]/s"), over("m[0]"))
    assert progress(run) == 0.25


def test_a_long_map_goes_up_evenly() -> None:
    run, seen = after(begun("m", "map", 100)), []
    for n in range(100):
        fold_all(run, [begun(f"m[{n}]", "map_item"), started(f"m[{n}]/s"), done(f"m[{n}]/s"), over(f"m[{n}]")])
        seen.append(progress(run))
    assert seen[:99] == pytest.approx([n / 100 for n in range(1, 100)])
    assert seen[99] == pytest.approx(100 / 101), "the handler has not returned"


def test_branches_without_records_of_their_own_count_too() -> None:
    run = after(begun("m", "map", 4), started("m[1]/s"), started("m[2]/s"), done("m[2]/s"))
    assert progress(run) == 0.25
    run = after(started("v/s"), started("v/t"), done("v/s"))
    assert progress(run) == 0.5, "a virtual child"


def test_a_batch_that_ends_early_is_over() -> None:
    run = after(begun("m", "map", 9), begun("m[0]", "map_item"), begun("m[1]", "map_item"), started("z"))
    fold_all(run, [over("m[0]"), ScopeCancelled(2, "m[1]"), over("m")])
    assert progress(run) == 2 / 3


def test_undo_is_no_progress() -> None:
    run = after(started("a"), done("a"), RollbackStarted(2, "failed"), started("undo/a"))
    assert progress(run) == 0.5
    fold_all(run, [done("undo/a")])
    assert progress(run) == 0.5


def test_success_is_all_and_any_other_end_keeps_what_it_had() -> None:
    run = (started("a"), started("b"), started("c"), done("a"))
    assert progress(after(*run, RunSucceeded(3, "1"))) == 1
    assert progress(after(*run, RunFailed(3, ERROR))) == 1 / 3
    assert progress(after(*run, RunCancelled(3))) == 1 / 3


def test_a_retry_begins_where_the_run_had_come_to() -> None:
    run = after(begun("c"), started("c/a"), done("c/a"), started("c/b"), StepFailed(2, "c/b", ERROR))
    before = progress(run)
    fold_all(run, [RunFailed(3, ERROR), Reopened(4), StepStarted(5, "c/b", 2)])
    assert progress(run) == before == 2 / 3
    fold_all(run, [done("c/b"), started("d"), over("c"), started("e"), done("d")])
    assert progress(run) == 3 / 4


@given(st.lists(st.tuples(st.integers(0, 11), st.floats(0, 1)), max_size=60))
def test_it_never_falls_whatever_is_met(moves: list[tuple[int, float]]) -> None:
    """Steps at the top, in a child and in a map begin, tell and end in any order."""
    keys = ["a", "b", "c/x", "c/y", "m[0]/s", "m[1]/s"]
    run, last = after(begun("c"), begun("m", "map", 5), begun("m[0]", "map_item")), 0.0
    for number, fraction in moves:
        key = keys[number % 6]
        op = run.ops.get(key)
        if op is None:
            fold_all(run, [started(key, 1 + 9 * fraction)])
        elif not op.ended and number < 6:
            fold_all(run, [done(key)])
        else:
            tell(run, key, fraction)
        assert last <= progress(run) < 1
        last = progress(run)
