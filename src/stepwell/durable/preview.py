"""Previews: what to keep in view of a value whose text lies elsewhere, without what nobody is to see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.durable._checks import check_count, check_member
from stepwell.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FieldMatchMode", "PreviewConfig", "PreviewField", "PreviewMode", "build_preview"]

DEEPEST = 20
"""Levels of a value that a preview shows."""
MORE = "…"


class PreviewMode(StrEnum):
    """What a preview begins with: INCLUDE_ALL, all fields; EXCLUDE_ALL, none but those of ``include``."""

    INCLUDE_ALL = "INCLUDE_ALL"
    EXCLUDE_ALL = "EXCLUDE_ALL"


class FieldMatchMode(StrEnum):
    """What a field is found by. NAME: its name, at any depth. PATH: the names from the top, with dots between
    (positions in lists do not count). GLOB: a pattern with ``*``, ``?`` and ``[...]`` for such a path.
    """

    NAME = "NAME"
    PATH = "PATH"
    GLOB = "GLOB"


class PreviewField(msgspec.Struct, frozen=True):
    """Fields of a value, and all that is inside them."""

    field: str
    match: FieldMatchMode = FieldMatchMode.NAME

    def __post_init__(self) -> None:
        """Refuse what cannot be meant. Raises ValidationError."""
        check_member("match", self.match, FieldMatchMode)
        if not isinstance(self.field, str):
            raise ValidationError(f"field must be a text, not {self.field!r}")

    def matches(self, path: tuple[str, ...]) -> bool:
        """Whether it means the field at this path."""
        match self.match:
            case FieldMatchMode.NAME:
                return path[-1] == self.field
            case FieldMatchMode.PATH:
                return ".".join(path) == self.field
            case FieldMatchMode.GLOB:
                return fnmatchcase(".".join(path), self.field)


class PreviewConfig(msgspec.Struct, frozen=True):
    """How a preview is made. A field may be given as text: a path where there is a dot in it, else a name.

    Attributes:
        mode: what it begins with.
        include: shown in EXCLUDE_ALL, with all that is inside.
        exclude: left out, also from what is included.
        mask: shown as ``mask_string``; wins over ``exclude``.
        mask_string: what masked fields and secrets are shown as.
        max_preview_bytes: greatest size of the preview as JSON; what does not fit is cut.
    """

    mode: PreviewMode = PreviewMode.INCLUDE_ALL
    include: Sequence[PreviewField | str] = ()
    exclude: Sequence[PreviewField | str] = ()
    mask: Sequence[PreviewField | str] = ()
    mask_string: str = "***"
    max_preview_bytes: int = 4096

    def __post_init__(self) -> None:
        """Refuse what cannot be meant. Raises ValidationError."""
        check_member("mode", self.mode, PreviewMode)
        check_count("max_preview_bytes", self.max_preview_bytes, 2)
        if not isinstance(self.mask_string, str):
            raise ValidationError(f"mask_string must be a text, not {self.mask_string!r}")
        for what in ("include", "exclude", "mask"):
            given: Any = getattr(self, what)
            if (
                isinstance(given, str)
                or not isinstance(given, Iterable)
                or not all(isinstance(field, str | PreviewField) for field in given)
            ):
                raise ValidationError(f"{what} is a list of field names and PreviewFields, not {given!r}")


def build_preview(value: Any, config: PreviewConfig | None = None) -> Any:
    """A small plain picture of a value: dicts, lists, texts and numbers only.

    Secrets, and texts that a secret of the run was revealed as, are masked whatever the config says. Objects without
    fields are shown by their type alone: their text might tell too much.
    """
    from stepwell.serde import current_redactor

    settings = config or PreviewConfig()
    shown = _Builder(settings).shown(value, (), included=settings.mode is PreviewMode.INCLUDE_ALL)
    shown = {} if shown is _NOTHING else shown
    redactor = current_redactor.get()
    if redactor is not None:
        shown = redactor.redact_value(shown)
    fitting, _ = _fit(shown, settings.max_preview_bytes)
    return None if fitting is _NOTHING else fitting


class _Nothing:
    """Of this value nothing is shown."""


_NOTHING = _Nothing()


class _Builder:
    def __init__(self, config: PreviewConfig) -> None:
        self._mask_string = config.mask_string
        self._include = _fields(config.include)
        self._exclude = _fields(config.exclude)
        self._mask = _fields(config.mask)

    def shown(self, value: Any, path: tuple[str, ...], *, included: bool, depth: int = 0) -> Any:
        """The picture of a value. Of what is not included only what is inside an included field."""
        if depth > DEEPEST:
            return MORE if included else _NOTHING
        members = _members(value)
        if members is not None:
            found = {}
            for name, member in members:
                inner = self._member(member, (*path, name), included, depth + 1)
                if inner is not _NOTHING:
                    found[name] = inner
            return found if found or included else _NOTHING
        if isinstance(value, list | tuple | set | frozenset):
            inners = [self.shown(item, path, included=included, depth=depth + 1) for item in value]
            items = [inner for inner in inners if inner is not _NOTHING]
            return items if items or included else _NOTHING
        return self._leaf(value) if included else _NOTHING

    def _member(self, value: Any, path: tuple[str, ...], included: bool, depth: int) -> Any:
        included = included or any(field.matches(path) for field in self._include)
        if included and any(field.matches(path) for field in self._mask):
            return self._mask_string
        if any(field.matches(path) for field in self._exclude):
            return _NOTHING
        return self.shown(value, path, included=included, depth=depth)

    def _leaf(self, value: Any) -> Any:
        from datetime import date, time, timedelta
        from decimal import Decimal
        from pathlib import PurePath
        from uuid import UUID

        from stepwell.serde import Secret

        if value is None or isinstance(value, bool | str):
            return value if type(value) is not str or not isinstance(value, Enum) else value.value
        if isinstance(value, Enum):
            return self._leaf(value.value)
        if isinstance(value, int | float):
            return value if -(2**53) <= value <= 2**53 else str(value)
        if isinstance(value, Secret):
            return self._mask_string
        if isinstance(value, bytes | bytearray):
            return f"<{len(value)} bytes>"
        if isinstance(value, date | time | timedelta | Decimal | UUID | PurePath):
            return str(value)
        return f"<{type(value).__name__}>"


def _fields(given: Iterable[PreviewField | str]) -> tuple[PreviewField, ...]:
    return tuple(
        field
        if isinstance(field, PreviewField)
        else PreviewField(field, FieldMatchMode.PATH if "." in field else FieldMatchMode.NAME)
        for field in given
    )


def _members(value: Any) -> Iterator[tuple[str, Any]] | None:
    """The fields of a value that has some, as its class knows them: nothing is called."""
    if isinstance(value, Mapping):
        return ((str(name), value[name]) for name in value)
    kind = type(value)
    names: Iterable[str] | None = None
    for listed in ("__dataclass_fields__", "__pydantic_fields__", "__struct_fields__", "_fields"):
        found = getattr(kind, listed, None)
        if found is not None and not (listed == "_fields" and not isinstance(value, tuple)):
            names = tuple(found)
            break
    return None if names is None else ((name, getattr(value, name, None)) for name in names)


def _fit(shown: Any, room: int) -> tuple[Any, int]:
    """As much of a picture as fits, and its size: both in bytes of JSON."""
    if isinstance(shown, dict):
        return _fit_dict(shown, room)
    if isinstance(shown, list):
        return _fit_list(shown, room)
    size = _size(shown)
    if size <= room:
        return shown, size
    if isinstance(shown, str):
        return _fit_text(shown, room)
    return _NOTHING, 0


def _fit_text(text: str, room: int) -> tuple[Any, int]:
    """The beginning of a text."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if _size(text[:middle] + MORE) <= room:
            low = middle
        else:
            high = middle - 1
    cut = text[:low] + MORE
    size = _size(cut)
    return (cut, size) if size <= room else (_NOTHING, 0)


