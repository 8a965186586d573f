"""Retry strategies (durable.md §5.4)."""

import copy
import math
import pickle
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepwell
from stepwell.core import jitter_fraction
from stepwell.durable import retries
from stepwell.durable._plan import NEVER_RETRIED, BadStrategy, default_planner, planner
from stepwell.durable.config import ChildConfig, Duration, JitterStrategy
from stepwell.durable.retries import (
    LinearRetryStrategyConfig,
    Retry,
    RetryDecision,
    RetryPresets,
    RetryStrategy,
    RetryStrategyConfig,
    WithRetryConfig,
    create_linear_retry_strategy,
    create_retry_strategy,
)
from stepwell.errors import (
    NestedStepError,
    RetryableSerDesError,
    SerDesError,
    StepInterruptedError,
    ValidationError,
)

NONE = JitterStrategy.NONE


def delays(strategy: RetryStrategy, most: int = 20) -> list[int | float]:
    """The delays until it gives up."""
    found: list[int | float] = []
    for attempt in range(1, most):
        decision = strategy(ValueError("x"), attempt)
        if not decision.should_retry:
            break
        found.append(decision.delay_seconds)
    return found


def test_all_is_sorted_and_at_home() -> None:
    assert retries.__all__ == sorted(retries.__all__)
    names = [name for name in retries.__all__ if name not in ("RetryStrategy", "with_retry")]
    assert {getattr(retries, name).__module__ for name in names} == {"stepwell.durable.retries"}


def test_with_retry_is_here_too() -> None:
    assert retries.with_retry is stepwell.with_retry
    with pytest.raises(AttributeError, match="no attribute 'without_retry'"):
        retries.without_retry  # noqa: B018


def test_decisions() -> None:
    decision = RetryDecision.retry(timedelta(seconds=2))
    assert decision == RetryDecision(True, Duration(2))
    assert (decision.should_retry, decision.delay, decision.delay_seconds) == (True, Duration(2), 2)
    assert RetryDecision.no_retry() == RetryDecision(False)
    with pytest.raises(ValidationError):
        RetryDecision.retry(-1)
    with pytest.raises(AttributeError):
        decision.delay = Duration(1)


def test_defaults() -> None:
    config = RetryStrategyConfig()
    assert (config.max_attempts, config.initial_delay, config.max_delay) == (3, Duration(5), Duration(300))
    assert (config.backoff_rate, config.jitter_strategy) == (2.0, JitterStrategy.FULL)
    assert (config.retryable_errors, config.retryable_error_types) == (None, None)
    line = LinearRetryStrategyConfig()
    assert (line.max_attempts, line.initial_delay, line.increment, line.max_delay) == (
        6,
        Duration(1),
        Duration(1),
        Duration(300),
    )


