"""Datasets for the tests: written by hand, or drawn by hypothesis."""

from __future__ import annotations

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import PIL.Image
from hypothesis import strategies as st

from stepwell.pipeline.datasets import Annotation, Dataset, Image, Kind


@cache
def picture(width: int, height: int, format: str = "PNG") -> bytes:
    out = BytesIO()
    PIL.Image.new("RGB", (width, height), (9, 99, 199)).save(out, format)
    return out.getvalue()


def put(path: Path, content: str | bytes | dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tree(root: Path) -> dict[str, bytes]:
    """All files of a folder with their bytes."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def box(label: str, *data: float, id: object = "a", **attrs: Any) -> dict[str, Any]:
    pairs = [{"name": name, "value": value} for name, value in attrs.items()]
    return {"id": id, "classification": label, "attrs": pairs, "data": list(data)}


def dm(root: Path, name: str, size: tuple[int, int] = (100, 80), **tools: list[dict[str, Any]]) -> Path:
    """Add an image to a DM v2 dataset."""
    stem = name.rpartition(".")[0]
    put(root / "original_files" / name, picture(*size))
    used = {tool: sorted({e["classification"] for e in entries}) for tool, entries in tools.items()}
    put(root / "json" / f"{stem}.json", {"classification": used, "images": [tools]})
    return root


CLASSES = st.sampled_from(["car", "no", "traffic light", "ü & <b>", "007", "a: b # c", '"q"'])
SIZES = st.tuples(st.integers(1, 300), st.integers(1, 300))
VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text())
NAMES = st.one_of(
    st.text(min_size=1).filter(lambda name: name != "class"),
    st.sampled_from(["visibility", "iscrowd", "truncated", "difficult", "occluded", "pose"]),
)
ATTRIBUTES = st.dictionaries(NAMES, st.one_of(VALUES, st.integers(0, 2)), max_size=2)
PARTS = st.floats(0, 1)
KINDS = (Kind.BOX, Kind.POLYGON)
ALL_KINDS = tuple(Kind)


@st.composite
def _annotations(draw: st.DrawFn, width: int, height: int, id: str, kinds: tuple[Kind, ...]) -> Annotation:
    kind = draw(st.sampled_from(kinds))
    label: str | None = draw(CLASSES)
    attributes = tuple(draw(ATTRIBUTES).items()) if len(kinds) > len(KINDS) else ()
    count = {Kind.BOX: 2, Kind.POLYGON: draw(st.integers(3, 5)), Kind.POLYLINE: 2, Kind.KEYPOINT: 1}.get(kind, 0)
    points = [draw(PARTS) * side for _ in range(count) for side in (width, height)]
    if kind is Kind.BOX:
        (x1, x2), (y1, y2) = sorted(points[::2]), sorted(points[1::2])
        points = [x1, y1, x2 - x1, y2 - y1]
    members = draw(st.lists(st.sampled_from(["0", "1"]))) if kind in (Kind.RELATION, Kind.GROUP) else None
    if kind in (Kind.RELATION, Kind.GROUP) and draw(st.booleans()):
        label = None
    return Annotation(kind, label, tuple(points), id, attributes, members)


@st.composite
def datasets(draw: st.DrawFn, folder: Path, kinds: tuple[Kind, ...] = KINDS, *, idle: bool = True) -> Dataset:
    """One with images in `folder`, with splits or without; `idle`: some classes nothing may be annotated with."""
    splits = draw(st.sampled_from([(), ("train", "valid"), ("train", "valid", "test")]))
    images = []
    for number in range(draw(st.integers(1, 4))):
        width, height = draw(SIZES)
        path = folder / f"{width}x{height}.png"
        path.write_bytes(picture(width, height))
        marks = [draw(_annotations(width, height, str(mark), kinds)) for mark in range(draw(st.integers(0, 4)))]
        name = draw(st.sampled_from([f"{number}.png", f"ä {number}.PNG", f"in/{number}.png", f"{number}.x.png"]))
        split = draw(st.sampled_from(splits)) if splits else None
        images.append(Image(name, path, split, annotations=marks))
    classes = draw(st.lists(CLASSES, max_size=2)) if idle else []
    return Dataset(images, tuple(classes), splits)
