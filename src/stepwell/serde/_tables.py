"""Which function writes a type and which one reads a tag.

A written value is plain JSON, or a *node* `{"$": tag, "v": …}` where the type would be lost. The modules of the package
fill the tables when they are imported; `register` adds types of higher floors.

The tags are the format of every journal: one that has been in a release is never given another meaning. A tag that goes
away turns values on record into PayloadErrors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from stepwell.serde._reader import Reader
    from stepwell.serde._writer import Writer

Node: TypeAlias = dict[str, Any]
Write: TypeAlias = "Callable[[Writer, Any], object]"
Read: TypeAlias = "Callable[[Reader, Node], object]"
W = TypeVar("W", bound=Callable[..., object])
R = TypeVar("R", bound=Callable[..., object])

WRITERS: dict[type, Write] = {}
"""By exact type. A subclass is another type: it may hold what this function does not write."""
SHAPES: list[tuple[int, Callable[[type], bool], Write]] = []
"""Families of classes (enums, dataclasses…), asked in the order of their number when no exact type fits."""
READERS: dict[str, Read] = {}


def writes(*types: type) -> Callable[[W], W]:
    """Name the decorated function as the writer of exactly these types."""

    def enter(write: W) -> W:
        for cls in types:
            WRITERS[cls] = write
        return write

    return enter


def writes_family(order: int, belongs: Callable[[type], bool]) -> Callable[[W], W]:
    """Name the decorated function as the writer of the classes that `belongs` accepts."""

    def enter(write: W) -> W:
        SHAPES.append((order, belongs, write))
        SHAPES.sort(key=lambda shape: shape[0])
        return write

    return enter


def reads(*tags: str) -> Callable[[R], R]:
    """Name the decorated function as the reader of these tags."""

    def enter(read: R) -> R:
        for tag in tags:
            READERS[tag] = read
        return read

    return enter
