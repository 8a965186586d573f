"""What the settings of several operations are checked for, each when it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from stepwell.durable._duration import to_us
from stepwell.errors import BadArguments, ValidationError

if TYPE_CHECKING:
    from stepwell.durable._duration import DurationLike

LONGEST_ID = 128
EXECUTORS = ("thread", "process", "ray", "dask")
_SUB_TYPE = re.compile(r"[A-Za-z0-9_-]{1,32}")


def checked_id(given: Any) -> str:
    """A run's id, if it can be one: 1 to 128 printable characters, no spaces, no ``/``.

    Raises:
        BadArguments: it cannot.
    """
    fine = isinstance(given, str) and 0 < len(given) <= LONGEST_ID and given.isprintable()
    if not fine or any(c.isspace() or c == "/" for c in given):
        message = f"run id {given!r}: 1 to {LONGEST_ID} printable characters without spaces or '/'"
        raise BadArguments(message)
    return str(given)


def check_count(name: str, value: object, least: int) -> None:
    """An int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValidationError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValidationError(f"{name} must be at least {least}, not {value}")


def check_number(name: str, value: object, least: float, most: float | None = None) -> None:
    """A finite int or float of at least ``least`` and at most ``most``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValidationError(f"{name} must be a number, not {value!r}")
    if not least <= value < float("inf") or (most is not None and value > most):
        limits = f"at least {least:g} and finite" if most is None else f"between {least:g} and {most:g}"
        raise ValidationError(f"{name} must be {limits}, not {value!r}")


def check_time_limit(name: str, value: DurationLike | None) -> None:
    """None, or a span of time greater than 0."""
    if value is not None and to_us(value) == 0:
        raise ValidationError(f"{name} must be greater than 0; None is no limit")


def check_sub_type(value: object) -> None:
    """None, or 1 to 32 of ``A-Z a-z 0-9 _ -``."""
    if value is not None and not (isinstance(value, str) and _SUB_TYPE.fullmatch(value)):
        raise ValidationError(f"sub_type must be 1 to 32 of A-Z a-z 0-9 _ -, not {value!r}")


def check_text(name: str, value: object) -> None:
    """None, or a text that is not empty and that a store can keep."""
    if value is not None and not (isinstance(value, str) and value and is_encodable(value)):
        raise ValidationError(f"{name} must be a text that is not empty, not {value!r}")


def check_texts(name: str, values: object) -> None:
    """A list of texts, none of them empty."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValidationError(f"{name} must be a list of texts, not {values!r}")
    for value in values:
        if value is None:
            raise ValidationError(f"{name} must be a list of texts, not {values!r}")
        check_text(name, value)


def check_executor(value: object) -> None:
    """None, the name of an executor, or one."""
    if isinstance(value, str) and value not in EXECUTORS:
        raise ValidationError(f"executor must be one of {', '.join(EXECUTORS)}, not {value!r}")
    can = any(callable(getattr(value, method, None)) for method in ("call", "converse"))
    if value is not None and not isinstance(value, str) and not can:
        raise ValidationError(f"executor must be a name or an executor, not {value!r}")


def is_encodable(text: str) -> bool:
    """Whether UTF-8 has all of it: no half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def check_progress(done: object, total: object, message: object) -> None:
    """How far something has come: numbers, and a text."""
    check_number("done", done, 0)
    if total is not None:
        check_number("total", total, 0)
    if not isinstance(message, str):
        raise ValidationError(f"message must be a text, not {message!r}")


def check_classes(name: str, classes: Iterable[object]) -> None:
    """Exception classes."""
    for cls in classes:
        if not (isinstance(cls, type) and issubclass(cls, BaseException)):
            raise ValidationError(f"{name} must hold exception classes, not {cls!r}")


def check_callable(name: str, value: object, *, optional: bool = True) -> None:
    """Something to call; where it is ``optional``, or None."""
    if not callable(value) and not (optional and value is None):
        raise ValidationError(f"{name} must be callable, not {value!r}")


def check_strategy(name: str, value: object) -> None:
    """None, or a retry strategy."""
    if value is not None and not callable(value):
        hint = "; write create_retry_strategy(config)" if hasattr(value, "max_attempts") else ""
        raise ValidationError(f"{name} must be a retry strategy, not {value!r}{hint}")


def check_wait_strategy(value: object) -> None:
    """A strategy of ``wait_for_condition``."""
    if not callable(value):
        hint = "; write create_wait_strategy(config)" if hasattr(value, "max_attempts") else ""
        raise ValidationError(f"wait_strategy must be callable, not {value!r}{hint}")


def check_serdes(name: str, value: object) -> None:
    """None, or an object with ``serialize`` and ``deserialize``."""
    for method in ("serialize", "deserialize"):
        if value is not None and (isinstance(value, type) or not callable(getattr(value, method, None))):
            raise ValidationError(f"{name} must be a SerDes, with serialize and deserialize, not {value!r}")


def check_config(method: str, config: object, cls: type) -> None:
    """None, or the settings that ``context.method`` takes."""
    if config is not None and not isinstance(config, cls):
        raise ValidationError(f"config of {method} is a {cls.__name__}, not {config!r}")


def check_member(name: str, value: object, enum: Any) -> None:
    """A member of ``enum``."""
    if not isinstance(value, enum):
        raise ValidationError(f"{name} must be a {enum.__name__}, not {value!r}")
