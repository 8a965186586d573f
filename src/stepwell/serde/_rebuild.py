"""From the record of an error to an exception: the identity rule of durable.md §14."""

from __future__ import annotations

from collections.abc import Sequence
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any, TypeAlias, TypeVar

from stepwell.errors import DurableOperationError, ErrorRecord, PayloadError, RunFailed, Suspend, class_ref
from stepwell.serde._capture import to_error_object
from stepwell.serde._combined import Combined, StandIn, blank, combine, stand_in
from stepwell.serde._reader import Reader, loads

E = TypeVar("E", bound=BaseException)
Operation: TypeAlias = type[DurableOperationError] | type[RunFailed]

# What the operation says about itself; an attribute of the same name on the original stays with the original, which is
# the operation error's `__cause__`.
_OPERATION_FIELDS = frozenset(
    ("attempts", "data", "error_type", "exit_code", "http_status", "key", "run_id", "stack_trace")
)
_RUN_FIELDS = frozenset(("attempts", "error", "exit_code", "http_status", "key", "run_id"))


def rebuild(
    record: ErrorRecord,
    operation: Operation | None,
    *,
    key: str | None = None,
    attempts: int | None = None,
    run_id: str | None = None,
) -> BaseException:
    """The exception for a recorded error; no constructor of the original's runs.

    With `operation`: an instance of it *and* of every recorded class that can be found and combined, its `__cause__`
    the original (or a stand-in of that name). `str()` is the recorded message in any case. With None: the original
    alone, or the stand-in. What it was raised from follows as its `__cause__`. A RunFailed without `key` and
    `attempts` takes them from the operation error that left the handler.
    """
    reader = Reader()
    if operation is None:
        return _original(record, reader)
    error = _operation_error(record, operation, reader)
    put = error.__dict__.__setitem__
    put("_recipe", (_rebuild, (record, operation, key, attempts, run_id)))
    own = record.classes[:1] == (class_ref(operation),)
    recorded = _recorded_fields(record)
    if isinstance(error, DurableOperationError):
        put("error_type", (recorded.get("error_type") if own else None) or record.type or None)
        put("data", record.data)
        put("stack_trace", list(record.stack_trace))
    if isinstance(error, RunFailed):
        put("error", to_error_object(record))
        key = recorded.get("key") if key is None else key
        attempts = recorded.get("attempts") if attempts is None else attempts
    put("key", key)
    put("attempts", attempts)
    put("run_id", run_id)
    if own and len(record.classes) == 1:
        set_cause(error, record.cause, reader)  # the operation's own error: there is no other original
    elif record.classes:
        _raise_from(error, _original(record, reader))
    else:
        set_cause(error, record.cause, reader)
    return error  # type: ignore[no-any-return]


def _operation_error(record: ErrorRecord, operation: Operation, reader: Reader) -> Any:
    """An instance of the operation and the recorded classes, with the recorded args, attributes and text."""
    others = _combinable(record.classes, reader)
    cls = combine(operation, others)
    error = _fill(blank(cls), record, _skipped(operation), reader)
    if not issubclass(cls, Combined) and _says_otherwise(error, record):
        if any(
            issubclass(operation, cls) for cls in others
        ):  # a parent of the operation's class: its args are restored, so the text has to be told
            return _fill(blank(combine(operation, others, always=True)), record, _skipped(operation), reader)
        error.args = (record.message,)
    return error


def _rebuild(
    record: ErrorRecord,
    operation: Operation | None,
    key: str | None,
    attempts: int | None,
    run_id: str | None,
    state: dict[str, Any],
) -> BaseException:
    """How pickle and copy make a rebuilt error again; `state` holds its attributes as they are by then."""
    error = rebuild(record, operation, key=key, attempts=attempts, run_id=run_id)
    error.__dict__.update(state)
    return error


def _original(record: ErrorRecord, reader: Reader) -> BaseException:
    """The error as it was raised, without an operation around it; a stand-in where it cannot be made."""
    try:
        error = revive(record, reader)
    except (Exception, SystemExit):
        error = stand_in(record)
    set_cause(error, record.cause, reader)
    return error


