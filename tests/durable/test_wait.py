"""Waits and polls: durable timers, counted from the first call, whoever is alive meanwhile."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Duration, Engine, durable_execution
from stepwell.durable import WaitForConditionError, is_suspending
from stepwell.durable.exceptions import ValidationError
from stepwell.durable.waits import (
    WaitForConditionConfig,
    WaitForConditionDecision,
    WaitStrategyConfig,
    create_wait_strategy,
)
from tests.durable.kit import Once, Plug, names, nothing, records

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.durable.conftest import Run


@pytest.fixture
def dropped() -> Iterator[Engine]:
    """An engine that keeps no frames."""
    engine = Engine("memory://dropped", hold=0)
    yield engine
    engine.stop()


@pytest.mark.parametrize("duration", [0, 0.002, Duration(milliseconds=2), timedelta(milliseconds=2)], ids=repr)
def test_every_form_of_a_duration(run: Run, duration: Any) -> None:
    assert run(durable_execution(lambda event, context: context.wait(duration, name="w")), id="r") is None
    assert names(run.engine, "r") == ["RunStarted", "WaitStarted w", "WaitEnded w", "RunSucceeded"]


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "1", None, 101 * 366 * 86_400], ids=repr)
def test_bad_durations_write_nothing(run: Run, bad: Any) -> None:
    with pytest.raises(ValidationError):
        run(durable_execution(lambda event, context: context.wait(bad)), id="r")
    assert run.keys("r", "WaitStarted") == []


def test_the_first_deadline_counts_in_every_life(run: Run) -> None:
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.wait(0.01, name="w")
        context.step(plug, name="s")

    with pytest.raises(Plug):
        run(handler, id="r")
    run(handler, id="r")
    assert run.keys("r", "WaitStarted") == ["w"]
    assert run.keys("r", "WaitEnded") == ["w"]


def test_a_wait_ends_at_its_time(run: Run) -> None:
    run(durable_execution(lambda event, context: context.wait(0.015, name="w")), id="r")
    history = {r["record"]: r for r in run.engine.get_run("r").history()}
    started, ended = history["WaitStarted"], history["WaitEnded"]
    assert started["until"] - started["at"] == 15_000
    assert ended["at"] >= started["until"]


def test_parked_is_committed_with_the_wait(run: Run) -> None:
    run(durable_execution(lambda event, context: context.wait(0.005, name="w")), id="r")
    history = {r["record"]: r for r in run.engine.get_run("r").history()}
    assert history["Parked"]["seq"] == history["WaitStarted"]["seq"]
    assert history["Parked"]["until"] == history["WaitStarted"]["until"]
    assert history["Parked"]["waiting_for"]


def test_a_parked_run_shows_waiting(run: Run) -> None:
    handle = run.engine.start_run(durable_execution(lambda event, context: context.wait(600, name="w")), id="r")
    with pytest.raises(TimeoutError):
        handle.wait(0.02)
    assert handle.status == "waiting"
    assert handle.get_wait("w").status.name == "STARTED"


def test_suspending_passes_finally_but_not_except(dropped: Engine) -> None:
    seen: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        try:
            context.wait(0.005)
        except Exception:  # pragma: no cover - the point of the test
            seen.append("except")
        finally:
            seen.append(is_suspending())
        return 1

    assert dropped.run(handler) == 1
    assert seen == [True, False]


def test_a_swallowed_suspension_is_raised_again(dropped: Engine) -> None:
    lives: list[int] = []

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        lives.append(1)
        try:
            context.wait(0.005)
        except BaseException:
            context.step(nothing, name="never")
            raise AssertionError from None
        return len(lives)

    assert dropped.run(handler, id="r") == 2
    assert [r["key"] for r in records(dropped, "r") if r["record"] == "StepStarted"] == []


def test_steps_before_a_wait_are_not_run_again(dropped: Engine) -> None:
    calls: list[str] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: calls.append("a"), name="a")
        context.wait(0.005)
        context.step(lambda: calls.append("b"), name="b")

    dropped.run(handler)
    assert calls == ["a", "b"]


def test_branches_go_on_while_others_wait(run: Run) -> None:
    order: list[str] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        def late(child: Any) -> None:
            child.wait(0.02)
            child.step(lambda: order.append("late"), name="s")

        def soon(child: Any) -> None:
            child.wait(0.001)
            child.step(lambda: order.append("soon"), name="s")

        context.parallel([late, soon], "p").throw_if_error()

    run(handler)
    assert order == ["soon", "late"]


# -- polls


def until(limit: int, delay: float = 0.001) -> Any:
    def strategy(state: Any, attempts: int) -> WaitForConditionDecision:
        if attempts >= limit:
            return WaitForConditionDecision.stop_polling()
        return WaitForConditionDecision.continue_waiting(delay)

    return strategy


def test_each_check_is_an_attempt(run: Run) -> None:
    seen: list[tuple[Any, int]] = []

    def check(state: int, context: Any) -> int:
        seen.append((state, context.attempt))
        return state + 10

    config: Any = WaitForConditionConfig(until(3), 0)
    handler = durable_execution(lambda event, context: context.wait_for_condition(check, config, "poll"))
    assert run(handler, id="r") == 30
    assert seen == [(0, 1), (10, 2), (20, 3)]
    assert names(run.engine, "r")[1:] == [
        "StepStarted poll", "StepRetryPlanned poll", "StepStarted poll", "StepRetryPlanned poll", "StepStarted poll",
        "StepSucceeded poll", "RunSucceeded",
    ]  # fmt: skip


def test_state_survives_a_crash(run: Run) -> None:
    seen: list[Any] = []
    plug = Once(Plug())

    def check(state: int, context: Any) -> int:
        seen.append(state)
        if state == 1:
            plug()
        return state + 1

    config: Any = WaitForConditionConfig(until(3), 0)
    handler = durable_execution(lambda event, context: context.wait_for_condition(check, config, "poll"))
    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == 3
    assert seen == [0, 1, 1, 2]


@pytest.mark.parametrize("state", [None, "", 0, [], {"a": (1,)}], ids=repr)
def test_every_value_is_a_state(run: Run, state: Any) -> None:
    seen: list[Any] = []

    def check(found: Any, context: Any) -> Any:
        seen.append(found)
        return state

    config: Any = WaitForConditionConfig(until(2), state)
    assert run(durable_execution(lambda event, context: context.wait_for_condition(check, config))) == state
    assert seen == [state, state]


def test_exhaustion(run: Run) -> None:
    strategy = create_wait_strategy(WaitStrategyConfig(lambda state: True, max_attempts=2, initial_delay=0.001))
    config: Any = WaitForConditionConfig(strategy, 0)
    handler = durable_execution(lambda event, context: context.wait_for_condition(lambda s, c: s, config))
    with pytest.raises(WaitForConditionError, match=r"wait_for_condition exceeded maximum attempts \(2\)"):
        run(handler)


def test_a_condition_that_is_met_wins_over_exhaustion(run: Run) -> None:
    strategy = create_wait_strategy(WaitStrategyConfig(lambda state: state < 2, max_attempts=2, initial_delay=0.001))
    config: Any = WaitForConditionConfig(strategy, 0)
    assert run(durable_execution(lambda event, context: context.wait_for_condition(lambda s, c: s + 1, config))) == 2


def test_an_error_in_the_check_or_strategy_fails_at_once(run: Run) -> None:
    good: Any = lambda state, context: state  # noqa: E731
    bad: Any = lambda *_: 1 / 0  # noqa: E731
    for check, strategy in ((bad, until(5)), (good, bad)):
        config: Any = WaitForConditionConfig(strategy, 0)
        handler = durable_execution(lambda event, context: context.wait_for_condition(check, config))  # noqa: B023
        with pytest.raises(ZeroDivisionError) as failed:
            run(handler)
        assert isinstance(failed.value, WaitForConditionError)


@pytest.mark.parametrize("which", ["check", "config"])
def test_none_is_refused(run: Run, which: str) -> None:
    config: Any = WaitForConditionConfig(until(1), 0)
    given: tuple[Any, Any] = (None, config) if which == "check" else ((lambda s, c: s), None)
    with pytest.raises(ValidationError):
        run(durable_execution(lambda event, context: context.wait_for_condition(*given)), id="r")
    assert run.keys("r", "StepStarted") == []
