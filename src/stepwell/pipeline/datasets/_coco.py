"""COCO: one `annotations.json` a split, beside its images.

https://cocodataset.org/#format-data
"""

from __future__ import annotations

from pathlib import Path

from stepwell.pipeline.datasets import _coco_read
from stepwell.pipeline.datasets._model import SEEN, VISIBILITY, Annotation, Dataset, Image, Kind, is_hidden
from stepwell.pipeline.datasets._writing import Writing, json_text

_HELD = frozenset({Kind.BOX, Kind.POLYGON, Kind.KEYPOINT})
_LARGEST = 2**53
"""Readers in other languages keep no larger integer."""


def load(root: Path) -> Dataset:
    """Read a dataset. Raises BadArguments."""
    return _coco_read.load(root)


def save(writing: Writing) -> None:
    """Write a dataset.

    Raises:
        MissingExtra: a size has to be looked up and Pillow is not installed (extra `images`).
    """
    numbers = {name: number for number, name in enumerate(writing.dataset.classes, 1)}
    for folder, images in writing.folders():
        writing.folder(folder / _coco_read.IMAGES)
        heads, bodies = [], []
        ids = iter(_ids(writing, images))
        for number, (image, name) in enumerate(writing.named(images, lambda name: name), 1):
            width, height = image.size
            heads.append(json_text({"id": number, "file_name": name, "width": width, "height": height}))
            for annotation in writing.held(image, _HELD, "COCO", ids=True):
                front = {"id": next(ids), "image_id": number, "category_id": numbers[annotation.label or ""]}
                bodies.append(json_text(front | _shape(writing, image, annotation)))
            writing.copy(image, folder / _coco_read.IMAGES / name)
        categories = [json_text({"id": number, "name": name, "supercategory": ""}) for name, number in numbers.items()]
        parts = {"images": heads, "annotations": bodies, "categories": categories}
        text = ",\n".join(f'"{name}": {_rows(rows)}' for name, rows in parts.items())
        writing.text(folder / _coco_read.ANNOTATIONS, f"{{\n{text}\n}}\n")


def _rows(rows: list[str]) -> str:
    return "[\n" + ",\n".join(rows) + "\n]" if rows else "[]"


def _ids(writing: Writing, images: list[Image]) -> list[int]:
    """The ids of the annotations of a split, in order. Whole numbers from 1 are kept; who has another id, or one that
    is taken, gets the next free number.
    """
    held = [(image, a) for image in images for a in image.annotations if a.kind in _HELD]
    kept = [_as_number(a.id) for _, a in held]
    taken: set[int] = set()
    for index, number in enumerate(kept):
        if number in taken:
            kept[index] = None
        elif number is not None:
            taken.add(number)
    following, found = 0, []
    for (image, annotation), number in zip(held, kept, strict=True):
        if number is None:
            following += 1
            while following in taken:
                following += 1
            number = following
            if annotation.id is not None:
                writing.losses.lost("id", "an id of COCO is a whole number of its own", image.place)
        found.append(number)
    return found


def _as_number(id: str | int | None) -> int | None:
    if isinstance(id, str):
        id = int(id) if id.isascii() and id.isdecimal() and len(id) <= 16 and id[0] != "0" else None
    return id if id is not None and 0 < id < _LARGEST else None


def _shape(writing: Writing, image: Image, annotation: Annotation) -> dict[str, object]:
    crowd, seen = 0, SEEN
    points = list(annotation.points)
    for name, value in annotation.attributes:
        if name == "iscrowd" and type(value) is int and value == 1 and not crowd:
            crowd = 1
        elif name == VISIBILITY and annotation.kind is Kind.KEYPOINT and seen == SEEN and is_hidden(value, points):
            seen = value
        else:
            writing.attribute_lost(image, name, "COCO has no attributes")
    if annotation.kind is Kind.BOX:
        return {"bbox": points, "area": points[2] * points[3], "segmentation": [], "iscrowd": crowd}
    xs, ys = points[::2], points[1::2]
    bounds = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    if annotation.kind is Kind.KEYPOINT:
        pose = {"keypoints": [*points, seen], "num_keypoints": 1 if seen else 0}
        return {"bbox": bounds, "area": 0, "segmentation": [], "iscrowd": crowd, **pose}
    return {"bbox": bounds, "area": _area(xs, ys), "segmentation": [points], "iscrowd": crowd}


def _area(xs: list[float], ys: list[float]) -> float:
    """The shoelace formula, from the first corner: far from the origin the products would swallow the digits."""
    x0, y0 = xs[0], ys[0]
    corners = [(x - x0, y - y0) for x, y in zip(xs, ys, strict=True)]
    turned = zip(corners, [*corners[1:], corners[0]], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in turned)) / 2
