"""What a retry strategy is made of (durable.md §5.4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stepwell.durable._backoff import Backoff, Exponential, one_of
from stepwell.durable._checks import check_classes
from stepwell.durable._duration import Duration, to_duration
from stepwell.durable._frozen import Frozen
from stepwell.durable.config import JitterStrategy
from stepwell.errors import ValidationError

if TYPE_CHECKING:
    from stepwell.durable._duration import DurationLike


class RetryDecision(Frozen):
    """Whether to try again, and after what delay (Duration, timedelta or seconds). Frozen.

    Raises:
        ValidationError: the delay is no span of time.
    """

    __slots__ = ("delay", "should_retry")
    should_retry: bool
    delay: Duration

    def __init__(self, should_retry: bool, delay: DurationLike = 0) -> None:
        self.fill(should_retry=bool(should_retry), delay=to_duration(delay))

    @property
    def delay_seconds(self) -> int | float:
        """The delay in seconds."""
        return self.delay.to_seconds()

    @classmethod
    def retry(cls, delay: DurationLike) -> RetryDecision:
        """Try again after ``delay``."""
        return cls(True, delay)

    @classmethod
    def no_retry(cls) -> RetryDecision:
        """Give up."""
        return _NO


_NO = RetryDecision(False)


class Filters(Frozen):
    """Which errors are worth another attempt. The slots are in the classes that have them."""

    __slots__ = ()
    retryable_errors: list[str | re.Pattern[str]] | None
    retryable_error_types: list[type[BaseException]] | None

    def begin_filters(
        self,
        errors: Iterable[str | re.Pattern[str]] | None,
        types: Iterable[type[BaseException]] | None,
    ) -> None:
        """Check and set the fields. Raises ValidationError."""
        if isinstance(errors, str | re.Pattern):
            raise ValidationError(f"retryable_errors must be a list of texts or patterns, not {errors!r}")
        if isinstance(types, type):
            raise ValidationError(f"retryable_error_types must be a list of classes, not {types!r}")
        listed = None if errors is None else list(errors)
        for pattern in listed or ():
            if not isinstance(pattern.pattern if isinstance(pattern, re.Pattern) else pattern, str):
                raise ValidationError(f"retryable_errors must hold texts or patterns, not {pattern!r}")
        classes = None if types is None else list(types)
        check_classes("retryable_error_types", classes or ())
        self.fill(retryable_errors=listed, retryable_error_types=classes)

    def accepts(self, error: BaseException) -> bool:
        """Whether another attempt is worth it after this error."""
        texts, types = self.retryable_errors, self.retryable_error_types
        if texts is None and types is None:
            return True
        if types and isinstance(error, tuple(types)):
            return True
        if not texts:
            return False
        message = str(error)
        return any(text in message if isinstance(text, str) else text.search(message) for text in texts)


class RetryStrategyConfig(Exponential, Filters):
    """Delays that are multiplied from attempt to attempt. Frozen.

    Args:
        max_attempts: Attempts in all, the first included; default 3.
        initial_delay: Delay after the first attempt; default 5 s. Spans of time are Duration, timedelta or seconds.
        max_delay: Longest delay; default 5 minutes.
        backoff_rate: Factor from delay to delay, 1 or more; default 2.
        jitter_strategy: How much of a delay is left to chance; default FULL.
        retryable_errors: Parts of an error's text, or patterns to search for in it.
        retryable_error_types: Classes of errors. An error is retried if a text or a class fits, or if both lists are
            None.
        initial_delay_seconds: Another way to write ``initial_delay``.
        max_delay_seconds: Another way to write ``max_delay``.

    Where both delays are whole seconds, delays are rounded up to whole seconds, at least 1; else to the millisecond.

    Raises:
        ValidationError: a value is of another kind or outside its limits, or both ways to write one are used.
    """

    __slots__ = ("retryable_error_types", "retryable_errors")

    def __init__(
        self,
        max_attempts: int = 3,
        initial_delay: DurationLike | None = None,
        max_delay: DurationLike | None = None,
        backoff_rate: float = 2.0,
        jitter_strategy: JitterStrategy = JitterStrategy.FULL,
        retryable_errors: Iterable[str | re.Pattern[str]] | None = None,
        retryable_error_types: Iterable[type[BaseException]] | None = None,
        *,
        initial_delay_seconds: DurationLike | None = None,
        max_delay_seconds: DurationLike | None = None,
    ) -> None:
        initial = one_of("initial_delay", initial_delay, initial_delay_seconds, 5)
        most = one_of("max_delay", max_delay, max_delay_seconds, 300)
        self.begin_exponential(max_attempts, initial, most, backoff_rate, jitter_strategy)
        self.begin_filters(retryable_errors, retryable_error_types)


class LinearRetryStrategyConfig(Backoff, Filters):
    """Delays that grow by ``increment`` from attempt to attempt. Frozen.

    Args:
        max_attempts: Attempts in all, the first included; default 6.
        initial_delay: Delay after the first attempt; default 1 s. Spans of time are Duration, timedelta or seconds.
        increment: What each delay is longer than the one before; default 1 s.
        max_delay: Longest delay; default 5 minutes.
        jitter_strategy: How much of a delay is left to chance; default FULL.
        retryable_errors: Parts of an error's text, or patterns to search for in it.
        retryable_error_types: Classes of errors. An error is retried if a text or a class fits, or if both lists are
            None.
        initial_delay_seconds: Another way to write ``initial_delay``.
        increment_seconds: Another way to write ``increment``.
        max_delay_seconds: Another way to write ``max_delay``.

    Where all of them are whole seconds, delays are rounded up to whole seconds, at least 1; else to the millisecond.

    Raises:
        ValidationError: a value is of another kind or outside its limits, or both ways to write one are used.
    """

    __slots__ = ("increment", "retryable_error_types", "retryable_errors")
    increment: Duration

    def __init__(
        self,
        max_attempts: int = 6,
        initial_delay: DurationLike | None = None,
        increment: DurationLike | None = None,
        max_delay: DurationLike | None = None,
        jitter_strategy: JitterStrategy = JitterStrategy.FULL,
        retryable_errors: Iterable[str | re.Pattern[str]] | None = None,
        retryable_error_types: Iterable[type[BaseException]] | None = None,
        *,
        initial_delay_seconds: DurationLike | None = None,
        increment_seconds: DurationLike | None = None,
        max_delay_seconds: DurationLike | None = None,
    ) -> None:
        initial = one_of("initial_delay", initial_delay, initial_delay_seconds, 1)
        most = one_of("max_delay", max_delay, max_delay_seconds, 300)
        self.begin(max_attempts, initial, most, jitter_strategy)
        self.fill(increment=one_of("increment", increment, increment_seconds, 1))
        self.begin_filters(retryable_errors, retryable_error_types)

    @property
    def increment_seconds(self) -> int | float:
        """``increment`` in seconds."""
        return self.increment.to_seconds()


for _public in (RetryDecision, RetryStrategyConfig, LinearRetryStrategyConfig):
    _public.__module__ = "stepwell.durable.retries"
del _public
