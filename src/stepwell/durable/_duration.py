"""Spans of time, and the four ways to write one (durable.md §6)."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias

from stepwell.errors import ValidationError

if TYPE_CHECKING:
    from datetime import timedelta

DurationLike: TypeAlias = "Duration | timedelta | int | float"
"""What every parameter that is a span of time takes; numbers are seconds."""

_US = 1_000_000
_LONGEST = 7_000 * 365 * 86_400 * _US  # its end has a date that Python can write: years have four digits there


class Duration:
    """A span of time: ``seconds`` plus ``milliseconds``, ints or floats, kept to the microsecond.

    Frozen, ordered, hashable. Raises ValidationError for what is negative, NaN, infinite or longer than 7,000 years.
    """

    __slots__ = ("_us",)
    _us: int

    def __init__(self, seconds: float = 0, *, milliseconds: float = 0) -> None:
        us = _number_to_us(seconds) + (_number_to_us(milliseconds, 1_000) if milliseconds else 0)
        object.__setattr__(self, "_us", _checked(us))

    @classmethod
    def from_seconds(cls, value: float) -> Self:
        """``value`` seconds."""
        return cls(value)

    @classmethod
    def from_minutes(cls, value: float) -> Self:
        """``value`` minutes."""
        return cls._of_us(_number_to_us(value, 60 * _US))

    @classmethod
    def from_hours(cls, value: float) -> Self:
        """``value`` hours."""
        return cls._of_us(_number_to_us(value, 3_600 * _US))

    @classmethod
    def from_days(cls, value: float) -> Self:
        """``value`` days of 24 hours."""
        return cls._of_us(_number_to_us(value, 86_400 * _US))

    @classmethod
    def _of_us(cls, us: int) -> Self:
        duration = cls.__new__(cls)
        object.__setattr__(duration, "_us", _checked(us))
        return duration

    @property
    def seconds(self) -> int:
        """The whole seconds in it."""
        return self._us // _US

    def to_seconds(self) -> int | float:
        """All of it in seconds: an int when it is whole seconds, else a float."""
        whole, rest = divmod(self._us, _US)
        return self._us / _US if rest else whole

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a Duration cannot be changed (attribute {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Duration cannot be changed (attribute {name!r})")

    def __eq__(self, other: object) -> bool:
        return self._us == other._us if isinstance(other, Duration) else NotImplemented

    def __lt__(self, other: Duration) -> bool:
        return self._us < other._us if _is_duration(other) else NotImplemented

    def __le__(self, other: Duration) -> bool:
        return self._us <= other._us if _is_duration(other) else NotImplemented

    def __gt__(self, other: Duration) -> bool:
        return self._us > other._us if _is_duration(other) else NotImplemented

    def __ge__(self, other: Duration) -> bool:
        return self._us >= other._us if _is_duration(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((Duration, self._us))

    def __bool__(self) -> bool:
        return self._us != 0

    def __repr__(self) -> str:
        return f"Duration(seconds={self.to_seconds()!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return duration_of_us, (self._us,)


Duration.__module__ = "stepwell.durable.config"


def _is_duration(value: object) -> bool:
    return isinstance(value, Duration)


def duration_of_us(us: int) -> Duration:
    """The Duration of so many microseconds."""
    return Duration._of_us(us)


def _checked(us: int) -> int:
    if us < 0:
        raise ValidationError(f"a duration cannot be negative: {us / _US:g} s")
    if us > _LONGEST:
        raise ValidationError("a duration cannot be longer than 7,000 years")
    return us


def _number_to_us(value: float, unit: int = _US) -> int:
    """A number of units of ``unit`` microseconds."""
    if type(value) is bool or not isinstance(value, int | float):
        raise ValidationError(f"a duration is a number of seconds, a timedelta or a Duration, not {value!r}")
    if isinstance(value, int):
        return int(value) * unit
    scaled = value * unit
    if not -_INF < scaled < _INF:
        raise ValidationError(f"a duration must be finite: {value!r}")
    return round(scaled)


_INF = float("inf")


def to_us(value: DurationLike) -> int:
    """Microseconds in a span of time, however it is written. Raises ValidationError as `Duration` does."""
    if isinstance(value, Duration):
        return value._us
    datetime = sys.modules.get("datetime")
    if datetime is not None and isinstance(value, datetime.timedelta):
        return _checked((value.days * 86_400 + value.seconds) * _US + value.microseconds)
    return _checked(_number_to_us(value))  # type: ignore[arg-type]


def to_seconds(value: DurationLike) -> float:
    """Seconds in a span of time, however it is written. Raises ValidationError as `Duration` does."""
    return to_us(value) / _US


def to_duration(value: DurationLike) -> Duration:
    """The Duration that ``value`` writes. Raises ValidationError as `Duration` does."""
    return value if isinstance(value, Duration) else duration_of_us(to_us(value))