def revive(record: ErrorRecord, reader: Reader) -> BaseException:
    """The recorded error, of its own class. Raises LookupError or what making it raises; its cause is not set."""
    if not record.classes:
        raise LookupError(f"{record.type} was not raised in Python")
    first = reader.find(record.classes[0])
    if not issubclass(first, BaseException) or issubclass(first, StandIn | Suspend):
        raise LookupError(f"{record.classes[0]} has changed: it is no exception any more")
    if issubclass(first, BaseExceptionGroup):
        message, errors = reader.value(loads(record.args or "[]"))
        return _fill(BaseExceptionGroup.__new__(first, message, errors), record, frozenset(), reader)
    others = _combinable(record.classes[1:], reader)
    cls = combine(first, others)
    error = _fill(blank(cls), record, frozenset(), reader)
    if not issubclass(cls, Combined) and _says_otherwise(error, record):
        # Its text depends on what was not recorded, or comes out otherwise without a constructor.
        cls = combine(first, others, always=True)
        error = _fill(blank(cls), record, frozenset(), reader)
    if issubclass(cls, Combined):
        error.__dict__["_recipe"] = (_rebuild, (record, None, None, None, None))
    return error


def _says_otherwise(error: BaseException, record: ErrorRecord) -> bool:
    try:
        return str(error) != record.message
    except Exception:
        return True


def _combinable(refs: Sequence[str], reader: Reader) -> list[type[BaseException]]:
    """Those of the classes that an operation error may be an instance of."""
    found: list[type[BaseException]] = []
    for ref in refs:
        try:
            cls = reader.find(ref)
        except LookupError:
            continue
        # StopIteration through a generator becomes a RuntimeError; a group needs its members in the constructor.
        if issubclass(cls, Exception) and not issubclass(
            cls, StopIteration | StopAsyncIteration | BaseExceptionGroup | StandIn
        ):
            found.append(cls)
    return found


def _skipped(operation: Operation) -> frozenset[str]:
    return _RUN_FIELDS if issubclass(operation, RunFailed) else _OPERATION_FIELDS


def _recorded_fields(record: ErrorRecord) -> dict[str, Any]:
    """The recorded attributes, where the recorded error is an operation error of ours."""
    own = record.classes[:1] and record.classes[0].startswith("stepwell.errors:")
    attributes = loads(record.attrs) if own and record.attrs else {}
    return attributes if isinstance(attributes, dict) else {}


def _fill(error: E, record: ErrorRecord, skipped: frozenset[str], reader: Reader) -> E:
    """Give a blank error its args and attributes, as far as they can be read."""
    BaseException.args.__set__(error, _read_args(record, reader))  # type: ignore[attr-defined]
    for name, node in (loads(record.attrs) if record.attrs else {}).items():
        if name in skipped:
            continue
        try:
            _put(error, name, reader.value(node))
        except (PayloadError, AttributeError, TypeError, ValueError):
            continue
    if isinstance(error, DurableOperationError):
        error.__dict__["data"] = record.data
        error.__dict__["stack_trace"] = list(record.stack_trace)
    return error


def _put(error: BaseException, name: str, value: object) -> None:
    """Set an attribute below `__setattr__` and properties of the class, which would act."""
    if isinstance(getattr(type(error), name, None), MemberDescriptorType | GetSetDescriptorType):
        object.__setattr__(error, name, value)
    else:
        error.__dict__[name] = value


def _read_args(record: ErrorRecord, reader: Reader) -> tuple[object, ...]:
    if record.args is None:
        return (record.message,)
    try:
        args = reader.value(loads(record.args))
    except PayloadError:
        return (record.message,)
    return args if isinstance(args, tuple) else (record.message,)


def set_cause(error: BaseException, cause: ErrorRecord | None, reader: Reader) -> None:
    """Give a rebuilt error what it was raised from."""
    if cause is not None:
        _raise_from(error, _original(cause, reader))


def _raise_from(error: BaseException, cause: BaseException) -> None:
    object.__setattr__(error, "__cause__", cause)  # below the class's own `__setattr__`
