"""Delays that grow from attempt to attempt: the settings that retries and polls share (durable.md §5.4, §6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.durable._checks import check_count, check_number
from stepwell.durable._duration import Duration, to_duration
from stepwell.durable._frozen import Frozen
from stepwell.durable.config import JitterStrategy
from stepwell.errors import ValidationError

if TYPE_CHECKING:
    from stepwell.durable._duration import DurationLike


def one_of(name: str, value: DurationLike | None, seconds: DurationLike | None, default: int) -> Duration:
    """A setting that may be written as ``name`` or as ``name_seconds``."""
    if value is not None and seconds is not None:
        raise ValidationError(f"give {name} or {name}_seconds, not both")
    given = seconds if value is None else value
    return to_duration(default if given is None else given)


def to_jitter(value: JitterStrategy | str) -> JitterStrategy:
    """The strategy, or the one of that name in any case."""
    try:
        return JitterStrategy(value.upper())
    except (AttributeError, ValueError):
        raise ValidationError(f"jitter must be NONE, HALF or FULL, not {value!r}") from None


class Backoff(Frozen):
    """What all delays have: how many attempts, the first delay, the longest, and jitter."""

    __slots__ = ("initial_delay", "jitter_strategy", "max_attempts", "max_delay")
    max_attempts: int
    initial_delay: Duration
    max_delay: Duration
    jitter_strategy: JitterStrategy

    def begin(
        self, max_attempts: int, initial_delay: Duration, max_delay: Duration, jitter_strategy: JitterStrategy | str
    ) -> None:
        """Check and set the fields. Raises ValidationError."""
        check_count("max_attempts", max_attempts, 1)
        self.fill(
            max_attempts=max_attempts,
            initial_delay=initial_delay,
            max_delay=max_delay,
            jitter_strategy=to_jitter(jitter_strategy),
        )

    @property
    def initial_delay_seconds(self) -> int | float:
        """``initial_delay`` in seconds."""
        return self.initial_delay.to_seconds()

    @property
    def max_delay_seconds(self) -> int | float:
        """``max_delay`` in seconds."""
        return self.max_delay.to_seconds()


class Exponential(Backoff):
    """Delays that are multiplied by ``backoff_rate`` from attempt to attempt."""

    __slots__ = ("backoff_rate",)
    backoff_rate: float

    def begin_exponential(
        self,
        max_attempts: int,
        initial_delay: Duration,
        max_delay: Duration,
        backoff_rate: float,
        jitter_strategy: JitterStrategy | str,
    ) -> None:
        """Check and set the fields. Raises ValidationError."""
        check_number("backoff_rate", backoff_rate, 1)
        self.begin(max_attempts, initial_delay, max_delay, jitter_strategy)
        self.fill(backoff_rate=backoff_rate)


def exponential_delay(config: Exponential, attempts_made: int, fraction: float) -> Duration:
    """``min(initial·rate^(n−1), maximum)`` after attempt n, with jitter, rounded as the settings are."""
    from stepwell.core import exponential

    initial, most = config.initial_delay, config.max_delay
    base = exponential(initial.to_seconds(), config.backoff_rate, most.to_seconds(), attempts_made)
    return finished_delay(base, config.jitter_strategy, fraction, initial, most)


def finished_delay(base: float, jitter: JitterStrategy, fraction: float, *settings: Duration) -> Duration:
    """``base`` with jitter: whole seconds, at least 1, where all settings are whole; else to the millisecond."""
    from stepwell.core import jittered, rounded

    whole = all(isinstance(setting.to_seconds(), int) for setting in settings)
    return Duration(rounded(jittered(base, jitter.value, fraction), whole=whole))


def by_chance() -> float:
    """A fraction for strategies that are called by hand; the engine takes it from run, key and attempt instead."""
    from random import random

    return random()


def name_of(strategy: Any) -> str:
    """How a strategy is called in texts."""
    return str(getattr(strategy, "__qualname__", None) or type(strategy).__qualname__)
