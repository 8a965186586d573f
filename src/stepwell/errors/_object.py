"""An error as plain data, in the form that callbacks, results and the AWS wire use."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, Self

from stepwell.errors._frames import format_frames
from stepwell.errors._naming import type_name

_DEPTH = 8


class ErrorObject:
    """An error described: message, type, data, stack trace, and what caused it. Frozen, compared by content."""

    __slots__ = ("cause", "data", "message", "stack_trace", "type")
    message: str | None
    type: str | None
    data: str | None
    stack_trace: list[str] | None
    cause: ErrorObject | None

    def __init__(
        self,
        message: str | None = None,
        type: str | None = None,
        data: str | None = None,
        stack_trace: Iterable[str] | None = None,
        *,
        cause: ErrorObject | None = None,
    ) -> None:
        put = object.__setattr__
        put(self, "message", message)
        put(self, "type", type)
        put(self, "data", data)
        put(self, "stack_trace", None if stack_trace is None else list(stack_trace))
        put(self, "cause", cause)

    @classmethod
    def from_exception(cls, error: BaseException) -> Self:
        """Describe `error` and the chain of its causes. Frames of Stepwell itself are left out."""
        return cls._describe(error, set())

    @classmethod
    def _describe(cls, error: BaseException, seen: set[int]) -> Self:
        seen.add(id(error))
        try:
            message = str(error)
            data = getattr(error, "data", None)
            recorded = getattr(error, "stack_trace", None)
        except Exception:  # a class whose text or property does not work; it must not hide what happened
            message, data, recorded = f"<{type_name(error.__class__)} whose text cannot be had>", None, None
        frames = recorded if isinstance(recorded, list) else format_frames(error) or None
        origin = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        deeper = origin is not None and id(origin) not in seen and len(seen) < _DEPTH
        return cls(
            message,
            type_name(error.__class__),
            data if isinstance(data, str) else None,
            frames,
            cause=cls._describe(origin, seen) if origin is not None and deeper else None,
        )

    @classmethod
    def from_message(cls, message: str) -> Self:
        """An error of which only the text is known."""
        return cls(message)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read the wire form; members that are absent are None."""
        return cls(data.get("ErrorMessage"), data.get("ErrorType"), data.get("ErrorData"), data.get("StackTrace"))

    def to_dict(self) -> dict[str, Any]:
        """The wire form: `ErrorMessage ErrorType ErrorData StackTrace`, without those that are None."""
        members = {
            "ErrorMessage": self.message,
            "ErrorType": self.type,
            "ErrorData": self.data,
            "StackTrace": self.stack_trace,
        }
        return {name: value for name, value in members.items() if value is not None}

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.type, self.message) if part) or "unknown error"
        causes = []
        cause = self.cause
        while cause is not None:
            causes.append(cause.type or "unknown error")
            cause = cause.cause
        return f"{text} [{', '.join(causes)}]" if causes else text

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in ("message", "type", "data", "stack_trace"))
        return f"ErrorObject({fields}, cause={self.cause!r})"

    def _content(self) -> tuple[object, ...]:
        frames = None if self.stack_trace is None else tuple(self.stack_trace)
        return self.message, self.type, self.data, frames, self.cause

    def __eq__(self, other: object) -> bool:
        return self._content() == other._content() if isinstance(other, ErrorObject) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._content())

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an ErrorObject cannot be changed (attribute {name!r})")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an ErrorObject cannot be changed (attribute {name!r})")

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (self.__class__, self.message, self.type, self.data, self.stack_trace, self.cause)


def _make(
    cls: type[ErrorObject],
    message: str | None,
    kind: str | None,
    data: str | None,
    stack_trace: list[str] | None,
    cause: ErrorObject | None,
) -> ErrorObject:
    return cls(message, kind, data, stack_trace, cause=cause)