def test_both_spellings() -> None:
    seconds = RetryStrategyConfig(max_attempts=3, initial_delay_seconds=1, max_delay_seconds=10, backoff_rate=2.0)
    assert seconds == RetryStrategyConfig(3, Duration(1), Duration(10))
    assert (seconds.initial_delay_seconds, seconds.max_delay_seconds) == (1, 10)
    line = LinearRetryStrategyConfig(initial_delay_seconds=2, increment_seconds=Duration(3), max_delay_seconds=9)
    assert (line.initial_delay_seconds, line.increment_seconds, line.max_delay_seconds) == (2, 3, 9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: RetryStrategyConfig(initial_delay=1, initial_delay_seconds=1),
        lambda: RetryStrategyConfig(max_delay=1, max_delay_seconds=1),
        lambda: LinearRetryStrategyConfig(increment=1, increment_seconds=1),
        lambda: RetryStrategyConfig(max_attempts=0),
        lambda: RetryStrategyConfig(max_attempts=1.5),  # type: ignore[arg-type]
        lambda: RetryStrategyConfig(initial_delay=-1),
        lambda: RetryStrategyConfig(max_delay_seconds=-1),
        lambda: RetryStrategyConfig(backoff_rate=0.9),
        lambda: RetryStrategyConfig(backoff_rate=math.inf),
        lambda: RetryStrategyConfig(jitter_strategy="SOME"),  # type: ignore[arg-type]
        lambda: RetryStrategyConfig(retryable_errors="timeout"),
        lambda: RetryStrategyConfig(retryable_errors=[3]),  # type: ignore[list-item]
        lambda: RetryStrategyConfig(retryable_errors=[re.compile(b"x")]),  # type: ignore[arg-type]
        lambda: RetryStrategyConfig(retryable_error_types=ValueError),  # type: ignore[arg-type]
        lambda: RetryStrategyConfig(retryable_error_types=[int]),  # type: ignore[list-item]
        lambda: LinearRetryStrategyConfig(max_attempts=0),
        lambda: create_retry_strategy(LinearRetryStrategyConfig()),  # type: ignore[arg-type]
        lambda: create_linear_retry_strategy(RetryStrategyConfig()),  # type: ignore[arg-type]
        lambda: Retry(attempts=0),
        lambda: Retry(jitter="much"),
        lambda: Retry(on=("x",)),  # type: ignore[arg-type]
        lambda: Retry(on=3),  # type: ignore[arg-type]
        lambda: WithRetryConfig(3),  # type: ignore[arg-type]
        lambda: WithRetryConfig(child_context_config=3),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be(make: Callable[[], object]) -> None:
    with pytest.raises(ValidationError):
        make()


def test_max_attempts_counts_the_first() -> None:
    strategy = create_retry_strategy(RetryStrategyConfig(max_attempts=3))
    assert [strategy(ValueError(), n).should_retry for n in (1, 2, 3, 4)] == [True, True, False, False]


def test_filters() -> None:
    def accepts(error: BaseException, **filters: Any) -> bool:
        strategy: Any = create_retry_strategy(RetryStrategyConfig(**filters))
        decision: RetryDecision = strategy(error, 1)
        return decision.should_retry

    assert accepts(KeyError("k"))
    assert accepts(OSError("read timeout"), retryable_errors=["timeout"])
    assert accepts(OSError("code 503"), retryable_errors=[re.compile(r"50\d$")])
    assert not accepts(OSError("code 5031"), retryable_errors=[re.compile(r"50\d$")])
    assert not accepts(OSError("a.b"), retryable_errors=["a[.]b"])
    assert accepts(ConnectionError(), retryable_error_types=[OSError])
    assert not accepts(ValueError(), retryable_error_types=[OSError])
    assert accepts(ValueError("timeout"), retryable_errors=["timeout"], retryable_error_types=[OSError])
    assert not accepts(ValueError(), retryable_errors=[])
    assert not accepts(ValueError(), retryable_error_types=[])


def test_presets() -> None:
    assert delays(RetryPresets.none()) == []
    assert delays(RetryPresets.critical()) == [1, 2, 3, 4, 6, 8, 12, 18, 26]
    assert delays(RetryPresets.linear()) == [1, 2, 3, 4, 5]
    assert delays(RetryPresets.fixed()) == [5, 5, 5, 5]
    assert delays(RetryPresets.fixed(Duration(milliseconds=20))) == [0.02] * 4
    assert len(delays(RetryPresets.default())) == 5
    assert len(delays(RetryPresets.transient())) == 2
    assert len(delays(RetryPresets.resource_availability())) == 4
    for preset, least, most in (
        (RetryPresets.default(), [1] * 5, [5, 10, 20, 40, 60]),
        (RetryPresets.transient(), [3, 5], [5, 10]),
        (RetryPresets.resource_availability(), [1] * 4, [5, 10, 20, 40]),
    ):
        for found, low, high in zip(delays(preset), least, most, strict=True):
            assert low <= found <= high


@given(
    st.integers(0, 10_000), st.integers(0, 10_000), st.floats(1, 10), st.sampled_from(list(JitterStrategy)),
    st.integers(1, 2000), st.floats(0, 1, exclude_max=True),
)  # fmt: skip
def test_the_law_of_delays(
    initial: int, most: int, rate: float, jitter: JitterStrategy, n: int, fraction: float
) -> None:
    strategy: Any = create_retry_strategy(RetryStrategyConfig(n + 1, initial, most, rate, jitter))
    found = strategy.decide(ValueError(), n, fraction).delay_seconds
    assert type(found) is int
    assert 1 <= found <= max(1, most)
    try:
        base = min(initial * rate ** (n - 1), most)
    except OverflowError:
        base = most
    low = {NONE: base, JitterStrategy.HALF: base / 2, JitterStrategy.FULL: 0}[jitter]
    assert found >= math.floor(low)
    # With settings that have a fraction the same formula holds to the millisecond.
    exact: Any = create_retry_strategy(RetryStrategyConfig(n + 1, initial + 0.25, most + 0.5, rate, NONE))
    kept = exact.decide(ValueError(), n, fraction).delay_seconds
    try:
        expected = min((initial + 0.25) * rate ** (n - 1), most + 0.5)
    except OverflowError:
        expected = most + 0.5
    assert kept == pytest.approx(expected, abs=0.000_6)


def test_linear_is_linear_and_keeps_milliseconds() -> None:
    config = LinearRetryStrategyConfig(5, 1, 0.25, 1.6, NONE)
    assert delays(create_linear_retry_strategy(config)) == [1, 1.25, 1.5, 1.6]


def test_the_short_form() -> None:
    retry = Retry(attempts=4, delay=1, max_delay=3, factor=2, jitter="none", on=(OSError, KeyError))
    assert [retry(KeyError(), n).delay_seconds for n in (1, 2, 3)] == [1, 2, 3]
    assert not retry(KeyError(), 4).should_retry
    assert not retry(ValueError(), 1).should_retry
    assert Retry(on=OSError)(ConnectionError(), 1).should_retry
    assert Retry().max_attempts == 3
    assert delays(Retry(delay=0.01, jitter="none")) == [0.01, 0.02]


def test_strategies_are_equal_by_content_copied_and_pickled() -> None:
    for make in (RetryPresets.default, RetryPresets.linear, Retry):
        strategy: Any = make()
        assert strategy == make()
        assert hash(strategy) == hash(make())
        assert pickle.loads(pickle.dumps(strategy)) == copy.deepcopy(strategy) == strategy
    assert Retry() != Retry(4)
    config = RetryStrategyConfig(retryable_errors=["x"])
    assert hash(config) == hash(RetryStrategyConfig(retryable_errors=["x"]))
    assert "max_attempts=3" in repr(config)


def test_with_retry_config() -> None:
    config = WithRetryConfig[int](Retry(), child_context_config=ChildConfig())
    assert config.wrap_with_run_in_child_context
    assert WithRetryConfig().retry_strategy is None


# The engine's side


def test_the_planner_is_the_same_in_every_life() -> None:
    strategy: Any = RetryPresets.default()
    plan = planner(strategy, "run-1")
    fraction = jitter_fraction("run-1", "load", 2)
    expected = strategy.decide(ValueError(), 2, fraction).delay_seconds
    assert {plan("load", ValueError(), 2) for _ in range(5)} == {expected}
    assert plan("load", ValueError(), 6) is None


def test_the_planner_calls_what_has_no_decide() -> None:
    asked: list[tuple[Exception, int]] = []

    def mine(error: Exception, attempts_made: int) -> RetryDecision:
        asked.append((error, attempts_made))
        return RetryDecision.retry(Duration(milliseconds=1))

    error = ValueError()
    assert planner(mine, "r")("k", error, 4) == 0.001
    assert asked == [(error, 4)]


def test_a_strategy_that_cannot_be_used() -> None:
    def broken(error: Exception, attempts_made: int) -> RetryDecision:
        raise KeyError("rate")

    async def promises(error: Exception, attempts_made: int) -> RetryDecision:
        return RetryDecision.no_retry()

    cases: list[tuple[Any, str]] = [
        (broken, "raised KeyError: 'rate'"),
        (lambda error, n: None, "returned None, not a RetryDecision"),
        (lambda error, n: True, "returned bool"),
        (promises, "returned an awaitable"),
    ]
    for strategy, text in cases:
        original = OSError("down")
        with pytest.raises(BadStrategy) as caught:
            planner(strategy, "r")("load", original, 1)
        invalid = caught.value.error
        assert isinstance(invalid, ValidationError)
        assert text in str(invalid)
        assert "step 'load'" in str(invalid)
        assert strategy.__qualname__ in str(invalid)
        assert invalid.__cause__ is original


@pytest.mark.parametrize("cls", [*NEVER_RETRIED, NestedStepError, UnboundLocalError, ModuleNotFoundError])
def test_the_default_never_retries_what_another_attempt_cannot_mend(cls: type[BaseException]) -> None:
    error = cls("x")
    assert default_planner("r")("k", error, 1) is None
    assert planner(RetryPresets.default(), "r")("k", error, 1) is not None


def test_the_default_retries_the_rest() -> None:
    plan = default_planner("r")
    for error in (ValueError(), OSError(), RetryableSerDesError("later")):
        assert plan("k", error, 5) == planner(RetryPresets.default(), "r")("k", error, 5)
        assert plan("k", error, 6) is None
    assert StepInterruptedError in NEVER_RETRIED
    assert SerDesError in NEVER_RETRIED
