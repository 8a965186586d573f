"""Pascal VOC: an XML file an image, boxes by their corners in whole pixels.

The layout is that of the VOC2012 development kit. Its pixels count from 1; tools of today count from 0 and so do we.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from stepwell.pipeline.datasets._checks import (
    UNFIT,
    Fault,
    check_number,
    check_once,
    check_pixels,
    malformed,
    text_number,
)
from stepwell.pipeline.datasets._model import Annotation, Dataset, Image, Kind
from stepwell.pipeline.datasets._reading import Reading, stem
from stepwell.pipeline.datasets._sizes import image_depth
from stepwell.pipeline.datasets._writing import Writing

ANNOTATIONS, IMAGES = "Annotations", "JPEGImages"
_ALSO_IMAGES = "Images"
_DEFAULTS = {"pose": "Unspecified", "truncated": 0, "difficult": 0}
"""Elements that each object has; with these values they say nothing."""
_ATTRIBUTES = (*_DEFAULTS, "occluded")
_SAYS_NOTHING = frozenset({"folder", "filename", "path", "size", "object", "segmented"})
"""Elements of a file that are read, or that follow from where it lies."""
_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")


def load(root: Path) -> Dataset:
    """Read a dataset.

    Raises:
        BadArguments: something is malformed or missing.
    """
    reading = Reading(root, folders=(ANNOTATIONS, IMAGES, _ALSO_IMAGES))
    for split, folder in reading.folders():
        place = folder / IMAGES
        if (other := folder / _ALSO_IMAGES).is_dir():
            if place.is_dir():
                reading.beside(other)
            else:
                place = other
        files = reading.image_files(place)
        labels = reading.label_files(folder / ANNOTATIONS, ".xml")
        images = {name: reading.add(split, name, path) for name, path in files.items()}
        for image in images.values():
            if (path := labels.get(stem(image.name))) is not None:
                _File(reading, path).read(image)
        stems = {stem(name) for name in files}
        for path in [path for name, path in labels.items() if name not in stems]:
            file = _File(reading, path)
            named = images.get(file.root.findtext("filename", ""))
            # Some tools name the file of labels as they like, and the image only in it.
            if named is not None and stem(named.name) not in labels:
                file.read(named)
            else:
                reading.orphans([path])
    return reading.dataset()


class _File:
    """One XML file while it is being read."""

    def __init__(self, reading: Reading, path: Path) -> None:
        self.reading = reading
        self.shown = reading.shown(path)
        self.path = path
        raw = path.read_bytes()
        # Entities are declared there, and a few lines of them can stand for terabytes. Zeros: UTF-16 has them, and in
        # all other encodings that the parser takes, these letters are what they are in ASCII.
        before, doctype, _ = raw.replace(b"\0", b"").partition(b"<!DOCTYPE")
        if doctype:
            raise malformed(path, before.count(b"\n") + 1, "a document type is not read")
        try:
            self.root = ET.fromstring(raw)  # noqa: S314 - see the import
        except ET.ParseError as error:
            line, column = error.position
            what = str(error).partition(": line ")[0]
            raise malformed(path, line, f"not XML: {what} (column {column + 1})") from error
        except (LookupError, ValueError) as error:  # an encoding that is not known
            raise malformed(path, 1, f"not XML: {error}") from error
        if self.root.tag != "annotation":
            raise malformed(path, 1, f"expected <annotation>, got <{self.root.tag}>")

    def read(self, image: Image) -> None:
        """Read size and annotations into the image."""
        where = "size"
        try:
            image.known_size = self._size()
            for index, element in enumerate(self.root.findall("object")):
                where = f"object[{index}]"
                image.annotations.append(self._object(element))
        except Fault as fault:
            raise malformed(self.path, where + fault.field, fault.problem) from fault
        for child in self.root:
            if child.tag not in _SAYS_NOTHING or (child.tag == "segmented" and (child.text or "0").strip() != "0"):
                self.reading.losses.lost("field", f"<{child.tag}> is not kept", self.shown)

    def _size(self) -> tuple[int, int] | None:
        check_once(self.root.findall("size"), "")
        size = self.root.find("size")
        if size is None:
            return None
        width, height = (_number(size, side) for side in ("width", "height"))
        if width == height == 0:
            return None  # what some tools write when they do not know
        width, height = (int(side) if side % 1 == 0 else side for side in (width, height))
        return check_pixels(width, ".width"), check_pixels(height, ".height")

    def _object(self, element: ET.Element) -> Annotation:
        text = element.findtext("name")
        # A name on a line of its own; other spaces are taken for a part of it.
        label = self.reading.label(text.strip() if text is not None and "\n" in text else text, ".name")
        check_once(element.findall("name"), ".name")
        check_once(element.findall("bndbox"), ".bndbox")
        box = element.find("bndbox")
        if box is None:
            raise Fault(".bndbox", "is missing")
        left, top, right, bottom = (_number(box, side, ".bndbox") for side in ("xmin", "ymin", "xmax", "ymax"))
        if right < left or bottom < top:
            raise Fault(".bndbox", "a box of negative size")
        return Annotation(
            Kind.BOX, label, (left, top, right - left, bottom - top), None, tuple(self._attributes(element))
        )

    def _attributes(self, element: ET.Element) -> Iterator[tuple[str, Any]]:
        seen = {"name", "bndbox"}
        for child in element:
            text = child.text or ""
            if child.tag in _ATTRIBUTES and not len(child) and child.tag not in seen:
                seen.add(child.tag)
                value = int(text) if _WHOLE.fullmatch(text) else text
                if text.strip() and value != _DEFAULTS.get(child.tag):
                    yield child.tag, value
            elif child.tag not in ("name", "bndbox"):
                self.reading.losses.lost("attribute", f"<{child.tag}> of an object is not kept", self.shown)


def _number(parent: ET.Element, tag: str, front: str = "") -> float:
    text = parent.findtext(tag)
    if text is None:
        raise Fault(f"{front}.{tag}", "is missing")
    check_once(parent.findall(tag), f"{front}.{tag}")
    text = text.strip()
    value = int(text) if _WHOLE.fullmatch(text) else text_number(text, f"{front}.{tag}")
    check_number(value, f"{front}.{tag}")
    return value


def save(writing: Writing) -> None:
    """Write a dataset.

    Raises:
        MissingExtra: Pillow is not installed (extra `images`).
    """
    used: set[str] = set()
    for folder, images in writing.folders():
        writing.folder(folder / ANNOTATIONS)
        writing.folder(folder / IMAGES)
        for image, name in writing.named(images):
            boxes = writing.held(image, frozenset({Kind.BOX}), "Pascal VOC")
            used.update(annotation.label or "" for annotation in boxes)
            lines = [*_head(image, name), *(line for box in boxes for line in _lines(writing, image, box))]
            writing.text(folder / ANNOTATIONS / f"{stem(name)}.xml", "\n".join([*lines, "</annotation>", ""]))
            writing.copy(image, folder / IMAGES / name)
    writing.classes_lost(used, "Pascal VOC has only the classes that something is annotated with")


def _head(image: Image, name: str) -> Iterator[str]:
    width, height = image.size
    yield "<annotation>"
    yield f"  <folder>{IMAGES}</folder>"
    yield f"  <filename>{escape(name)}</filename>"
    yield f"  <size><width>{width}</width><height>{height}</height><depth>{image_depth(image.path)}</depth></size>"
    yield "  <segmented>0</segmented>"


def _lines(writing: Writing, image: Image, annotation: Annotation) -> Iterator[str]:
    x, y, w, h = annotation.points
    exact = (x, y, x + w, y + h)
    corners = [round(value) for value in exact]
    if any(whole != value for whole, value in zip(corners, exact, strict=True)):
        writing.losses.lost("rounding", "Pascal VOC has whole pixels", image.place)
    values: dict[str, Any] = dict(_DEFAULTS)
    for name, value in annotation.attributes:
        if name in _ATTRIBUTES and values.get(name) == _DEFAULTS.get(name) and _says_something(name, value):
            values[name] = value
        else:
            writing.attribute_lost(
                image, name, f"Pascal VOC has only {', '.join(_ATTRIBUTES)}, in values that it tells"
            )
    yield "  <object>"
    yield f"    <name>{escape(annotation.label or '')}</name>"
    for name, value in values.items():
        yield f"    <{name}>{escape(str(value))}</{name}>"
    sides = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    yield f"    <bndbox>{''.join(f'<{side}>{value}</{side}>' for side, value in sides)}</bndbox>"
    yield "  </object>"


def _says_something(name: str, value: object) -> bool:
    """Whether a value comes back as it is from the text of an element."""
    if type(value) is int:
        return value != _DEFAULTS.get(name) and _WHOLE.fullmatch(str(value)) is not None
    return (
        isinstance(value, str)
        and bool(value.strip())
        and value != _DEFAULTS.get(name)
        and not _WHOLE.fullmatch(value)
        and not UNFIT.search(value)
    )
