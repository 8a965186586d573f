"""The one model between all formats: classes, images with size and split, annotations in absolute pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from stepwell.pipeline.datasets._report import Loss
from stepwell.pipeline.datasets._sizes import image_size

SPLITS = ("train", "valid", "test")


class Kind(StrEnum):
    """What an annotation is; a relation and a group speak of other annotations, by their ids."""

    BOX = "box"
    POLYGON = "polygon"
    POLYLINE = "polyline"
    KEYPOINT = "keypoint"
    CLASSIFICATION = "classification"
    RELATION = "relation"
    GROUP = "group"


VISIBILITY = "visibility"
"""The attribute of a keypoint that is not simply seen: 0 it is not labelled, 1 it is hidden. COCO and YOLO have it."""
SEEN = 2
"""What these formats say of all others."""


def is_hidden(value: Any, points: Sequence[float]) -> bool:
    """Whether COCO and YOLO can say this of a keypoint there: three zeros would say that there is none."""
    return type(value) is int and (value == 1 or (value == 0 and any(points)))


@dataclass(frozen=True, slots=True)
class Annotation:
    """One annotation of an image.

    `points` are pixels from the upper left corner: a box is `(x, y, width, height)`, a keypoint `(x, y)`, a polygon or
    polyline `(x1, y1, x2, y2, …)`, the others have none. `label` is the class (`None` only for relations and groups),
    `attributes` are pairs of name and JSON value, `members` is what a relation or group joins, as its format has it.
    """

    kind: Kind
    label: str | None
    points: tuple[float, ...] = ()
    id: str | int | None = None
    attributes: tuple[tuple[str, Any], ...] = ()
    members: Any = None


@dataclass(slots=True)
class Image:
    """An image: `name` is its path inside the folder of images (with `/`), `path` the file that holds it.

    `split` is `train`, `valid`, `test`, or `None` in a dataset without splits. `known_size` is what an annotation file
    says of its size.
    """

    name: str
    path: Path
    split: str | None = None
    known_size: tuple[int, int] | None = None
    annotations: list[Annotation] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, looked up in the file where no annotation file says it.

        Raises:
            MissingExtra: the file has to be read and Pillow is not installed (extra `images`).
            BadArguments: the file cannot be read as an image.
        """
        if self.known_size is None:
            self.known_size = image_size(self.path)
        return self.known_size

    @property
    def place(self) -> str:
        """How a report names the image: with its split."""
        return f"{self.split}/{self.name}" if self.split else self.name


@dataclass(slots=True)
class Dataset:
    """A dataset of any format, in memory; the images themselves stay where they are.

    `splits` names the splits there are, none in a dataset without. `source` is the folder it was loaded from, `losses`
    what the model could not take from it.
    """

    images: list[Image] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    source: Path | None = None
    losses: tuple[Loss, ...] = ()

    def annotations(self) -> Iterator[Annotation]:
        """All annotations, image by image."""
        for image in self.images:
            yield from image.annotations
