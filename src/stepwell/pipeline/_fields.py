"""The recordable fields of a pipeline's context: what of them has changed, and how they come back."""

from __future__ import annotations

import copy
import dataclasses
import re
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from stepwell import serde
from stepwell.errors import SerDesError
from stepwell.pipeline.steps.context import LINK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from stepwell.pipeline.steps.context import BaseStepContext

NEVER = frozenset({"runtime_ctx", "step_results", "current_step"})
FIXED = frozenset({
    str, int, float, bool, bytes, type(None), Decimal, UUID, date, datetime, time, timedelta, complex,
})  # fmt: skip
"""Types whose objects cannot change. The same object is the same content, and is not serialized again; so is a tuple or
frozenset that holds nothing else. What a list or dict holds can only be known by looking at all of it."""
_MISSING = object()


class Unrecordable(Exception):
    """Fields, or parts of a result, that cannot be recorded. ``args[0]`` is the error text of the step."""


class Fields:
    """What is on record of one context object, by field."""

    def __init__(self, context: BaseStepContext) -> None:
        self.context = context
        self.names: tuple[str, ...] = tuple(_recordable(context))
        self.known: dict[str, str] = {}
        """Text of each field as it is on record (secrets not masked: this never leaves memory)."""
        self._seen: dict[str, Any] = {}
        """What is on record of each field, as an object; only of those that cannot change."""

    def changed(self) -> tuple[dict[str, str], dict[str, str]]:
        """Fields that are not as on record: their texts, and why others cannot be recorded. See `keep`."""
        texts: dict[str, str] = {}
        bad: dict[str, str] = {}
        for name in self.names:
            value = getattr(self.context, name, _MISSING)
            if value is _MISSING or value is self._seen.get(name, _MISSING):
                continue
            try:
                text = serde.encode(value, place="field")
            except SerDesError as error:
                bad[name] = (
                    f"context field '{name}' cannot be recorded ({why(error)}); "
                    'declare it with field(metadata={"transient": True})'
                )
                continue
            if text != self.known.get(name):
                texts[name] = text
            elif _is_fixed(value):
                self._seen[name] = value
        return texts, bad

    def keep(self, texts: Mapping[str, str]) -> None:
        """These are on record now."""
        self.known.update(texts)
        for name in texts:
            value = getattr(self.context, name, _MISSING)
            if _is_fixed(value):
                self._seen[name] = value
            else:
                self._seen.pop(name, None)

    def put(self, texts: Mapping[str, str]) -> None:
        """Give the context these recorded values. Fields that it does not have (any more) are passed over."""
        for name, text in texts.items():
            if name in self.names:
                value = serde.decode(text, key=f"context.{name}")
                setattr(self.context, name, value)
                self.known[name] = text
                self._seen.pop(name, None)

    def reset(self, texts: Mapping[str, str]) -> None:
        """Give the context these values again, without a word on what is on record."""
        for name, text in texts.items():
            setattr(self.context, name, serde.decode(text, key=f"context.{name}"))
            self._seen.pop(name, None)

    def snapshot(self) -> dict[str, str]:
        """All fields as they are now; those that cannot be recorded are left out."""
        texts, _ = self.changed()
        return {**self.known, **texts}

    def copied(self, texts: Mapping[str, str]) -> Fields:
        """A copy of the context with these values of its own; what is not recorded is shared."""
        twin = copy.copy(self.context)
        twin.__dict__.pop(LINK, None)
        twin.step_results = list(self.context.step_results)
        fields = Fields(twin)
        fields.put(texts)
        return fields

    def take(self, other: Fields, texts: Mapping[str, str]) -> None:
        """Take these values over from a copy."""
        for name in texts:
            setattr(self.context, name, getattr(other.context, name))


def _is_fixed(value: object) -> bool:
    if type(value) in (tuple, frozenset):
        return all(map(_is_fixed, cast("Iterable[object]", value)))
    return type(value) in FIXED or isinstance(value, PurePath)


def _recordable(context: BaseStepContext) -> Iterator[str]:
    for field in dataclasses.fields(context):
        meta = field.metadata
        if field.name not in NEVER and not meta.get("transient") and not meta.get("secret"):
            yield field.name


def strangers(context: BaseStepContext) -> list[str]:
    """Attributes of the context that are no fields: they are not recorded."""
    known = {field.name for field in dataclasses.fields(context)}
    return [name for name in context.__dict__ if name not in known and name != LINK]


def secrets(context: BaseStepContext) -> Iterator[str]:
    """The texts in its secret fields, and those of pydantic's secret types in any field."""
    for field in dataclasses.fields(context):
        value = getattr(context, field.name, None)
        if field.metadata.get("secret") or (value is not None and hasattr(value, "get_secret_value")):
            yield from _texts(value)


def _texts(value: Any) -> Iterator[str]:
    if hasattr(value, "get_secret_value"):
        value = value.get_secret_value()
    if isinstance(value, str):
        yield value
    elif isinstance(value, bytes):
        yield value.decode("utf-8", "surrogateescape")
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _texts(item)


def why(error: SerDesError) -> str:
    """The type that is in the way, else what the serializer says."""
    found = re.search(r": (\S+) cannot be recorded(?:;|$)", str(error))
    return found[1] if found else str(error).partition(": ")[2] or str(error)
