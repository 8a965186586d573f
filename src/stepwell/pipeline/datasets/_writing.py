"""What all writers share: names that do not collide, copies of images, text that comes out the same each time."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets._model import Annotation, Dataset, Image, Kind
from stepwell.pipeline.datasets._reading import stem
from stepwell.pipeline.datasets._report import Losses

_HALVES = re.compile("[\ud800-\udfff]")
"""JSON can name them, UTF-8 cannot hold them."""


class Writing:
    """One save: the dataset, the folder that is being filled, what is lost and what was written."""

    def __init__(self, dataset: Dataset, root: Path, losses: Losses) -> None:
        self.dataset = dataset
        self.root = root
        self.losses = losses
        self.annotations = 0
        self.config: str | None = None
        """The name of the file a trainer is pointed at."""
        self._made: set[Path] = set()

    def folders(self) -> Iterator[tuple[Path, list[Image]]]:
        """The folder of each split, with its images; the root in a dataset without splits."""
        if not self.dataset.splits:
            yield self.root, self.dataset.images
        for split in self.dataset.splits:
            yield self.root / split, [image for image in self.dataset.images if image.split == split]

    def named(self, images: list[Image], key: Callable[[str], str] = stem) -> Iterator[tuple[Image, str]]:
        """Each image with its name in the target. Where two would have the same key (for most formats: the same file
        of labels), the first keeps its name and the other gets a number.
        """
        wanted = {key(image.name) for image in images}
        taken: set[str] = set()
        for image in images:
            name = image.name
            if key(name) in taken:
                suffix = name[len(stem(name)) :]
                number = 2
                while key(name := f"{stem(image.name)}__{number}{suffix}") in wanted | taken:
                    number += 1
                self.losses.lost("name", "another image has this name; a number is put behind it", image.place)
            taken.add(key(name))
            yield image, name

    def copy(self, image: Image, target: Path) -> None:
        """Copy the bytes of an image.

        Raises:
            BadArguments: the image is not there, or its name would make a file and a folder of one name.
        """
        try:
            self.folder(target.parent)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadArguments(f"the image {image.place!r} would lie in a folder named as another image") from error
        try:
            shutil.copyfile(image.path, target)
        except (FileNotFoundError, IsADirectoryError, shutil.SpecialFileError) as error:
            if target.is_dir():
                raise BadArguments(f"the image {image.place!r} is named as a folder that others lie in") from error
            raise BadArguments(f"the image {image.place!r} is not there: no file {image.path}") from error

    def text(self, path: Path, text: str) -> None:
        """Write a text file: UTF-8, line ends of Unix."""
        self.folder(path.parent)
        path.write_bytes(text.encode())

    def folder(self, path: Path) -> Path:
        """Make a folder, once."""
        if path not in self._made:
            path.mkdir(parents=True, exist_ok=True)
            self._made.add(path)
        return path

    def held(self, image: Image, kinds: frozenset[Kind], format_name: str, *, ids: bool = False) -> list[Annotation]:
        """The annotations of these kinds. The others count as lost; so do ids, unless the format has them."""
        kept = []
        for annotation in image.annotations:
            if annotation.kind not in kinds:
                self.losses.lost("annotation", f"{format_name} has no {annotation.kind}", image.place)
                continue
            if not ids and annotation.id is not None:
                self.losses.lost("id", f"{format_name} has no ids of annotations", image.place)
            kept.append(annotation)
        self.annotations += len(kept)
        return kept

    def attribute_lost(self, image: Image, name: str, reason: str) -> None:
        """Count an attribute."""
        self.losses.lost("attribute", reason, f"{image.place}: {name}")

    def attributes_lost(self, image: Image, annotation: Annotation, format_name: str) -> None:
        """Count all attributes of an annotation."""
        for name, _ in annotation.attributes:
            self.attribute_lost(image, name, f"{format_name} has no attributes")

    def classes_lost(self, held: set[str], reason: str) -> None:
        """Count the classes of the dataset that nothing in the target names."""
        for name in self.dataset.classes:
            if name not in held:
                self.losses.lost("class", reason, name)


def json_text(value: Any) -> str:
    """JSON on one line, all letters as they are; halves of letters (lone surrogates) are escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text) if not text.isascii() else text
