"""DM v1: what is annotated and where it lies stand apart, in `annotations` and `annotationsData`, joined by ids."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepwell.pipeline.datasets import _dm
from stepwell.pipeline.datasets._checks import Fault, a_list, an_object, check_id, check_number, check_shape, told
from stepwell.pipeline.datasets._model import Annotation, Dataset, Image, Kind
from stepwell.pipeline.datasets._reading import Reading
from stepwell.pipeline.datasets._writing import Writing

_FILE = frozenset({"annotations", "annotationsData"})
_ENTRY = frozenset({"id", "tool", "classification"})
_DATA = frozenset({"id", "coordinate"})
_BOX = ("x", "y", "width", "height")
_POINT = ("x", "y")
_FIRST = "image_1"
_LONELY = "coordinates without an annotation"


def load(root: Path) -> Dataset:
    """Read a dataset. Raises BadArguments."""
    return _dm.load(root, _parse)


def _parse(value: dict[str, Any], field: _dm.Field, reading: Reading, shown: str) -> Iterator[Annotation]:
    reading.unread(shown, value, _FILE, "a file")
    field.at("annotations")
    by_image = an_object(value.get("annotations"), "")
    for media, others in by_image.items():
        if media != _FIRST and a_list(others, f".{media}"):
            reading.losses.lost("annotation", _dm.ANOTHER, f"{shown}: {media}", len(others))
    entries = a_list(by_image.get(_FIRST, []), f".{_FIRST}")
    field.at("annotationsData")
    places = an_object(value.get("annotationsData") or {}, "")
    for media, others in places.items():
        if media != _FIRST and media not in by_image and a_list(others, f".{media}"):
            reading.losses.lost("annotation", _LONELY, f"{shown}: {media}", len(others))
    data = _by_id(a_list(places.get(_FIRST, []), f".{_FIRST}"), reading, shown)
    seen: set[object] = set()
    for index, entry in enumerate(entries):
        field.at("annotations", _FIRST, index)
        id = check_id(an_object(entry, "").get("id"), ".id")
        if id is not None and id in seen:
            raise Fault(".id", f"{told(id)} is used twice")
        seen.add(id)
        tool = entry.get("tool")
        kind = _dm.TOOLS.get(tool) if isinstance(tool, str) else None
        if kind is None:
            if not isinstance(tool, str):
                raise Fault(".tool", f"expected the name of a tool, got {told(tool)}")
            reading.losses.lost("annotation", _dm.UNKNOWN, f"{shown}: {tool}")
            continue
        reading.unread(shown, entry, _ENTRY, "an annotation")
        label, attributes = _classification(entry.get("classification"), kind, reading)
        if kind is Kind.CLASSIFICATION:
            if id in data and data[id][1] not in (None, [], {}, ""):
                reading.losses.lost("field", "a classification has a coordinate", shown)
            yield Annotation(kind, label, (), id, attributes)
            continue
        if id not in data:
            raise Fault(".id", f"annotationsData.{_FIRST} has no entry with the id {told(id)}")
        place, coordinate = data[id]
        field.at("annotationsData", _FIRST, place)
        if kind in _dm.JOINING:
            yield Annotation(kind, label, (), id, attributes, coordinate)
        else:
            points = _points(kind, coordinate, reading, shown)
            yield check_shape(Annotation(kind, label, points, id, attributes), ".coordinate")
    if spare := [id for id in data if id not in seen]:
        reading.losses.lost("annotation", _LONELY, shown, len(spare))


def _by_id(entries: list[Any], reading: Reading, shown: str) -> dict[object, tuple[int, Any]]:
    found: dict[object, tuple[int, Any]] = {}
    for index, entry in enumerate(entries):
        place = f".{_FIRST}[{index}]"
        id = check_id(an_object(entry, place).get("id"), f"{place}.id")
        if id in found:
            raise Fault(f"{place}.id", f"{told(id)} is used twice")
        reading.unread(shown, entry, _DATA, "an entry of annotationsData")
        found[id] = (index, entry.get("coordinate"))
    return found


def _classification(value: object, kind: Kind, reading: Reading) -> tuple[str | None, tuple[tuple[str, Any], ...]]:
    if value is None and kind in _dm.JOINING:
        return None, ()
    named = an_object(value, ".classification")
    label = _dm.checked_label(named.get("class"), kind, reading, ".classification.class")
    return label, tuple((name, item) for name, item in named.items() if name != "class")


def _points(kind: Kind, value: object, reading: Reading, shown: str) -> tuple[float, ...]:
    if kind is Kind.BOX:
        return _named(value, _BOX, ".coordinate", reading, shown)
    if kind is Kind.KEYPOINT and isinstance(value, dict):
        return _named(value, _POINT, ".coordinate", reading, shown)
    rows = a_list(value, ".coordinate")
    if kind is Kind.KEYPOINT and len(rows) != 1:
        raise Fault(".coordinate", f"a keypoint is one point, got {len(rows)}")
    fields = (f".coordinate[{index}]" for index in range(len(rows)))
    return tuple(
        item for row, place in zip(rows, fields, strict=True) for item in _named(row, _POINT, place, reading, shown)
    )


def _named(value: object, names: tuple[str, ...], field: str, reading: Reading, shown: str) -> tuple[float, ...]:
    pairs = an_object(value, field)
    for name in names:
        check_number(pairs.get(name), f"{field}.{name}")
    if len(pairs) != len(names):
        reading.unread(shown, pairs, frozenset(names), "a coordinate")
    return tuple(pairs[name] for name in names)


def save(writing: Writing) -> None:
    """Write a dataset."""

    def made(image: Image, annotations: list[Annotation]) -> dict[str, Any]:
        entries, data = [], []
        for annotation in _with_own_ids(writing, image, annotations):
            named: dict[str, Any] = {"class": annotation.label}
            for name, value in annotation.attributes:
                if name in named:
                    writing.attribute_lost(image, name, "DM v1 has one value for a name, and 'class' is the class")
                else:
                    named[name] = value
            entries.append({"id": annotation.id, "tool": _dm.TOOL_OF[annotation.kind], "classification": named})
            if annotation.kind is not Kind.CLASSIFICATION:
                data.append({"id": annotation.id, "coordinate": _coordinate(annotation)})
        return {"annotations": {_FIRST: entries}, "annotationsData": {_FIRST: data}}

    _dm.save(writing, made)
    used = {a.label for a in writing.dataset.annotations() if a.label is not None}
    writing.classes_lost(used, "DM v1 has only the classes that something is annotated with")


def _with_own_ids(writing: Writing, image: Image, annotations: list[Annotation]) -> Iterator[Annotation]:
    """Ids join the two halves of an annotation here, so one that comes again gets a number."""
    wanted = {annotation.id for annotation in annotations}
    taken: set[object] = set()
    for annotation in annotations:
        id = annotation.id
        if id in taken:
            number = 2
            while (id := f"{annotation.id}__{number}") in wanted | taken:
                number += 1
            writing.losses.lost("id", "used twice in one image; a number is put behind it", image.place)
            annotation = replace(annotation, id=id)
        taken.add(id)
        yield annotation


def _coordinate(annotation: Annotation) -> Any:
    points = annotation.points
    if annotation.kind in _dm.JOINING:
        return annotation.members
    if annotation.kind is Kind.BOX:
        return dict(zip(_BOX, points, strict=True))
    return [{"x": x, "y": y} for x, y in zip(points[::2], points[1::2], strict=True)]
