"""When a condition that has not come true is looked at again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import msgspec

from stepwell.durable._backoff import Exponential, by_chance, exponential_delay, one_of
from stepwell.durable._checks import check_callable, check_member, check_serdes, check_wait_strategy
from stepwell.durable._duration import Duration, to_duration
from stepwell.durable._frozen import Frozen
from stepwell.durable.config import JitterStrategy
from stepwell.errors import WaitForConditionError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from stepwell.durable._duration import DurationLike
    from stepwell.durable.serdes import SerDes

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = [
    "WaitForConditionConfig",
    "WaitForConditionDecision",
    "WaitStrategy",
    "WaitStrategyConfig",
    "create_wait_strategy",
]

WaitStrategy: TypeAlias = "Callable[[Any, int], WaitForConditionDecision]"
"""A function of the state and of the checks made so far, the first included."""


class WaitForConditionDecision(Frozen):
    """Whether to look again, and after what delay (Duration, timedelta or seconds). Frozen.

    Raises:
        ValidationError: the delay is no span of time.
    """

    __slots__ = ("delay", "should_continue")
    should_continue: bool
    delay: Duration

    def __init__(self, should_continue: bool, delay: DurationLike = 0) -> None:
        self.fill(should_continue=bool(should_continue), delay=to_duration(delay))

    @property
    def delay_seconds(self) -> int | float:
        """The delay in seconds."""
        return self.delay.to_seconds()

    @classmethod
    def continue_waiting(cls, delay: DurationLike) -> WaitForConditionDecision:
        """Look again after ``delay``."""
        return cls(True, delay)

    @classmethod
    def stop_polling(cls) -> WaitForConditionDecision:
        """The state is final: ``wait_for_condition`` returns it."""
        return _STOP


_STOP = WaitForConditionDecision(False)


class WaitStrategyConfig(Exponential, Generic[T]):
    """Delays between the checks of a condition, multiplied from check to check. Frozen.

    Args:
        should_continue_polling: Whether a state is not final yet.
        max_attempts: Most checks; default 60.
        initial_delay: Delay after the first check; default 5 s. Spans of time are Duration, timedelta or seconds.
        max_delay: Longest delay; default 5 minutes.
        backoff_rate: Factor from delay to delay, 1 or more; default 1.5.
        jitter_strategy: How much of a delay is left to chance; default FULL.
        initial_delay_seconds: Another way to write ``initial_delay``.
        max_delay_seconds: Another way to write ``max_delay``.

    Delays are rounded as those of `RetryStrategyConfig`.

    Raises:
        ValidationError: a value is of another kind or outside its limits, or both ways to write one are used.
    """

    __slots__ = ("should_continue_polling",)
    should_continue_polling: Callable[[T], bool]

    def __init__(
        self,
        should_continue_polling: Callable[[T], bool],
        max_attempts: int = 60,
        initial_delay: DurationLike | None = None,
        max_delay: DurationLike | None = None,
        backoff_rate: float = 1.5,
        jitter_strategy: JitterStrategy = JitterStrategy.FULL,
        *,
        initial_delay_seconds: DurationLike | None = None,
        max_delay_seconds: DurationLike | None = None,
    ) -> None:
        check_callable("should_continue_polling", should_continue_polling, optional=False)
        initial = one_of("initial_delay", initial_delay, initial_delay_seconds, 5)
        most = one_of("max_delay", max_delay, max_delay_seconds, 300)
        self.begin_exponential(max_attempts, initial, most, backoff_rate, jitter_strategy)
        self.fill(should_continue_polling=should_continue_polling)


class _WaitStrategy(Frozen, Generic[T]):
    __slots__ = ("config",)
    config: WaitStrategyConfig[T]

    def __init__(self, config: WaitStrategyConfig[T]) -> None:
        self.fill(config=config)

    def __call__(self, state: T, attempts_made: int) -> WaitForConditionDecision:
        return self.decide(state, attempts_made, by_chance())

    def decide(self, state: T, attempts_made: int, fraction: float) -> WaitForConditionDecision:
        config = self.config
        if not config.should_continue_polling(state):
            return WaitForConditionDecision.stop_polling()
        if attempts_made >= config.max_attempts:
            raise WaitForConditionError(f"wait_for_condition exceeded maximum attempts ({config.max_attempts})")
        return WaitForConditionDecision.continue_waiting(exponential_delay(config, attempts_made, fraction))


def create_wait_strategy(config: WaitStrategyConfig[T]) -> Callable[[T, int], WaitForConditionDecision]:
    """A strategy of state and checks made.

    It stops when the condition is met, also at the last check; it raises WaitForConditionError after ``max_attempts``
    checks. Jitter is drawn by chance when it is called by hand; in a run it depends on run, operation and check alone.
    Raises ValidationError for anything but a WaitStrategyConfig.
    """
    check_member("config", config, WaitStrategyConfig)
    return _WaitStrategy(config)


class WaitForConditionConfig(msgspec.Struct, Generic[T], frozen=True):
    """Settings of ``wait_for_condition``.

    Args:
        wait_strategy: ``wait_strategy(state, checks_made)`` gives a `WaitForConditionDecision`.
        initial_state: What the first check is given; None and "" are states.
        serdes: How the state is recorded; None: tagged JSON.

    Raises:
        ValidationError: a value is of another kind.
    """

    wait_strategy: Callable[[T, int], WaitForConditionDecision]
    initial_state: T
    serdes: SerDes[T] | None = None

    def __post_init__(self) -> None:
        check_wait_strategy(self.wait_strategy)
        check_serdes("serdes", self.serdes)
