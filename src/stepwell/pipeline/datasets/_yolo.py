"""YOLO: one text file an image, a line an annotation, coordinates as parts of the image's width and height.

https://docs.ultralytics.com/datasets/detect, /segment and /pose describe the lines. Six decimals are written: half a
pixel is far above that in any image, and what is read comes out again as the same text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepwell.errors import BadArguments, MissingExtra
from stepwell.pipeline.datasets._checks import Fault, malformed, text_number, told
from stepwell.pipeline.datasets._files import read_text
from stepwell.pipeline.datasets._model import SEEN, VISIBILITY, Annotation, Dataset, Image, Kind, is_hidden
from stepwell.pipeline.datasets._reading import Reading, stem
from stepwell.pipeline.datasets._writing import Writing

IMAGES, LABELS = "images", "labels"
CONFIG, CLASSES = "dataset.yaml", "classes.txt"
_CONFIGS = (CONFIG, "data.yaml")

_EDGE = 1e-6
"""How far rounded values may stick out of the image: a box that is read must not be clipped when it is written."""
_OUTSIDE = 0.01
"""How far values may stick out when reading; more than that, and they are not parts of a whole."""
_FINE = 500_000
"""Pixels along a side up to which six decimals tell a place to half a pixel."""


@dataclass(frozen=True, slots=True)
class _Config:
    names: dict[str, str]
    """Classes by their numbers, as they stand in a line."""
    keypoints: tuple[int, int] | None = None
    """How many there are in a line, and how many values (2 or 3) each has."""


def load(root: Path) -> Dataset:
    """Read a dataset.

    Raises:
        BadArguments: something is malformed or missing.
        MissingExtra: Pillow or PyYAML is not installed (extra `images`).
    """
    reading = Reading(root, folders=(IMAGES, LABELS))
    config = _config(reading)
    numbers = _numbers()
    for split, folder in reading.folders():
        files = reading.image_files(folder / IMAGES)
        labels = reading.label_files(folder / LABELS, ".txt", optional=True)
        for name, path in files.items():
            image = reading.add(split, name, path)
            if (label := labels.get(stem(name))) is not None:
                image.annotations.extend(_annotations(label, image, config, numbers))
        stems = {stem(name) for name in files}
        spare = [path for name, path in labels.items() if name not in stems]
        reading.orphans([path for path in spare if path != root / LABELS / CLASSES])  # some tools put it there
    return reading.dataset()


def _numbers() -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield str(number)


def _config(reading: Reading) -> _Config:
    for name in _CONFIGS:
        if (path := reading.root / name).is_file():
            return _of_yaml(path, reading)
    path = reading.root / CLASSES
    if not path.is_file():
        raise BadArguments(f"no {CONFIG} in {reading.root}")
    lines = read_text(path).split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return _Config(_labels(dict(enumerate(line.removesuffix("\r") for line in lines)), path, reading))


def _of_yaml(path: Path, reading: Reading) -> _Config:
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("images", f"reading {path.name}") from error
    try:
        # All scalars as text: YAML takes a class named `no` for a truth value, and one named 007 for a number.
        value: Any = yaml.load(read_text(path), yaml.BaseLoader)  # noqa: S506 - makes nothing but text, lists and dicts
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise malformed(path, line, f"not YAML: {error.problem} (column {column})") from error
    except yaml.YAMLError as error:
        raise malformed(path, 1, f"not YAML: {error}") from error
    except RecursionError as error:
        raise malformed(path, 1, "not YAML: nested too deeply") from error
    if not isinstance(value, dict):
        raise malformed(path, 1, "expected a mapping")
    names = value.get("names")
    if isinstance(names, list):
        numbered: dict[int, Any] = dict(enumerate(names))
    elif isinstance(names, dict):
        numbered = {}
        for key, name in names.items():
            if not re.fullmatch(r"[0-9]{1,9}", key) or int(key) in numbered:
                raise malformed(path, f"names.{told(key)}", "expected the number of a class, once")
            numbered[int(key)] = name
    else:
        raise malformed(path, "names", "expected a list or a mapping of classes")
    count = value.get("nc", len(numbered))
    if str(count) != str(len(numbered)):
        raise malformed(path, "nc", f"{told(count)} classes, but {len(numbered)} names")
    return _Config(_labels(numbered, path, reading), _keypoint_shape(value.get("kpt_shape"), path))


def _labels(names: dict[int, Any], path: Path, reading: Reading) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, name in names.items():
        try:
            label = reading.label(name, "")
        except Fault as fault:
            where = number + 1 if path.name == CLASSES else f"names[{number}]"
            raise malformed(path, where, fault.problem) from fault
        if label in found.values():
            reading.losses.lost("class", "two classes have one name", label)
        found[str(number)] = label
    return found


def _keypoint_shape(value: Any, path: Path) -> tuple[int, int] | None:
    if value is None:
        return None
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(item, str) and re.fullmatch("[0-9]{1,6}", item) for item in value)
    ):
        count, width = int(value[0]), int(value[1])
        if count > 0 and width in (2, 3):
            return count, width
    raise malformed(path, "kpt_shape", f"expected [how many, 2 or 3], got {told(value)}")


def _annotations(path: Path, image: Image, config: _Config, numbers: Iterator[str]) -> Iterator[Annotation]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        words = line.split()
        if not words:
            continue
        try:
            yield from _of_line(words, image, config, numbers)
        except Fault as fault:
            raise malformed(path, number, fault.problem) from fault


def _of_line(words: list[str], image: Image, config: _Config, numbers: Iterator[str]) -> Iterator[Annotation]:
    label = config.names.get(words[0]) or config.names.get(_whole(words[0]))
    if label is None:
        raise Fault("", f"no class has the number {told(words[0])}")
    values = [text_number(word, "") for word in words[1:]]
    if config.keypoints and len(values) == 4 + config.keypoints[0] * config.keypoints[1]:
        yield from _pose(label, values, config.keypoints[1], image, numbers)
        return
    _check_parts(values)
    if len(values) == 4:
        yield Annotation(Kind.BOX, label, _box(values, image))
    elif len(values) >= 6 and len(values) % 2 == 0:
        yield Annotation(Kind.POLYGON, label, _pixels(values, image))
    else:
        raise Fault("", f"{len(words)} values are neither a box (5) nor a polygon (7, 9, …)")


def _whole(word: str) -> str:
    """The number of a class as some tools write it: `3.0`."""
    number = text_number(word, "")
    return f"{number:.0f}" if number.is_integer() else word


def _check_parts(values: Sequence[float]) -> None:
    for value in values:
        if not -_OUTSIDE <= value <= 1 + _OUTSIDE:
            raise Fault("", f"{value:g} is no part of the image's width or height (0 … 1)")


def _box(values: Sequence[float], image: Image) -> tuple[float, ...]:
    width, height = image.size
    x, y, w, h = values
    if w < 0 or h < 0:
        raise Fault("", "a box of negative size")
    return (x - w / 2) * width, (y - h / 2) * height, w * width, h * height


def _pixels(values: Sequence[float], image: Image) -> tuple[float, ...]:
    width, height = image.size
    return tuple(value * (height if index % 2 else width) for index, value in enumerate(values))


def _pose(label: str, values: list[float], step: int, image: Image, numbers: Iterator[str]) -> Iterator[Annotation]:
    """A box, its keypoints and the group of them; a lone keypoint in a box without extent is just a keypoint."""
    box, rows = values[:4], [values[start : start + step] for start in range(4, len(values), step)]
    _check_parts(box)
    points = []
    for row in rows:
        _check_parts(row[:2])
        seen = row[2] if step == 3 else SEEN
        if seen not in (0, 1, SEEN):
            raise Fault("", f"{seen:g} is no visibility of a keypoint (0, 1 or 2)")
        if seen or any(row[:2]):  # 0 0 0 stands for a keypoint that is not there
            attributes = () if seen == SEEN else ((VISIBILITY, int(seen)),)
            points.append((_pixels(row[:2], image), attributes))
    if len(rows) == len(points) == 1 and box == [*rows[0][:2], 0, 0]:
        yield Annotation(Kind.KEYPOINT, label, points[0][0], None, points[0][1])
        return
    ids = [next(numbers) for _ in range(len(points) + 2)]
    yield Annotation(Kind.BOX, label, _box(box, image), ids[0])
    for id, (pixels, attributes) in zip(ids[1:], points, strict=False):
        yield Annotation(Kind.KEYPOINT, label, pixels, id, attributes)
    yield Annotation(Kind.GROUP, label, (), ids[-1], (), ids[:-1])


def save(writing: Writing) -> None:
    """Write a dataset.

    Raises:
        BadArguments: it has splits, but no `valid`, which `dataset.yaml` has to name.
        MissingExtra: Pillow is not installed (extra `images`).
    """
    dataset = writing.dataset
    if dataset.splits and "valid" not in dataset.splits:
        raise BadArguments(f"split 'valid' not found in {dataset.source or 'the dataset'}")
    kinds = {annotation.kind for annotation in dataset.annotations()}
    poses = kinds == {Kind.KEYPOINT}
    held = frozenset(kinds) if poses else frozenset({Kind.BOX, Kind.POLYGON})
    numbers = {name: number for number, name in enumerate(dataset.classes)}
    for folder, images in writing.folders():
        writing.folder(folder / IMAGES)
        writing.folder(folder / LABELS)
        for image, name in writing.named(images):
            lines = []
            for annotation in writing.held(image, held, "YOLO"):
                line = _line(writing, image, annotation)
                if line is not None:
                    lines.append(f"{numbers[annotation.label or '']} {line}\n")
            writing.text(folder / LABELS / f"{stem(name)}.txt", "".join(lines))
            writing.copy(image, folder / IMAGES / name)
    _write_config(writing, poses=poses)


def _line(writing: Writing, image: Image, annotation: Annotation) -> str | None:
    """The line of an annotation behind its class, `None` if it lies outside of the image."""
    width, height = image.size
    points = annotation.points
    if annotation.kind is Kind.BOX:
        x, y, w, h = points
        corners = [x / width, y / height, (x + w) / width, (y + h) / height]
    else:
        corners = [value / (height if index % 2 else width) for index, value in enumerate(points)]
    if width > _FINE or height > _FINE:
        writing.losses.lost("rounding", "six decimals do not tell a pixel of so large an image", image.place)
    if min(corners) < -_EDGE or max(corners) > 1 + _EDGE:
        if any(max(side) < 0 or min(side) > 1 for side in (corners[::2], corners[1::2])):
            writing.annotations -= 1
            writing.losses.lost("annotation", "lies outside of the image", image.place)
            return None
        writing.losses.lost("clipping", "sticks out of the image, is cut at its edges", image.place)
        corners = [_part(value) for value in corners]
    seen = _visibility(writing, image, annotation)
    if annotation.kind is Kind.BOX:
        left, top, right, bottom = corners
        corners = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
    elif annotation.kind is Kind.KEYPOINT:
        corners = [*corners, 0.0, 0.0, *corners]
    text = " ".join([f"{_part(value):.6f}" for value in corners])
    return f"{text} {seen}" if annotation.kind is Kind.KEYPOINT else text


def _part(value: float) -> float:
    return min(max(0.0, value), 1.0)


def _visibility(writing: Writing, image: Image, annotation: Annotation) -> int:
    """What a pose line says of a keypoint. Other attributes are lost."""
    seen = SEEN
    points = annotation.points
    for name, value in annotation.attributes:
        if annotation.kind is Kind.KEYPOINT and name == VISIBILITY and seen == SEEN and is_hidden(value, points):
            seen = value
        else:
            writing.attribute_lost(image, name, "YOLO has no attributes")
    return seen


def _write_config(writing: Writing, *, poses: bool) -> None:
    dataset = writing.dataset
    places = {"train": "train/images", "val": "valid/images", "test": "test/images"}
    if not dataset.splits:
        places = {"train": IMAGES, "val": IMAGES}
    elif "test" not in dataset.splits:
        del places["test"]
    lines = [f"{name}: {place}" for name, place in places.items()]
    lines += [f"nc: {len(dataset.classes)}", "names:" if dataset.classes else "names: []"]
    lines += [f"- {json.dumps(name, ensure_ascii=False)}" for name in dataset.classes]
    lines += ["kpt_shape: [1, 3]"] if poses else []
    writing.text(writing.root / CONFIG, "".join(f"{line}\n" for line in lines))
    writing.text(writing.root / CLASSES, "".join(f"{name}\n" for name in dataset.classes))
    writing.config = CONFIG
