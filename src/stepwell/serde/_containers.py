"""Containers that JSON does not have. Each comes back with its items in the order of the record."""

from __future__ import annotations

import collections
from typing import Any

from stepwell.serde._classes import recordable_ref
from stepwell.serde._reader import Reader
from stepwell.serde._tables import Node, reads, writes, writes_family
from stepwell.serde._writer import Writer, dumps, pairs, tagged


@writes(tuple)
def _write_tuple(writer: Writer, value: tuple[Any, ...]) -> object:
    return tagged("tuple", [writer.child(i, item) for i, item in enumerate(value)])


@reads("tuple")
def _read_tuple(reader: Reader, node: Node) -> tuple[Any, ...]:
    return tuple(reader.value(node["v"]))


@writes(set, frozenset)
def _write_set(writer: Writer, value: set[Any] | frozenset[Any]) -> object:
    # Sorted by text, so that equal sets have equal records whatever the hash seed of the process.
    nodes = [writer.child(i, item) for i, item in enumerate(value)]
    return tagged(type(value).__name__, sorted(nodes, key=dumps))


@reads("set")
def _read_set(reader: Reader, node: Node) -> set[Any]:
    return set(reader.value(node["v"]))


@reads("frozenset")
def _read_frozenset(reader: Reader, node: Node) -> frozenset[Any]:
    return frozenset(reader.value(node["v"]))


def _items(reader: Reader, node: Node) -> list[Any]:
    return [(reader.value(key), reader.value(item)) for key, item in node["v"]]


@reads("dict")
def _read_dict(reader: Reader, node: Node) -> dict[Any, Any]:
    return dict(_items(reader, node))


@writes(collections.OrderedDict, collections.Counter)
def _write_mapping(writer: Writer, value: dict[Any, Any]) -> object:
    if vars(value):
        raise writer.refused(value, "it has attributes of its own")
    return tagged(type(value).__name__.lower(), pairs(writer, value))


@reads("ordereddict")
def _read_ordereddict(reader: Reader, node: Node) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict(_items(reader, node))


@reads("counter")
def _read_counter(reader: Reader, node: Node) -> collections.Counter[Any]:
    return collections.Counter(dict(_items(reader, node)))


@writes(collections.defaultdict)
def _write_defaultdict(writer: Writer, value: collections.defaultdict[Any, Any]) -> object:
    factory = value.default_factory
    if factory is None:
        return tagged("defaultdict", pairs(writer, value))
    if not isinstance(factory, type):
        raise writer.refused(value, "its default_factory is not a class; return a dict")
    try:
        ref = recordable_ref(factory)
    except LookupError as error:
        raise writer.refused(value, f"its default_factory: {error}") from None
    return tagged("defaultdict", pairs(writer, value), c=ref)


@reads("defaultdict")
def _read_defaultdict(reader: Reader, node: Node) -> collections.defaultdict[Any, Any]:
    factory = reader.find(node["c"]) if "c" in node else None
    return collections.defaultdict(factory, _items(reader, node))


def _is_namedtuple(cls: type) -> bool:
    fields = getattr(cls, "_fields", None)
    return issubclass(cls, tuple) and isinstance(fields, tuple) and all(isinstance(name, str) for name in fields)


@writes_family(40, _is_namedtuple)
def _write_namedtuple(writer: Writer, value: Any) -> object:
    try:
        ref = recordable_ref(type(value))
    except LookupError as error:
        raise writer.refused(value, str(error)) from None
    if getattr(value, "__dict__", None) or len(value) != len(value._fields):
        raise writer.refused(value, "it holds more than its fields")
    fields = {name: writer.child(name, item) for name, item in zip(value._fields, value, strict=True)}
    return tagged("namedtuple", fields, c=ref)


@reads("namedtuple")
def _read_namedtuple(reader: Reader, node: Node) -> Any:
    cls: Any = reader.find(node["c"])
    if not _is_namedtuple(cls):
        raise LookupError(f"{node['c']} has changed: it is no NamedTuple any more")
    recorded = reader.value(node["v"])
    values = []
    for name in cls._fields:
        if name in recorded:
            values.append(recorded.pop(name))
        elif name in cls._field_defaults:
            values.append(cls._field_defaults[name])
        else:
            raise LookupError(f"{node['c']} has changed: the record has no field {name!r}")
    if recorded:
        raise LookupError(f"{node['c']} has changed: it has no field {next(iter(recorded))!r} any more")
    return tuple.__new__(cls, values)
