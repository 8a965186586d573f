"""From an exception to its record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

from stepwell.errors import (
    DurableOperationError,
    ErrorObject,
    ErrorRecord,
    SerDesError,
    class_ref,
    format_frames,
    type_name,
)
from stepwell.serde._combined import StandIn, parts_of
from stepwell.serde._writer import Writer, dumps

_CAUSES = 8
_NESTED = 4
_NOT_RECORDED = frozenset(("_recipe", "obj"))  # ours; and AttributeError's, which holds whatever lacked the attribute
_NOTHING_OWN = frozenset((object, BaseException, BaseExceptionGroup, ExceptionGroup))  # a group's members are its args
_IN_RECORD = frozenset(("data", "stack_trace"))  # of an operation error: fields of the record itself

# What is being captured further out: an error whose args hold itself, or ever more errors, has to come to an end.
_capturing: ContextVar[tuple[int, ...]] = ContextVar("stepwell_capturing", default=())


def capture(exc: BaseException, *, skip: Callable[[str], bool] | None = None) -> ErrorRecord:
    """The record of `exc` and its causes (`__cause__`, or `__context__` unless suppressed; at most 8).

    Never raises: what cannot be recorded of args and attributes is left out. The stack trace has the user's frames
    only, and leaves out files for which `skip(file)` is true too, unless nothing else is left; an operation error keeps
    the stack trace that it was recorded with.
    """
    outer = _capturing.get()
    token = _capturing.set((*outer, id(exc)))
    try:
        return _capture(exc, skip, _CAUSES >> len(outer), set())
    finally:
        _capturing.reset(token)


def being_captured(exc: BaseException) -> bool:
    """Whether `exc` cannot be part of a record, since it is inside itself or too deep inside others."""
    outer = _capturing.get()
    return id(exc) in outer or len(outer) >= _NESTED


def _capture(exc: BaseException, skip: Callable[[str], bool] | None, causes: int, seen: set[int]) -> ErrorRecord:
    if isinstance(exc, StandIn):
        return exc.record
    seen.add(id(exc))
    parts = parts_of(type(exc))
    data = _attribute(exc, "data")
    recorded = exc.stack_trace if isinstance(exc, DurableOperationError) else None
    origin = exc.__cause__ or (None if exc.__suppress_context__ else exc.__context__)
    deeper = origin is not None and causes > 0 and id(origin) not in seen
    return ErrorRecord(
        type=type_name(parts[0]),
        message=_text(exc),
        data=data if isinstance(data, str) else None,
        stack_trace=tuple(recorded if recorded is not None else format_frames(exc, skip)),
        classes=tuple(class_ref(cls) for cls in parts),
        args=_args(exc),
        attrs=_attrs(exc),
        cause=_capture(origin, skip, causes - 1, seen) if origin is not None and deeper else None,
    )


def _text(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception:
        return f"<{type_name(type(exc))} whose text cannot be had>"
    return text.encode("utf-8", "backslashreplace").decode()  # the record is UTF-8, which has no lone surrogates


def _attribute(exc: BaseException, name: str) -> object:
    try:
        return getattr(exc, name, None)
    except Exception:
        return None


def _args(exc: BaseException) -> str | None:
    args: tuple[object, ...] = BaseException.args.__get__(exc)  # type: ignore[attr-defined]
    try:
        return Writer("args").text(args)
    except (SerDesError, RecursionError):
        return None


def _attrs(exc: BaseException) -> str | None:
    nodes = {}
    for name, value in _attributes(exc):
        if not str(name).isidentifier() or name in _NOT_RECORDED:
            continue
        if name in _IN_RECORD and isinstance(exc, DurableOperationError):
            continue
        try:
            nodes[name] = Writer(name).node(value)
        except (SerDesError, RecursionError):
            continue
    try:
        return dumps(nodes).decode() if nodes else None
    except (ValueError, RecursionError):  # a name with lone surrogates
        return None


def _attributes(exc: BaseException) -> Iterator[tuple[str, object]]:
    """What the instance holds: its `__dict__`, and the slots and C members of its classes (`errno`, `lineno`…)."""
    held: dict[str, Any] = getattr(exc, "__dict__", {})
    yield from list(held.items())
    for cls in type(exc).__mro__:
        if cls in _NOTHING_OWN:
            continue
        for name, member in vars(cls).items():
            if not isinstance(member, MemberDescriptorType | GetSetDescriptorType):
                continue
            if name.startswith("__") or name in held:
                continue
            try:
                value = member.__get__(exc, type(exc))
            except Exception:  # noqa: S112  an unset slot
                continue
            if value is not None:
                yield name, value


def to_error_object(record: ErrorRecord) -> ErrorObject:
    """The description of a recorded error, causes included."""
    return ErrorObject(
        record.message,
        record.type or None,
        record.data,
        record.stack_trace or None,
        cause=None if record.cause is None else to_error_object(record.cause),
    )
