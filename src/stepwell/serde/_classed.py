"""Enums, dataclasses and pydantic models: what is restored by giving a class back its attributes.

No constructor, validator or `__post_init__` runs on load: the record holds what they made of the arguments, and running
them again could change it, fail, or act on the world.
"""

from __future__ import annotations

import sys
from enum import Enum, EnumMeta
from functools import cached_property
from types import MemberDescriptorType
from typing import Any

from stepwell.serde._classes import recordable_ref, static_base
from stepwell.serde._reader import Reader
from stepwell.serde._tables import Node, reads, writes_family
from stepwell.serde._writer import Writer, tagged


def reference(writer: Writer, value: object) -> str:
    """The name of the value's class for the record; SerDesError where it cannot be found again."""
    try:
        return recordable_ref(type(value))
    except LookupError as error:
        raise writer.refused(value, str(error)) from None


@writes_family(0, lambda cls: isinstance(cls, EnumMeta))
def _write_enum(writer: Writer, value: Enum) -> object:
    ref = reference(writer, value)
    if type(value).__members__.get(value.name) is value:
        return tagged("enum", value.name, c=ref)
    # A combination of flags, or a member that `_missing_` made up: known by its value only.
    return tagged("enum", {"value": writer.child("value", value.value)}, c=ref)


@reads("enum")
def _read_enum(reader: Reader, node: Node) -> Enum:
    cls: Any = reader.find(node["c"])
    if not isinstance(cls, EnumMeta):
        raise LookupError(f"{node['c']} has changed: it is no Enum any more")
    recorded = node["v"]
    member: Any
    if isinstance(recorded, str):
        member = cls.__members__.get(recorded)
        if member is None:
            raise LookupError(f"{node['c']} has changed: it has no member {recorded!r} any more")
    else:
        member = cls(reader.value(recorded["value"]))
    found: Enum = member
    return found


_CONTENT = (str, int, float, bytes, bytearray, list, dict, tuple, set, frozenset)


def _is_dataclass(cls: type) -> bool:
    return hasattr(cls, "__dataclass_fields__") and not issubclass(cls, (*_CONTENT, BaseException))


def _derived(cls: type, name: str) -> bool:
    return isinstance(getattr(cls, name, None), cached_property)


def _state(value: object) -> dict[str, Any]:
    """Every attribute of the instance, slots included, whatever its class says about pickling."""
    state: Any = object.__getstate__(value)
    if isinstance(state, tuple):
        return {**(state[0] or {}), **state[1]}
    return dict(state or {})  # a copy: what is given is the live `__dict__`


@writes_family(30, _is_dataclass)
def _write_dataclass(writer: Writer, value: Any) -> object:
    from dataclasses import fields

    cls = type(value)
    ref = reference(writer, value)
    if static_base(cls) is not object:
        raise writer.refused(value)
    state = _state(value)
    names = [field.name for field in fields(value)]
    content = {name: writer.child(name, state.pop(name)) for name in names if name in state}
    rest = {name: writer.child(name, item) for name, item in state.items() if not _derived(cls, name)}
    return tagged("dataclass", content, c=ref, **({"x": rest} if rest else {}))


@reads("dataclass")
def _read_dataclass(reader: Reader, node: Node) -> Any:
    from dataclasses import MISSING, fields

    ref = node["c"]
    cls = reader.find(ref)
    if not _is_dataclass(cls):
        raise LookupError(f"{ref} has changed: it is no dataclass any more")
    value: Any = object.__new__(cls)
    recorded = reader.value(node["v"])
    for field in fields(value):
        if field.name in recorded:
            _put(value, field.name, recorded.pop(field.name))
        elif field.default_factory is not MISSING:
            _put(value, field.name, field.default_factory())
        elif field.default is not MISSING:
            if not hasattr(cls, field.name) or isinstance(getattr(cls, field.name), MemberDescriptorType):
                _put(value, field.name, field.default)
        elif field.init and not hasattr(getattr(cls, field.name, None), "__set__"):
            raise LookupError(f"{ref} has changed: the record has no field {field.name!r}")
    if recorded:
        raise LookupError(f"{ref} has changed: it has no field {next(iter(recorded))!r} any more")
    for name, item in node.get("x", {}).items():
        _put(value, name, reader.value(item))
    return value


def _put(value: Any, name: str, item: object) -> None:
    """Set an attribute below `__setattr__` (frozen classes forbid it) and below properties (they would act)."""
    if isinstance(getattr(type(value), name, None), MemberDescriptorType):
        object.__setattr__(value, name, item)
        return
    attributes = getattr(value, "__dict__", None)
    if attributes is None:
        raise LookupError(f"{type(value).__qualname__} has changed: it has no slot {name!r} any more")
    attributes[name] = item


def _model_class() -> Any:
    """Pydantic's BaseModel, if somebody has imported it; else a class that nothing is an instance of."""
    return getattr(sys.modules.get("pydantic.main"), "BaseModel", _Nothing)


class _Nothing:
    pass


@writes_family(20, lambda cls: issubclass(cls, _model_class()))
def _write_model(writer: Writer, value: Any) -> object:
    cls = type(value)
    ref = reference(writer, value)
    fields = cls.__pydantic_fields__
    content = {
        name: writer.child(name, item)
        for name, item in value.__dict__.items()
        if name in fields or not _derived(cls, name)
    }
    more: dict[str, object] = {"set": sorted(value.__pydantic_fields_set__)}
    for member, attribute in (("extra", "__pydantic_extra__"), ("private", "__pydantic_private__")):
        items = getattr(value, attribute, None)
        if items:
            more[member] = writer.child(attribute, dict(items))
    return tagged("pydantic", content, c=ref, **more)


@reads("pydantic")
def _read_model(reader: Reader, node: Node) -> Any:
    ref = node["c"]
    cls: Any = reader.find(ref)
    if not issubclass(cls, _model_class()):
        raise LookupError(f"{ref} has changed: it is no pydantic model any more")
    recorded = reader.value(node["v"])
    fields = cls.__pydantic_fields__
    for name in recorded:
        if name not in fields:
            raise LookupError(f"{ref} has changed: it has no field {name!r} any more")
    for name, field in fields.items():
        if name not in recorded:
            if field.is_required():
                raise LookupError(f"{ref} has changed: the record has no field {name!r}")
            recorded[name] = field.get_default(call_default_factory=True, validated_data=recorded)
    value = cls.__new__(cls)
    put = object.__setattr__
    put(value, "__dict__", recorded)
    put(value, "__pydantic_fields_set__", set(node["set"]))
    if not cls.__pydantic_root_model__:  # which has neither, and would take them for fields
        extra = reader.value(node["extra"]) if "extra" in node else None
        put(value, "__pydantic_extra__", {} if extra is None and cls.model_config.get("extra") == "allow" else extra)
        put(value, "__pydantic_private__", _private(cls, reader.value(node.get("private", {}))))
    return value


def _private(cls: Any, recorded: dict[str, Any]) -> dict[str, Any] | None:
    if not cls.__private_attributes__:
        return None
    from pydantic_core import PydanticUndefined

    for name, attribute in cls.__private_attributes__.items():
        if name not in recorded:
            default = attribute.get_default()
            if default is not PydanticUndefined:
                recorded[name] = default
    return recorded
