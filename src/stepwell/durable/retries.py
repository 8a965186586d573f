"""When a failed step is tried again, and after what delay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

import msgspec

from stepwell.durable._backoff import Exponential, by_chance, exponential_delay, finished_delay
from stepwell.durable._checks import check_classes, check_member, check_strategy
from stepwell.durable._duration import to_duration
from stepwell.durable._frozen import Frozen
from stepwell.durable._retry_config import LinearRetryStrategyConfig, RetryDecision, RetryStrategyConfig
from stepwell.durable.config import ChildConfig, JitterStrategy
from stepwell.errors import ValidationError

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    from stepwell.durable._duration import DurationLike
    from stepwell.durable._with_retry import with_retry

    T = TypeVar("T", default=Any)
else:
    from typing import TypeVar

    T = TypeVar("T")

__all__ = [
    "LinearRetryStrategyConfig",
    "Retry",
    "RetryDecision",
    "RetryPresets",
    "RetryStrategy",
    "RetryStrategyConfig",
    "WithRetryConfig",
    "create_linear_retry_strategy",
    "create_retry_strategy",
    "with_retry",
]

RetryStrategy: TypeAlias = "Callable[[Exception, int], RetryDecision]"
"""A function of the error and of the attempts made so far, the first included."""


def __getattr__(name: str) -> Any:
    if name != "with_retry":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from stepwell.durable._with_retry import with_retry  # it needs the strategies of this module

    return with_retry


class _ExponentialStrategy(Frozen):
    __slots__ = ("config",)
    config: RetryStrategyConfig

    def __init__(self, config: RetryStrategyConfig) -> None:
        self.fill(config=config)

    def __call__(self, error: BaseException, attempts_made: int) -> RetryDecision:
        return self.decide(error, attempts_made, by_chance())

    def decide(self, error: BaseException, attempts_made: int, fraction: float) -> RetryDecision:
        config = self.config
        if attempts_made >= config.max_attempts or not config.accepts(error):
            return RetryDecision.no_retry()
        return RetryDecision.retry(exponential_delay(config, attempts_made, fraction))


class _LinearStrategy(Frozen):
    __slots__ = ("config",)
    config: LinearRetryStrategyConfig

    def __init__(self, config: LinearRetryStrategyConfig) -> None:
        self.fill(config=config)

    def __call__(self, error: BaseException, attempts_made: int) -> RetryDecision:
        return self.decide(error, attempts_made, by_chance())

    def decide(self, error: BaseException, attempts_made: int, fraction: float) -> RetryDecision:
        from stepwell.core import linear

        config = self.config
        if attempts_made >= config.max_attempts or not config.accepts(error):
            return RetryDecision.no_retry()
        initial, step, most = config.initial_delay, config.increment, config.max_delay
        base = linear(initial.to_seconds(), step.to_seconds(), most.to_seconds(), attempts_made)
        return RetryDecision.retry(finished_delay(base, config.jitter_strategy, fraction, initial, step, most))


def create_retry_strategy(config: RetryStrategyConfig | None = None) -> RetryStrategy:
    """A strategy with delays that are multiplied from attempt to attempt; None: `RetryStrategyConfig()`.

    Jitter is drawn by chance when the strategy is called by hand; in a run it depends on run, step and attempt alone.
    Raises ValidationError for anything but a RetryStrategyConfig.
    """
    config = RetryStrategyConfig() if config is None else config
    check_member("config", config, RetryStrategyConfig)
    return _ExponentialStrategy(config)


def create_linear_retry_strategy(config: LinearRetryStrategyConfig | None = None) -> RetryStrategy:
    """A strategy with delays that grow by the same amount; None: `LinearRetryStrategyConfig()`.

    Raises ValidationError for anything but a LinearRetryStrategyConfig.
    """
    config = LinearRetryStrategyConfig() if config is None else config
    check_member("config", config, LinearRetryStrategyConfig)
    return _LinearStrategy(config)


class RetryPresets:
    """Strategies for common cases. Times in seconds; attempts count the first one."""

    @staticmethod
    def none() -> RetryStrategy:
        """One attempt."""
        return create_retry_strategy(RetryStrategyConfig(max_attempts=1))

    @staticmethod
    def default() -> RetryStrategy:
        """6 attempts, 5 s to 60 s, doubled each time, full jitter."""
        return create_retry_strategy(RetryStrategyConfig(6, 5, 60))

    @staticmethod
    def transient() -> RetryStrategy:
        """3 attempts, 5 s to 5 min, doubled each time, half jitter."""
        return create_retry_strategy(RetryStrategyConfig(3, 5, 300, jitter_strategy=JitterStrategy.HALF))

    @staticmethod
    def resource_availability() -> RetryStrategy:
        """5 attempts, 5 s to 5 min, doubled each time, full jitter."""
        return create_retry_strategy(RetryStrategyConfig(5, 5, 300))

    @staticmethod
    def critical() -> RetryStrategy:
        """10 attempts, 1 s to 60 s, times 1.5 each time, no jitter."""
        return create_retry_strategy(RetryStrategyConfig(10, 1, 60, 1.5, JitterStrategy.NONE))

    @staticmethod
    def linear() -> RetryStrategy:
        """6 attempts after 1, 2, 3, 4 and 5 s, no jitter."""
        return create_linear_retry_strategy(LinearRetryStrategyConfig(6, 1, 1, jitter_strategy=JitterStrategy.NONE))

    @staticmethod
    def fixed(interval: DurationLike = 5) -> RetryStrategy:
        """5 attempts, ``interval`` (Duration, timedelta or seconds) apart, no jitter.

        Raises ValidationError where ``interval`` is no span of time.
        """
        return create_retry_strategy(RetryStrategyConfig(5, interval, interval, 1, JitterStrategy.NONE))


class Retry(Exponential):
    """The short form of a retry strategy, to be given wherever a strategy is. Frozen.

    Args:
        attempts: Attempts in all, the first included; default 3.
        delay: Delay after the first attempt (Duration, timedelta or seconds); default 1 s.
        max_delay: Longest delay; default 60 s.
        factor: Factor from delay to delay, 1 or more; default 2.
        jitter: "none", "half" or "full"; default "full".
        on: The class or classes of errors to retry; default every Exception.

    Delays are rounded as those of `RetryStrategyConfig`.

    Raises:
        ValidationError: a value is of another kind or outside its limits.
    """

    __slots__ = ("on",)
    on: tuple[type[BaseException], ...]

    def __init__(
        self,
        attempts: int = 3,
        delay: DurationLike = 1,
        max_delay: DurationLike = 60,
        factor: float = 2,
        jitter: JitterStrategy | str = "full",
        on: type[BaseException] | Iterable[type[BaseException]] = (Exception,),
    ) -> None:
        self.begin_exponential(attempts, to_duration(delay), to_duration(max_delay), factor, jitter)
        if not isinstance(on, Iterable | type):
            raise ValidationError(f"on must be a class or a list of classes, not {on!r}")
        classes = (on,) if isinstance(on, type) else tuple(on)
        check_classes("on", classes)
        self.fill(on=classes)

    def __call__(self, error: BaseException, attempts_made: int) -> RetryDecision:
        """The decision after ``attempts_made`` attempts, with jitter by chance."""
        return self.decide(error, attempts_made, by_chance())

    def decide(self, error: BaseException, attempts_made: int, fraction: float) -> RetryDecision:
        """The decision with a given part of the jitter, from 0 to 1."""
        if attempts_made >= self.max_attempts or not isinstance(error, self.on):
            return RetryDecision.no_retry()
        return RetryDecision.retry(exponential_delay(self, attempts_made, fraction))


class WithRetryConfig(msgspec.Struct, Generic[T], frozen=True):
    """Settings of ``with_retry``.

    Args:
        retry_strategy: None: `create_retry_strategy()`, 3 attempts.
        wrap_with_run_in_child_context: Whether the block is a child context; then its last failure is a
            ChildContextError.
        child_context_config: Settings of that child context.

    Raises:
        ValidationError: a value is of another kind.
    """

    retry_strategy: RetryStrategy | None = None
    wrap_with_run_in_child_context: bool = True
    child_context_config: ChildConfig[T] | None = None

    def __post_init__(self) -> None:
        check_strategy("retry_strategy", self.retry_strategy)
        if self.child_context_config is not None:
            check_member("child_context_config", self.child_context_config, ChildConfig)
