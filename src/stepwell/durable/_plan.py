"""From the user's strategies to what the engine asks: seconds until the next attempt, the same in every life."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from stepwell.core import US, jitter_fraction
from stepwell.durable._backoff import name_of
from stepwell.durable._duration import to_us
from stepwell.durable.retries import RetryDecision, RetryPresets
from stepwell.durable.waits import WaitForConditionDecision
from stepwell.errors import SerDesError, StepInterruptedError, ValidationError

if TYPE_CHECKING:
    from stepwell.core import Planner
    from stepwell.durable.retries import RetryStrategy
    from stepwell.durable.waits import WaitStrategy

NEVER_RETRIED = (
    TypeError,
    NameError,
    ImportError,
    SyntaxError,
    NotImplementedError,
    AssertionError,
    StepInterruptedError,
    SerDesError,
    ValidationError,
)
"""Not retried where no strategy is configured: another attempt would meet them again, or may act twice."""


class BadStrategy(Exception):
    """A retry strategy cannot be used: the step fails with ``error``, whose cause is what the step had raised."""

    def __init__(self, error: ValidationError) -> None:
        super().__init__(str(error))
        self.error = error


def planner(strategy: RetryStrategy, run_id: str) -> Planner:
    """The retry policy of a step with this strategy.

    Where the strategy has a method ``decide(error, attempts_made, fraction)`` (all of ours do), jitter comes from run,
    key and attempt. The policy raises BadStrategy where the strategy raises or gives no RetryDecision.
    """
    decide: Callable[[BaseException, int, float], Any] | None = getattr(strategy, "decide", None)

    def plan(key: str, error: BaseException, attempts_made: int) -> float | None:
        try:
            if decide is None:
                decision: Any = strategy(error, attempts_made)  # type: ignore[arg-type]
            else:
                decision = decide(error, attempts_made, jitter_fraction(run_id, key, attempts_made))
        except Exception as bad:
            raise _bad(strategy, key, error, f"raised {type(bad).__name__}: {bad}") from bad
        if not isinstance(decision, RetryDecision):
            raise _bad(strategy, key, error, f"returned {_kind(decision)}, not a RetryDecision")
        return to_us(decision.delay) / US if decision.should_retry else None

    return plan


def _bad(strategy: Any, key: str, error: BaseException, what: str) -> BadStrategy:
    invalid = ValidationError(f"retry strategy {name_of(strategy)} of step '{key}' {what}")
    invalid.__cause__ = error
    return BadStrategy(invalid)


def _kind(value: object) -> str:
    if hasattr(type(value), "__await__") and hasattr(value, "close"):
        value.close()  # a coroutine that nobody awaits would warn
        return "an awaitable"
    return "None" if value is None else type(value).__name__


@cache
def _default() -> RetryStrategy:
    return RetryPresets.default()


def default_planner(run_id: str) -> Planner:
    """The retry policy where no strategy is configured (durable.md §5.4)."""
    with_default = planner(_default(), run_id)

    def plan(key: str, error: BaseException, attempts_made: int) -> float | None:
        return None if isinstance(error, NEVER_RETRIED) else with_default(key, error, attempts_made)

    return plan


def poll_planner(strategy: WaitStrategy, run_id: str) -> Callable[[str, Any, int], tuple[bool, float]]:
    """For polls: key, new state and checks made to (whether the state is final, seconds until the next check).

    It raises what the strategy raises, and ValidationError where the strategy gives no WaitForConditionDecision.
    """
    decide: Callable[[Any, int, float], Any] | None = getattr(strategy, "decide", None)

    def plan(key: str, state: Any, attempts_made: int) -> tuple[bool, float]:
        if decide is None:
            decision: Any = strategy(state, attempts_made)
        else:
            decision = decide(state, attempts_made, jitter_fraction(run_id, key, attempts_made))
        if not isinstance(decision, WaitForConditionDecision):
            what = f"returned {_kind(decision)}, not a WaitForConditionDecision"
            raise ValidationError(f"wait strategy {name_of(strategy)} of '{key}' {what}")
        return not decision.should_continue, to_us(decision.delay) / US

    return plan
