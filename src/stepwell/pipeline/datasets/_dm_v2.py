"""DM v2: `json/<stem>.json` beside `original_files/`; annotations by tool, each with its data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stepwell.pipeline.datasets import _dm
from stepwell.pipeline.datasets._checks import Fault, a_list, an_object, check_id, check_shape, numbers, told
from stepwell.pipeline.datasets._model import Annotation, Dataset, Image, Kind
from stepwell.pipeline.datasets._reading import Reading
from stepwell.pipeline.datasets._writing import Writing

_FILE = frozenset({"classification", "images"})
_ENTRY = frozenset({"id", "classification", "attrs", "data"})
_ATTRIBUTE = frozenset({"name", "value"})


def load(root: Path) -> Dataset:
    """Read a dataset. Raises BadArguments."""
    return _dm.load(root, _parse)


def _parse(value: dict[str, Any], field: _dm.Field, reading: Reading, shown: str) -> Iterator[Annotation]:
    reading.unread(shown, value, _FILE, "a file")
    field.at("classification")
    for tool, names in an_object(value.get("classification") or {}, "").items():
        for index, name in enumerate(a_list(names, f".{tool}")):
            reading.label(name, f".{tool}[{index}]")
    field.at("images")
    media = a_list(value.get("images"), "")
    for index, other in enumerate(media[1:], 1):
        lists = an_object(other, f"[{index}]").items()
        if count := sum(len(a_list(entries, f"[{index}].{tool}")) for tool, entries in lists):
            reading.losses.lost("annotation", _dm.ANOTHER, f"{shown}: images[{index}]", count)
    for tool, entries in an_object(media[0], "[0]").items() if media else ():
        field.at("images", 0, tool)
        a_list(entries, "")
        kind = _dm.TOOLS.get(tool)
        if kind is None:
            if entries:
                reading.losses.lost("annotation", _dm.UNKNOWN, f"{shown}: {tool}", len(entries))
            continue
        for index, entry in enumerate(entries):
            field.at("images", 0, tool, index)
            yield _annotation(kind, an_object(entry, ""), reading, shown)


def _annotation(kind: Kind, entry: dict[str, Any], reading: Reading, shown: str) -> Annotation:
    reading.unread(shown, entry, _ENTRY, "an annotation")
    label = _dm.checked_label(entry.get("classification"), kind, reading)
    attributes = _attributes(entry["attrs"], reading, shown) if entry.get("attrs") else ()
    data = entry.get("data")
    id = check_id(entry.get("id"), ".id")
    if kind in _dm.JOINING:
        return Annotation(kind, label, (), id, attributes, data)
    points: tuple[float, ...] = ()
    if kind is Kind.BOX:
        points = numbers(data, 4, ".data")
    elif kind is Kind.KEYPOINT:
        points = numbers(data, 2, ".data")
    elif kind is not Kind.CLASSIFICATION:
        rows = a_list(data, ".data")
        points = tuple(item for index, row in enumerate(rows) for item in numbers(row, 2, f".data[{index}]"))
    elif data not in (None, [], ""):
        reading.losses.lost("field", "a classification has data", shown)
    return check_shape(Annotation(kind, label, points, id, attributes), ".data")


def _attributes(value: object, reading: Reading, shown: str) -> tuple[tuple[str, Any], ...]:
    found = []
    for index, item in enumerate(a_list(value, ".attrs")):
        attribute = an_object(item, f".attrs[{index}]")
        name = attribute.get("name")
        if not isinstance(name, str):
            raise Fault(f".attrs[{index}].name", f"expected text, got {told(name)}")
        reading.unread(shown, attribute, _ATTRIBUTE, "an attribute")
        found.append((name, attribute.get("value")))
    return tuple(found)


def save(writing: Writing) -> None:
    """Write a dataset.

    Classes that nothing is annotated with are declared in the file of the first image, as classes of boxes: a DM
    dataset has no list of classes but those in its files.
    """
    used = {a.label for a in writing.dataset.annotations()}
    idle = [name for name in writing.dataset.classes if name not in used]
    first = writing.dataset.images[0] if writing.dataset.images else None

    def made(image: Image, annotations: list[Annotation]) -> dict[str, Any]:
        tools: dict[str, list[dict[str, Any]]] = {}
        names: dict[str, set[str]] = {}
        for annotation in annotations:
            tool = _dm.TOOL_OF[annotation.kind]
            tools.setdefault(tool, []).append(_entry(annotation))
            if annotation.label is not None:
                names.setdefault(tool, set()).add(annotation.label)
        if image is first and idle:
            names.setdefault(_dm.TOOL_OF[Kind.BOX], set()).update(idle)
        # In the order of the annotations, whichever of them was the first to have a class: what is read is so ordered.
        order = [tool for tool in tools if tool in names] + [tool for tool in names if tool not in tools]
        return {"classification": {tool: sorted(names[tool]) for tool in order}, "images": [tools]}

    _dm.save(writing, made)
    if first is None:
        writing.classes_lost(set(), "DM v2 declares classes in the files of images, and there is none")


def _entry(annotation: Annotation) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "id": annotation.id,
        "classification": annotation.label,
        "attrs": [{"name": name, "value": value} for name, value in annotation.attributes],
    }
    points = annotation.points
    if annotation.kind in _dm.JOINING:
        entry["data"] = annotation.members
    elif annotation.kind in (Kind.BOX, Kind.KEYPOINT):
        entry["data"] = list(points)
    elif annotation.kind is not Kind.CLASSIFICATION:
        entry["data"] = [[x, y] for x, y in zip(points[::2], points[1::2], strict=True)]
    return entry
