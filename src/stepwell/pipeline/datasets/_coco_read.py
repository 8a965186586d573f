"""Reading COCO: more than is written, since other tools write more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets._checks import (
    Fault,
    a_list,
    an_object,
    check_number,
    check_pixels,
    check_shape,
    malformed,
    numbers,
    told,
)
from stepwell.pipeline.datasets._json import read_json
from stepwell.pipeline.datasets._model import SEEN, VISIBILITY, Annotation, Dataset, Image, Kind
from stepwell.pipeline.datasets._reading import Reading

ANNOTATIONS, IMAGES = "annotations.json", "images"
_FILE = frozenset({"images", "annotations", "categories"})
_IMAGE = frozenset({"id", "file_name", "width", "height"})
_CATEGORY = frozenset({"id", "name", "supercategory", "keypoints", "skeleton"})
_ENTRY = frozenset({
    "id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd", "keypoints", "num_keypoints",
    "attributes",
})  # fmt: skip

_Attributes = tuple[tuple[str, Any], ...]


def load(root: Path) -> Dataset:
    """Read a dataset.

    Raises:
        BadArguments: something is malformed or missing.
    """
    reading = Reading(root, folders=(ANNOTATIONS, IMAGES))
    for split, folder in reading.folders():
        path = folder / ANNOTATIONS
        if not path.is_file():
            raise BadArguments(f"no {ANNOTATIONS} in {folder}", hint="is the format of the dataset right?")
        files = reading.image_files(folder / IMAGES)
        _File(reading, path).read({name: reading.add(split, name, file) for name, file in files.items()})
    return reading.dataset()


class _File:
    """One `annotations.json` while it is being read."""

    def __init__(self, reading: Reading, path: Path) -> None:
        self.reading = reading
        self.path = path
        self.shown = reading.shown(path)
        self.files: dict[str, Image] = {}
        self.labels: dict[int, str] = {}
        self.names: set[str] = set()
        self.keypoints: dict[int, list[Any]] = {}
        """Names of the keypoints of a category, where it has any."""
        self.images: dict[int, Image | None] = {}
        """`None`: the file of the image is missing."""
        self.named: set[str] = set()
        self.ids: set[int] = set()
        """Of the annotations."""

    def read(self, files: dict[str, Image]) -> None:
        """Read all annotations into the images that are there."""
        self.files = files
        value = read_json(self.path)
        self.reading.unread(self.shown, value, _FILE, "a file")
        self._each(value, "categories", self._category)
        self._each(value, "images", self._image)
        ranks = {name: rank for rank, name in enumerate(files, 1)}
        for id, image in self.images.items():
            if image is not None and id != ranks[image.name]:
                self.reading.losses.lost("id", "the ids of images are given anew", image.place)
        self._each(value, "annotations", self._annotation)

    def _each(self, value: dict[str, Any], name: str, take: Callable[[dict[str, Any]], None]) -> None:
        place = name
        try:
            for index, entry in enumerate(a_list(value.get(name), "")):
                place = f"{name}[{index}]"
                take(an_object(entry, ""))
        except Fault as fault:
            raise malformed(self.path, place + fault.field, fault.problem) from fault

    def _category(self, entry: dict[str, Any]) -> None:
        id = _id(entry, "id")
        label = self.reading.label(entry.get("name"), ".name")
        if id in self.labels:
            raise Fault(".id", f"{told(id)} is used twice")
        if label in self.names:
            self.reading.losses.lost("class", "two classes have one name", f"{self.shown}: {label}")
        self.names.add(label)
        self.labels[id] = label
        self.keypoints[id] = a_list(entry.get("keypoints") or [], ".keypoints")
        self.reading.unread(self.shown, entry, _CATEGORY, "a category")
        if entry.get("supercategory") not in (None, "", "none", label):
            self.reading.losses.lost("field", "supercategories are not kept", f"{self.shown}: {label}")
        if entry.get("skeleton"):
            self.reading.losses.lost("field", "skeletons of keypoints are not kept", f"{self.shown}: {label}")

    def _image(self, entry: dict[str, Any]) -> None:
        id, name = _id(entry, "id"), entry.get("file_name")
        if id in self.images:
            raise Fault(".id", f"{told(id)} is used twice")
        if not isinstance(name, str) or not name:
            raise Fault(".file_name", f"expected text, got {told(name)}")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise Fault(".file_name", f"{told(name)} leads out of the folder of images")
        name = path.as_posix()
        if name in self.named:
            raise Fault(".file_name", f"{told(name)} is used twice")
        self.named.add(name)
        self.reading.unread(self.shown, entry, _IMAGE, "an image")
        self.images[id] = image = self.files.get(name)
        if image is None:
            self.reading.losses.lost("label", "labels without an image", f"{self.shown}: {name}")
            return
        if entry.get("width") is not None or entry.get("height") is not None:
            image.known_size = check_pixels(entry.get("width"), ".width"), check_pixels(entry.get("height"), ".height")

    def _annotation(self, entry: dict[str, Any]) -> None:
        image_id, category = _id(entry, "image_id"), _id(entry, "category_id")
        if image_id not in self.images:
            raise Fault(".image_id", f"there is no image {told(image_id)}")
        if category not in self.labels:
            raise Fault(".category_id", f"there is no category {told(category)}")
        if "id" in entry:
            id = _id(entry, "id")
            if id in self.ids:
                raise Fault(".id", f"{told(id)} is used twice")
            self.ids.add(id)
        image = self.images[image_id]
        if image is None:
            self.reading.losses.lost("annotation", "its image is missing", self.shown)
            return
        if not entry.keys() <= _ENTRY:
            self.reading.unread(self.shown, entry, _ENTRY, "an annotation")
        image.annotations.extend(self._shapes(entry, category, image))

    def _shapes(self, entry: dict[str, Any], category: int, image: Image) -> Iterator[Annotation]:
        """One shape as it is; more than one (rings, a pose) with a group that keeps them together."""
        label = self.labels[category]
        id = str(_id(entry, "id")) if "id" in entry else None
        attributes = _attributes(entry)
        shapes: list[tuple[Kind, tuple[float, ...], _Attributes]] = []
        for field, ring in self._rings(entry, image):
            check_shape(Annotation(Kind.POLYGON, label, ring), field)
            shapes.append((Kind.POLYGON, ring, attributes))
        points = list(self._keypoints(entry, category))
        if not shapes and ("bbox" in entry or not points):
            box = numbers(entry.get("bbox"), 4, ".bbox")
            check_shape(Annotation(Kind.BOX, label, box), ".bbox")
            # The bounds of a lone keypoint say nothing that the keypoint does not say.
            if len(points) != 1 or box != (*points[0][1], 0, 0):
                shapes.append((Kind.BOX, box, attributes))
        if not shapes and len(points) == 1:
            points = [(Kind.KEYPOINT, points[0][1], (*points[0][2], *attributes))]
        shapes += points
        if len(shapes) == 1:
            kind, values, own = shapes[0]
            yield Annotation(kind, label, values, id, own)
            return
        front = id if id is not None else f"{image.name}-{len(image.annotations)}"
        ids = [f"{front}-{number}" for number in range(1, len(shapes) + 1)]
        for part, (kind, values, own) in zip(ids, shapes, strict=True):
            yield Annotation(kind, label, values, part, own)
        yield Annotation(Kind.GROUP, label, (), front, (), ids)

    def _rings(self, entry: dict[str, Any], image: Image) -> Iterator[tuple[str, tuple[float, ...]]]:
        rings = entry.get("segmentation") or []
        if isinstance(rings, dict):
            self.reading.losses.lost("mask", "run-length masks are not read, their boxes are", image.place)
            return
        for index, ring in enumerate(a_list(rings, ".segmentation")):
            field = f".segmentation[{index}]"
            values = numbers(ring, None, field)
            if len(values) % 2:
                raise Fault(field, f"{len(values)} numbers are no points")
            yield field, values

    def _keypoints(self, entry: dict[str, Any], category: int) -> Iterator[tuple[Kind, tuple[float, ...], _Attributes]]:
        values = numbers(entry.get("keypoints") or [], None, ".keypoints")
        if len(values) % 3:
            raise Fault(".keypoints", f"{len(values)} numbers are no points with visibility")
        names = self.keypoints[category]
        for index in range(0, len(values), 3):
            x, y, seen = values[index : index + 3]
            if seen not in (0, 1, SEEN):
                raise Fault(f".keypoints[{index + 2}]", f"{seen} is no visibility of a keypoint (0, 1 or 2)")
            if not seen and not x and not y:
                continue  # 0 0 0 stands for a keypoint that is not there
            attributes: _Attributes = () if seen == SEEN else ((VISIBILITY, int(seen)),)
            if index // 3 < len(names):
                attributes = (*attributes, ("keypoint", names[index // 3]))
            yield Kind.KEYPOINT, (x, y), attributes


def _id(entry: dict[str, Any], name: str) -> int:
    value = entry.get(name)
    if type(value) is not int:
        raise Fault(f".{name}", f"expected a whole number, got {told(value)}")
    return value


def _attributes(entry: dict[str, Any]) -> _Attributes:
    """`iscrowd`, and what some tools put into `attributes`."""
    found = tuple(an_object(entry["attributes"], ".attributes").items()) if entry.get("attributes") else ()
    crowd = entry.get("iscrowd") or 0
    check_number(crowd, ".iscrowd")
    return (*found, ("iscrowd", 1)) if crowd else found
