"""Strategies and settings of wait_for_condition (durable.md §6)."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.core import jitter_fraction
from stepwell.durable import waits
from stepwell.durable._plan import poll_planner
from stepwell.durable.config import Duration, JitterStrategy
from stepwell.durable.waits import (
    WaitForConditionConfig,
    WaitForConditionDecision,
    WaitStrategyConfig,
    create_wait_strategy,
)
from stepwell.errors import ValidationError, WaitForConditionError


def unfinished(state: Any) -> bool:
    return bool(state != "done")


def test_all_is_sorted() -> None:
    assert waits.__all__ == sorted(waits.__all__)


def test_decisions() -> None:
    decision = WaitForConditionDecision.continue_waiting(Duration(3))
    assert (decision.should_continue, decision.delay, decision.delay_seconds) == (True, Duration(3), 3)
    assert WaitForConditionDecision.continue_waiting(3) == decision
    assert WaitForConditionDecision.stop_polling() == WaitForConditionDecision(False)


def test_defaults() -> None:
    config = WaitStrategyConfig(unfinished)
    assert (config.max_attempts, config.initial_delay, config.max_delay, config.backoff_rate) == (
        60,
        Duration(5),
        Duration(300),
        1.5,
    )
    assert config.jitter_strategy is JitterStrategy.FULL
    assert WaitStrategyConfig[str](unfinished, initial_delay_seconds=1).initial_delay_seconds == 1


def test_delays_grow_and_end() -> None:
    strategy = create_wait_strategy(WaitStrategyConfig(unfinished, 4, 1, 3, 2, JitterStrategy.NONE))
    assert [strategy("busy", n).delay_seconds for n in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(WaitForConditionError, match=r"^wait_for_condition exceeded maximum attempts \(4\)$"):
        strategy("busy", 4)


def test_the_printed_text_of_exhaustion() -> None:
    strategy = create_wait_strategy(WaitStrategyConfig(unfinished))
    assert strategy("busy", 59).should_continue
    with pytest.raises(WaitForConditionError) as caught:
        strategy("busy", 60)
    assert str(caught.value) == "wait_for_condition exceeded maximum attempts (60)"


def test_a_condition_that_is_met_wins_over_exhaustion() -> None:
    strategy = create_wait_strategy(WaitStrategyConfig(unfinished, 1))
    assert strategy("done", 1) == WaitForConditionDecision.stop_polling()


@pytest.mark.parametrize(
    "make",
    [
        lambda: WaitStrategyConfig(None),  # type: ignore[arg-type]
        lambda: WaitStrategyConfig(unfinished, 0),
        lambda: WaitStrategyConfig(unfinished, backoff_rate=0.5),
        lambda: WaitStrategyConfig(unfinished, initial_delay=-1),
        lambda: WaitStrategyConfig(unfinished, initial_delay=1, initial_delay_seconds=1),
        lambda: create_wait_strategy(None),  # type: ignore[arg-type]
        lambda: WaitForConditionConfig(None, 0),  # type: ignore[arg-type]
        lambda: WaitForConditionConfig(WaitStrategyConfig(unfinished), 0),  # type: ignore[arg-type]
        lambda: WaitForConditionDecision.continue_waiting(-1),
    ],
)
def test_what_cannot_be(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        make()


def test_none_and_empty_text_are_states() -> None:
    strategy = create_wait_strategy(WaitStrategyConfig(unfinished))
    for state in (None, ""):
        assert WaitForConditionConfig(strategy, state).initial_state == state


def test_the_poll_planner_is_the_same_in_every_life() -> None:
    strategy: Any = create_wait_strategy(WaitStrategyConfig(unfinished, initial_delay=10))
    plan = poll_planner(strategy, "r")
    expected = strategy.decide("busy", 2, jitter_fraction("r", "poll", 2)).delay_seconds
    assert {plan("poll", "busy", 2) for _ in range(3)} == {(False, float(expected))}
    assert plan("poll", "done", 2) == (True, 0.0)
    assert pickle.loads(pickle.dumps(strategy)) == strategy


def test_the_poll_planner_with_a_function_of_the_user() -> None:
    def mine(state: int, attempts: int) -> WaitForConditionDecision:
        if state > 2:
            return WaitForConditionDecision.stop_polling()
        return WaitForConditionDecision.continue_waiting(Duration(milliseconds=attempts))

    plan = poll_planner(mine, "r")
    assert plan("k", 1, 7) == (False, 0.007)
    assert plan("k", 3, 7) == (True, 0.0)
    with pytest.raises(ValidationError, match=r"wait strategy .*lambda.* of 'k' returned None"):
        poll_planner(lambda state, attempts: None, "r")("k", 1, 1)  # type: ignore[arg-type,return-value]
    with pytest.raises(WaitForConditionError):
        poll_planner(create_wait_strategy(WaitStrategyConfig(unfinished, 1)), "r")("k", 1, 1)
