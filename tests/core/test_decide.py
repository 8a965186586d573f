"""Decide: what happens when code asks for an operation, for every state its record can be in."""

from __future__ import annotations

import msgspec
import pytest

from stepwell.core import RunState, StepWanted, decide, fold_all
from stepwell.core._decide import (
    Cancelled,
    Diverged,
    Execute,
    Lost,
    ParkUntil,
    Raise,
    Return,
    crash_loop,
    replay,
)
from stepwell.core._records import (
    AnyRecord,
    LifeLost,
    LifeStarted,
    OperationCancelled,
    Reopened,
    RunFailed,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    WaitStarted,
)
from stepwell.errors import ErrorRecord

ERROR = ErrorRecord("ValueError", "no")
STEP = StepWanted("s", "step", "s")
AT_MOST_ONCE = msgspec.structs.replace(STEP, at_most_once=True)
START, NEXT_LIFE = LifeStarted(1, 1, "w", "start"), LifeStarted(9, 2, "w", "takeover")
BEGUN = StepStarted(2, "s", 1)


def after(*records: AnyRecord) -> RunState:
    run = RunState("r")
    fold_all(run, (START, *records))
    return run


@pytest.mark.parametrize(
    "records, decision",
    [
        ([], Execute(1, fresh=True)),
        ([BEGUN], Execute(1, fresh=False)),
        ([BEGUN, NEXT_LIFE], Execute(1, fresh=False)),
        ([BEGUN, StepSucceeded(3, "s", "7")], Return("7")),
        ([BEGUN, StepSucceeded(3, "s", "null")], Return("null")),
        ([BEGUN, StepFailed(3, "s", ERROR)], Raise(ERROR, 1)),
        ([BEGUN, StepRetryPlanned(3, "s", 1, 50, ERROR)], Execute(2, fresh=True)),
        ([BEGUN, StepRetryPlanned(3, "s", 1, 51, ERROR)], ParkUntil(51)),
        ([BEGUN, StepRetryPlanned(3, "s", 1, 4, ERROR), StepStarted(4, "s", 2)], Execute(2, fresh=False)),
        ([BEGUN, OperationCancelled(3, "s")], Cancelled()),
        ([BEGUN, StepFailed(3, "s", ERROR), RunFailed(3, ERROR), Reopened(4)], Execute(2, fresh=True)),
        ([WaitStarted(2, "s", 9)], Diverged("wait", "step")),
    ],
)
@pytest.mark.parametrize("want", [STEP, AT_MOST_ONCE], ids=["at-least-once", "at-most-once"])
def test_decisions(records: list[AnyRecord], decision: object, want: StepWanted) -> None:
    if want.at_most_once and records == [BEGUN, NEXT_LIFE]:
        decision = Lost(1)
    assert decide(after(*records), want, 50) == decision


def test_an_attempt_of_this_life_is_not_lost() -> None:
    assert decide(after(NEXT_LIFE, BEGUN), AT_MOST_ONCE, 50) == Execute(1, fresh=False)


def test_attempts_before_a_reopening_do_not_count() -> None:
    again = (StepFailed(3, "s", ERROR), RunFailed(3, ERROR), Reopened(4), StepStarted(5, "s", 2))
    assert decide(after(BEGUN, *again, StepFailed(6, "s", ERROR)), STEP, 50) == Raise(ERROR, 1)


def test_deciding_changes_nothing() -> None:
    run = after(BEGUN)
    before = dict(vars(run.ops["s"]))
    decide(run, STEP, 50)
    assert dict(vars(run.ops["s"])) == before
    assert list(run.ops) == ["s"]


def test_replay_gives_recorded_successes_of_the_same_kind_only() -> None:
    run = after(BEGUN, StepSucceeded(3, "s", "7"), StepStarted(3, "t", 1))
    assert replay(run, "s", "step") is run.ops["s"]
    assert replay(run, "s", "wait") is None
    assert replay(run, "t", "step") is None
    assert replay(run, "u", "step") is None


def test_five_deaths_in_one_step_are_a_crash_loop() -> None:
    run = after(StepStarted(2, "s", 1, name="load"), *(LifeLost(3, n, "w", "dead") for n in range(4)))
    assert crash_loop(run) is None
    fold_all(run, [LifeLost(3, 4, "w", "dead")])
    assert crash_loop(run) == "crashes: step 'load' ended the process 5 times"


def test_five_lost_leases_are_told_apart() -> None:
    run = after(BEGUN, *(LifeLost(3, n, "w", "expired") for n in range(5)))
    assert crash_loop(run) == "lost its lease 5 times in step 's'"
