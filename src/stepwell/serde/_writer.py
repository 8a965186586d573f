"""From a value to JSON text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from stepwell.errors import SerDesError, type_name
from stepwell.serde._tables import SHAPES, WRITERS, Node, Write, writes

MAX_DEPTH = 200
"""Levels of nesting. Fixed, and well under the interpreter's limit, so that what one life could write another can read,
however deep in its own calls it stands."""

dumps = msgspec.json.Encoder().encode

_INF = float("inf")
_ATOMS = frozenset((str, int, bool, type(None)))
T = TypeVar("T")


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether `value` is JSON as it stands: exact str, int, bool, None, finite float, list, and dict with str keys
    other than `"$"`. A fast check: a False costs nothing but speed.

    Not looked at here: lone surrogates and huge ints, at which the JSON encoder raises.
    """
    if depth > MAX_DEPTH:
        return False
    cls = type(value)
    if cls is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                return False
            kind = type(item)
            if kind in _ATOMS:
                continue
            if kind is float:
                if item - item != 0.0:  # inf and nan
                    return False
            elif (kind is not dict and kind is not list) or not is_plain(item, depth + 1):
                return False
        return "$" not in value  # type: ignore[operator]
    if cls is list:
        for item in value:  # type: ignore[attr-defined]
            kind = type(item)
            if kind in _ATOMS:
                continue
            if kind is float:
                if item - item != 0.0:
                    return False
            elif (kind is not dict and kind is not list) or not is_plain(item, depth + 1):
                return False
        return True
    return cls in _ATOMS or (cls is float and -_INF < value < _INF)  # type: ignore[operator]


def plain_text(value: object) -> str | None:
    """The JSON text of a value that is plain all through, else None."""
    try:
        if is_plain(value):
            return dumps(value).decode()
    except (ValueError, RuntimeError):
        # Lone surrogates; ints of more digits than the interpreter converts; nested too deep; changed meanwhile. The
        # writer finds a way, or says where it is.
        pass
    return None


def encode(value: object, *, place: str = "result") -> str:
    """JSON text of `value`, from which `decode` makes an equal value of the same type.

    Raises SerDesError, whose text starts with the place of what cannot be recorded, as in `result.rows[3].conn`.
    """
    text = plain_text(value)
    if text is not None:
        return text
    try:
        return Writer(place).text(value)
    except RecursionError:
        return on_fresh_stack(
            lambda: Writer(place).text(value), SerDesError(f"{place}: nested too deep to be recorded")
        )


class Writer:
    """One walk through a value. Knows where it is, for the error text, and what it is inside of, to find cycles."""

    __slots__ = ("active", "path", "place")

    def __init__(self, place: str) -> None:
        self.place = place
        self.path: list[object] = []
        self.active: set[int] = set()

    def text(self, value: object) -> str:
        """The whole. Raises SerDesError; RecursionError when the calls around it leave too little room."""
        node = self.node(value)
        try:
            return dumps(node).decode()
        except ValueError as error:
            raise SerDesError(f"{self.place}: cannot be recorded: {error}") from error

    def node(self, value: object) -> object:
        """Plain data for the whole of `value`. Raises as `text`."""
        try:
            node = self.child(self.place, value)
        except (SerDesError, RecursionError):
            raise
        except Exception as error:
            raise SerDesError(f"{self.where()}: cannot be recorded: {type(error).__name__}: {error}") from error
        return node

    def child(self, piece: object, value: object) -> object:
        """Plain data for a part of the present value; `piece` is a str for `.name` and anything else for `[…]`."""
        path = self.path
        path.append(piece)
        if len(path) > MAX_DEPTH:
            raise SerDesError(f"{self.where()[:80]}…: nested deeper than {MAX_DEPTH} levels; cannot be recorded")
        cls = type(value)
        write = WRITERS.get(cls)
        if write is None:
            write = family(cls)
            if write is None:
                raise self.refused(value)
        mark = id(value)
        if mark in self.active:
            raise SerDesError(f"{self.where()}: {type_name(cls)} contains itself; cannot be recorded")
        self.active.add(mark)
        node = write(self, value)
        self.active.discard(mark)
        path.pop()
        return node

    def refused(self, value: object, why: str = "return plain data or give serdes=") -> SerDesError:
        """The error for a value that cannot be recorded. Names its type and never shows it."""
        return SerDesError(f"{self.where()}: {type_name(type(value))} cannot be recorded; {why}")

    def where(self) -> str:
        """The present place, as in `result.rows[3].conn`."""
        return self.place + "".join(_piece(piece) for piece in self.path[1:])


def on_fresh_stack(work: Callable[[], T], too_deep: Exception) -> T:
    """The result of `work`, done on a thread of its own. Raises `too_deep` if it does not fit there either.

    For values near MAX_DEPTH and callers that are deep in calls themselves: whether a value can be recorded and read
    depends on the value alone.
    """
    import threading
    from contextvars import copy_context

    result: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            result.append(work())
        except RecursionError:
            errors.append(too_deep)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=copy_context().run, args=(body,), name="stepwell-serde")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return result[0]


def family(cls: type) -> Write | None:
    """The writer of the family that `cls` belongs to. Extension point for what is neither exact nor registered."""
    for _, belongs, write in SHAPES:
        if belongs(cls):
            return write
    return None


def _piece(piece: object) -> str:
    if isinstance(piece, str):
        return f".{piece}" if piece.isidentifier() else f"[{piece!r}]"
    if isinstance(piece, int | float | bytes | tuple | None):
        text = repr(piece)
        return f"[{text if len(text) <= 40 else text[:39] + '…'}]"
    return f"[{type_name(type(piece))}]"


def has_surrogates(text: str) -> bool:
    """Whether `text` has characters that JSON in UTF-8 cannot carry."""
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def pairs(writer: Writer, value: dict[Any, Any]) -> list[object]:
    """The items of a mapping as `[key, value]` pairs, in order."""
    return [[writer.child(key, key), writer.child(key, item)] for key, item in value.items()]


@writes(list)
def _write_list(writer: Writer, value: list[Any]) -> object:
    return [item if type(item) in (bool, type(None)) else writer.child(i, item) for i, item in enumerate(value)]


@writes(dict)
def _write_dict(writer: Writer, value: dict[Any, Any]) -> object:
    for key in value:
        if type(key) is not str or key == "$" or has_surrogates(key):
            return {"$": "dict", "v": pairs(writer, value)}
    return {key: writer.child(key, item) for key, item in value.items()}


def tagged(tag: str, value: object, **more: object) -> Node:
    """A node. `more` stands beside `v`: the class `c`, a time zone, and the like."""
    return {"$": tag, "v": value, **more}