def _fit_dict(shown: dict[str, Any], room: int) -> tuple[Any, int]:
    """The first fields; where some are left out, ``…`` says how many."""
    if room < 2:
        return _NOTHING, 0
    found: dict[str, Any] = {}
    size, left = 2, len(shown)
    for name, value in shown.items():
        left -= 1
        reserve = _size(MORE) + 3 + len(str(left + 1)) if left else 0
        head = _size(name) + 1 + bool(found)
        inner, taken = _fit(value, room - size - head - reserve)
        if inner is _NOTHING:
            rest = _size(MORE) + 1 + bool(found) + len(str(left + 1))
            if size + rest <= room:
                found[MORE] = left + 1
                size += rest
            break
        found[name] = inner
        size += head + taken
    return found, size


def _fit_list(shown: list[Any], room: int) -> tuple[Any, int]:
    """The first items; where some are left out, ``…`` stands last."""
    if room < 2:
        return _NOTHING, 0
    found: list[Any] = []
    size, left = 2, len(shown)
    for value in shown:
        left -= 1
        reserve = _size(MORE) + 1 if left else 0
        inner, taken = _fit(value, room - size - bool(found) - reserve)
        if inner is _NOTHING:
            rest = _size(MORE) + bool(found)
            if size + rest <= room:
                found.append(MORE)
                size += rest
            break
        size += bool(found) + taken
        found.append(inner)
    return found, size


def _size(value: Any) -> int:
    return len(msgspec.json.encode(value))
