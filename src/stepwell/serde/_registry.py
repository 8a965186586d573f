"""How a class of a higher floor joins the format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from stepwell.errors import UsageError, class_ref
from stepwell.serde._reader import Reader
from stepwell.serde._tables import READERS, WRITERS, Node
from stepwell.serde._writer import Writer, tagged

T = TypeVar("T")
_registered: dict[str, str] = {}


def register(tag: str, cls: type[T], to_plain: Callable[[T], Any], from_plain: Callable[[Any], T]) -> None:
    """Let instances of exactly `cls` be recorded, under `tag`.

    `to_plain(value)` gives a value of any types that can be recorded; `from_plain` makes the instance of it. The module
    of `cls` has to call this when it is imported: a reader that does not know the tag imports that module. Raises
    UsageError for a tag that belongs to another class.
    """
    ref = class_ref(cls)
    if _registered.get(tag, ref) != ref or (tag in READERS and tag not in _registered):
        raise UsageError(f"the tag {tag!r} is taken")

    def write(writer: Writer, value: T) -> object:
        return tagged(tag, writer.child("v", to_plain(value)), c=ref)

    def read(reader: Reader, node: Node) -> T:
        return from_plain(reader.value(node["v"]))

    _registered[tag] = ref
    WRITERS[cls] = write
    READERS[tag] = read
