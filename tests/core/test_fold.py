"""Fold: each legal transition of an operation is made, every other one is damage and changes nothing."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest

from stepwell.core import RunState, decode_records, encode_records, fold, fold_all
from stepwell.core._fold import TRANSITIONS
from stepwell.core._records import (
    AnyRecord,
    CallbackBeat,
    CallbackCreated,
    CallbackFailed,
    CallbackSucceeded,
    CancelRequested,
    InvokeFailed,
    InvokeStarted,
    InvokeSucceeded,
    LifeLost,
    LifeStarted,
    OperationCancelled,
    Parked,
    Recorded,
    Reopened,
    RollbackStarted,
    RunBlocked,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunSucceeded,
    RunTimedOut,
    ScopeCancelled,
    ScopeFailed,
    ScopeStarted,
    ScopeSucceeded,
    SignalAwaited,
    SignalReceived,
    SignalTaken,
    SignalTimedOut,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    WaitEnded,
    WaitStarted,
)
from stepwell.core._state import TERMINAL, Op, OpStatus
from stepwell.errors import Corrupt, ErrorRecord

ERROR = ErrorRecord("ValueError", "no")
STATUSES: tuple[OpStatus | None, ...] = (None, *get_args(OpStatus))
SAMPLES: list[Any] = [
    StepStarted(5, "k", 1, name="n"),
    StepSucceeded(5, "k", "1"),
    StepFailed(5, "k", ERROR),
    StepRetryPlanned(5, "k", 1, 9, ERROR),
    WaitStarted(5, "k", 9),
    WaitEnded(5, "k"),
    ScopeStarted(5, "k", "child"),
    ScopeSucceeded(5, "k", "1"),
    ScopeFailed(5, "k", ERROR),
    ScopeCancelled(5, "k"),
    Recorded(5, "k", "now", "1"),
    OperationCancelled(5, "k"),
    CallbackCreated(5, "k", "id"),
    CallbackBeat(5, "k"),
    CallbackSucceeded(5, "k", "1"),
    CallbackFailed(5, "k", ERROR),
    InvokeStarted(5, "k", "c-1", "f", "{}"),
    InvokeSucceeded(5, "k", "1"),
    InvokeFailed(5, "k", ERROR),
    SignalAwaited(5, "k", "s"),
    SignalTaken(5, "k", "s", 0),
    SignalTimedOut(5, "k", ERROR),
]
OF_RUNS: list[Any] = [
    RunStarted(1, "f", "{}"),
    LifeStarted(2, 1, "w", "start"),
    Parked(3, 9, ("k",)),
    LifeLost(4, 1, "w", "dead"),
    RollbackStarted(5, "failed", ERROR),
    CancelRequested(6, "why", "me"),
    Reopened(7),
    RunBlocked(8, "code-changed"),
    RunSucceeded(9, "1"),
    RunFailed(9, ERROR),
    RunCancelled(9, "why"),
    RunTimedOut(9),
    SignalReceived(9, "s", "1"),
]
# What the specification allows, written by hand: the engine's own table has to be this one.
LEGAL: dict[str, dict[OpStatus | None, OpStatus]] = {
    "StepStarted": {None: "started", "planned": "started", "reopened": "started"},
    "StepSucceeded": {"started": "succeeded"},
    "StepFailed": {"started": "failed", "planned": "failed"},
    "StepRetryPlanned": {"started": "planned"},
    "WaitStarted": {None: "started", "reopened": "started"},
    "WaitEnded": {"started": "succeeded"},
    "ScopeStarted": {None: "started", "reopened": "started"},
    "ScopeSucceeded": {"started": "succeeded"},
    "ScopeFailed": {"started": "failed"},
    "ScopeCancelled": {"started": "cancelled"},
    "Recorded": {None: "succeeded", "reopened": "succeeded"},
    "CallbackCreated": {None: "started", "reopened": "started"},
    "CallbackBeat": {"started": "started"},
    "CallbackSucceeded": {"started": "succeeded"},
    "CallbackFailed": {"started": "failed"},
    "InvokeStarted": {None: "started", "reopened": "started"},
    "InvokeSucceeded": {"started": "succeeded"},
    "InvokeFailed": {"started": "failed"},
    "SignalAwaited": {None: "started", "reopened": "started"},
    "SignalTaken": {None: "succeeded", "started": "succeeded", "reopened": "succeeded"},
    "SignalTimedOut": {"started": "failed"},
    "OperationCancelled": {None: "cancelled", "started": "cancelled", "planned": "cancelled", "reopened": "cancelled"},
}


def holding(status: OpStatus | None) -> RunState:
    run = RunState("r")
    run.signals["s"] = ["1"]
    if status is not None:
        run.ops["k"] = Op("k", "step", status)
    return run


def pairs() -> list[Any]:
    return [
        pytest.param(record, status, id=f"{type(record).__name__}-after-{status}")
        for record, status in itertools.product(SAMPLES, STATUSES)
    ]


def test_the_table_is_the_specified_one() -> None:
    assert {kind.__name__: table for kind, table in TRANSITIONS.items()} == LEGAL
    assert {type(r).__name__ for r in SAMPLES} == set(LEGAL)


def test_every_record_has_a_sample() -> None:
    assert {type(r) for r in SAMPLES + OF_RUNS} == set(get_args(AnyRecord))


@pytest.mark.parametrize("record, status", pairs())
def test_transitions(record: Any, status: OpStatus | None) -> None:
    run = holding(status)
    before = {k: dict(vars(op)) for k, op in run.ops.items()}
    legal = LEGAL[type(record).__name__]
    if status in legal:
        fold(run, record)
        assert run.ops["k"].status == legal[status]
        assert run.ops["k"].ended == (legal[status] in TERMINAL)
    else:
        with pytest.raises(Corrupt, match=f"{type(record).__name__} at k cannot follow {status or 'nothing'}"):
            fold(run, record)
        assert {k: dict(vars(op)) for k, op in run.ops.items()} == before


def test_terminal_states_are_left_only_by_reopening() -> None:
    assert all(not (TERMINAL & set(table)) for table in LEGAL.values())


@pytest.mark.parametrize("record", SAMPLES + OF_RUNS, ids=lambda r: type(r).__name__)
def test_records_come_back_from_storage_as_they_were(record: Any) -> None:
    assert decode_records(encode_records([record, record])) == [record, record]


def after(*records: AnyRecord) -> RunState:
    run = RunState("r")
    fold_all(run, records)
    return run


def test_a_step_from_start_to_end() -> None:
    run = after(StepStarted(1, "a", 1, name="n", sub_type="S", weight=2.0))
    op = run.ops["a"]
    assert (op.name, op.sub_type, op.weight, op.attempt, op.started_at) == ("n", "S", 2.0, 1, 1)
    assert run.executing == {"a"}
    fold_all(run, [StepRetryPlanned(2, "a", 1, 7, ERROR)])
    assert (op.status, op.until, op.error, run.executing) == ("planned", 7, ERROR, set())
    fold_all(run, [StepStarted(7, "a", 2), StepSucceeded(8, "a", "5", undo=True)])
    assert (op.attempt, op.name, op.payload, op.ended_at) == (2, "n", "5", 8)
    assert run.undoable == ["a"]


@pytest.mark.parametrize("undo", [False, True])
def test_a_step_that_failed_may_have_something_to_undo(undo: bool) -> None:
    run = after(StepStarted(1, "a", 1), StepSucceeded(2, "a", "1", undo=True), StepStarted(3, "b", 1))
    fold(run, StepFailed(4, "b", ERROR, undo))
    assert run.undoable == (["a", "b"] if undo else ["a"])
    assert (run.ops["b"].status, run.ops["b"].undo) == ("failed", undo)


def test_a_run_starts_and_ends_once() -> None:
    with pytest.raises(Corrupt, match="starts twice"):
        after(RunStarted(1, "f", "{}"), RunStarted(2, "f", "{}"))
    with pytest.raises(Corrupt, match="ends twice"):
        after(RunSucceeded(1, "1"), RunFailed(2, ERROR))


@pytest.mark.parametrize("epoch", [1, 2])
def test_lives_are_numbered_upwards(epoch: int) -> None:
    with pytest.raises(Corrupt, match="begins after life 2"):
        after(LifeStarted(1, 2, "w", "start"), LifeStarted(2, epoch, "w", "due"))


def test_a_new_life_ends_parking_and_blocking() -> None:
    run = after(LifeStarted(1, 1, "w", "start"), Parked(2, 9), RunBlocked(3, "code-changed"))
    assert (run.parked, run.blocked) == (Parked(2, 9), "code-changed")
    fold(run, LifeStarted(4, 2, "w", "resume"))
    assert (run.parked, run.blocked, run.epoch, run.first_life_at) == (None, None, 2, 1)


def test_deaths_are_counted_for_steps_that_were_running() -> None:
    run = after(LifeStarted(1, 1, "w", "start"), StepStarted(2, "a", 1), LifeLost(3, 1, "w", "dead"))
    assert (run.deaths, run.careful) == ({"a": 1}, True)
    fold_all(run, [LifeStarted(4, 2, "w", "takeover"), LifeLost(5, 2, "w", "dead")])
    assert run.deaths == {"a": 2}
    fold(run, StepSucceeded(6, "a", "1"))
    assert (run.deaths, run.careful) == ({}, False)


@pytest.mark.parametrize("why", ["resume", "retry"])
def test_a_person_who_says_try_again_clears_the_count(why: str) -> None:
    run = after(StepStarted(2, "a", 1), LifeLost(3, 0, "w", "dead"), LifeStarted(4, 2, "w", why))
    assert run.deaths == {}


def test_expiries_are_counted_apart() -> None:
    run = after(StepStarted(2, "a", 1), LifeLost(3, 0, "w", "expired"), LifeLost(3, 0, "w", "expired"))
    assert (run.expiries, run.deaths) == (2, {})


def test_the_first_request_to_cancel_counts() -> None:
    run = after(CancelRequested(1, "one"), CancelRequested(2, "two"))
    assert run.cancel == CancelRequested(1, "one")


def test_reopening_asks_failed_operations_and_the_scopes_around_them_again() -> None:
    run = after(
        ScopeStarted(1, "c", "child"),
        StepStarted(1, "c/good", 1), StepSucceeded(1, "c/good", "1"),
        StepStarted(1, "c/bad", 1), StepRetryPlanned(1, "c/bad", 1, 2), StepStarted(2, "c/bad", 2),
        StepFailed(2, "c/bad", ERROR), ScopeFailed(2, "c", ERROR), RunFailed(3, ERROR),
        Reopened(4),
    )  # fmt: skip
    assert {key: op.status for key, op in run.ops.items()} == {
        "c": "reopened",
        "c/good": "succeeded",
        "c/bad": "reopened",
    }
    assert (run.ops["c/bad"].base, run.end, run.reopened) == (2, None, 1)


def test_reopening_with_force_skip_and_set() -> None:
    run = after(
        StepStarted(1, "a", 1, name="a"), StepSucceeded(1, "a", "1"),
        StepStarted(1, "b", 1, name="b"), StepFailed(1, "b", ERROR),
        StepStarted(1, "c", 1, name="c"), StepFailed(1, "c", ERROR), RunFailed(2, ERROR),
        Reopened(3, None, ("a",), ("b",), (("c", "7"),)),
    )  # fmt: skip
    assert [(op.status, op.payload) for op in run.ops.values()][1:] == [("succeeded", "null"), ("succeeded", "7")]
    assert run.ops["a"].status == "reopened"


def test_what_is_asked_again_by_its_key_leaves_what_stands_in_it() -> None:
    ended = (
        ScopeStarted(1, "c", "child"), StepStarted(1, "c/a", 1, name="a"), Recorded(1, "c/a/part", "once", "1"),
        StepSucceeded(1, "c/a", "1"), ScopeSucceeded(1, "c", None), RunFailed(2, ERROR),
    )  # fmt: skip
    run = after(*ended, Reopened(3, None, again=("c/a", "never was")))
    assert {key: op.status for key, op in run.ops.items()} == {
        "c": "reopened",
        "c/a": "reopened",
        "c/a/part": "succeeded",
    }
    assert run.ops["c/a"].base == 1
    run = after(*ended, Reopened(3, None, force=("c/a",)))
    assert run.ops["c/a/part"].status == "reopened", "unlike what is forced"
    settled = after(*ended, Reopened(3, None, skip=("a",), again=("c/a",)))
    assert settled.ops["c/a"].status == "succeeded", "what is taken as finished is not asked again"


def test_a_callback_is_due_at_its_end_or_when_nothing_was_heard_for_too_long() -> None:
    run = RunState("r")
    fold(run, CallbackCreated(100, "k", "id", timeout_at=1000, heartbeat=50))
    assert run.ops["k"].until == 150
    fold(run, CallbackBeat(140, "k"))
    assert run.ops["k"].until == 190
    fold(run, CallbackBeat(990, "k"))
    assert run.ops["k"].until == 1000
    fold_all(run, [CallbackCreated(100, "never", "id2")])
    assert run.ops["never"].until == 0


def test_signals_are_taken_in_turn() -> None:
    run = RunState("r")
    fold_all(run, [SignalReceived(1, "s", "1"), SignalReceived(2, "s", "2"), SignalReceived(3, "other", "3")])
    fold_all(run, [SignalTaken(4, "a", "s", 0), SignalAwaited(5, "b", "s"), SignalTaken(6, "b", "s", 1)])
    assert [run.ops[key].payload for key in "ab"] == ["1", "2"]
    for index in (1, 2):
        with pytest.raises(Corrupt, match="out of turn"):
            fold(run, SignalTaken(7, "c", "s", index))


def test_the_latest_published_value_counts() -> None:
    run = RunState("r")
    fold_all(run, [Recorded(1, "p", "publish", "1", name="x"), Recorded(2, "p#2", "publish", "2", name="x")])
    assert run.published == {"x": "2"}
