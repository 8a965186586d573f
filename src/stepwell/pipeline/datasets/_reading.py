"""What all readers share: the folder, its splits and files, the classes found so far, and what is lost on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets._checks import check_label
from stepwell.pipeline.datasets._files import EXTENSIONS, found, is_ignored, is_image
from stepwell.pipeline.datasets._model import SPLITS, Annotation, Dataset, Image
from stepwell.pipeline.datasets._report import Losses

_NO_FILE = "no file: a link to a folder or to nothing, a pipe, or the like"
_BESIDE = "lies in no folder that is read"


class Reading:
    """One load of a dataset: its folder, what it loses, the classes found so far."""

    def __init__(self, root: Path, *, folders: Sequence[str]) -> None:
        """`folders` are the names that are read in a split of the format; images in others count as lost."""
        self.root = root
        self.losses = Losses()
        self.classes: set[str] = set()
        self.images: list[Image] = []
        if not root.is_dir():
            raise BadArguments(f"{root} is not a folder", hint="name the root of the dataset")
        self.splits = tuple(split for split in SPLITS if (root / split).is_dir())
        if "train" not in self.splits:
            self.splits = ()
        if folders:
            for _, place in self.folders():
                self._look_beside(place, folders, read=folders)
            if self.splits:
                self._look_beside(root, folders, read=self.splits)

    def folders(self) -> Iterator[tuple[str | None, Path]]:
        """Each split with its folder; one without a name in a dataset without splits."""
        if not self.splits:
            yield None, self.root
        for split in self.splits:
            yield split, self.root / split

    def _look_beside(self, folder: Path, known: Sequence[str], *, read: Sequence[str]) -> None:
        """Count the folders and images in `folder` that are not read, and what has a name that is `known`. Other files
        (a licence, a list of classes) are not taken for data.
        """
        for path in sorted(folder.iterdir()):
            if path.name in read or is_ignored(path.name):
                continue
            if path.name in known or path.is_dir() or is_image(path.name):
                self.beside(path)

    def beside(self, path: Path) -> None:
        """Count a file, or all files of a folder, that no reader looks at."""
        inner = [place for _, place, _ in found(path)] if path.is_dir() else [path]
        for place in inner:
            self.losses.lost("image" if is_image(place.name) else "label", _BESIDE, self.shown(place))

    def shown(self, path: Path) -> str:
        """How a report names a file: from the root of the dataset."""
        return path.relative_to(self.root).as_posix()

    def label(self, value: object, field: str = ".classification") -> str:
        """`value` as the name of a class.

        Raises:
            Fault: it is no text, is empty, or has control characters.
        """
        # Most labels have been seen before, and a set of the names that passed spares them the checks.
        if isinstance(value, str) and value in self.classes:
            return value
        label = check_label(value, field)
        self.classes.add(label)
        return label

    def add(self, split: str | None, name: str, path: Path, annotations: Sequence[Annotation] = ()) -> Image:
        """Take an image."""
        image = Image(name, path, split, None, list(annotations))
        self.images.append(image)
        return image

    def image_files(self, folder: Path) -> dict[str, Path]:
        """The images of a folder and of the folders in it, by name, sorted.

        Raises:
            BadArguments: there is no such folder.
        """
        files: dict[str, Path] = {}
        for name, path, is_file in found(folder):
            if not is_file:
                self.losses.lost("image", _NO_FILE, self.shown(path))
            elif is_image(name):
                files[name] = path
            else:
                self.losses.lost("image", f"not an image ({' '.join(EXTENSIONS)})", self.shown(path))
        return files

    def label_files(self, folder: Path, suffix: str, *, optional: bool = False) -> dict[str, Path]:
        """The files that end in `suffix`, by name without it, sorted; others count as lost.

        Raises:
            BadArguments: there is no such folder and it is not optional.
        """
        files: dict[str, Path] = {}
        if optional and not folder.is_dir():
            return files
        for name, path, is_file in found(folder):
            key = name[: -len(suffix)]
            if not is_file:
                self.losses.lost("label", _NO_FILE, self.shown(path))
            elif not name.lower().endswith(suffix):
                self.losses.lost("label", f"not a file of annotations (*{suffix})", self.shown(path))
            elif key in files:
                self.losses.lost("label", "another file has this name", self.shown(path))
            else:
                files[key] = path
        return files

    def unread(self, shown: str, value: dict[str, Any], known: frozenset[str], what: str) -> None:
        """Count the keys that say something and that the model has no place for."""
        if value.keys() <= known:
            return
        for key, item in value.items():
            if key not in known and item not in (None, "", [], {}):
                self.losses.lost("field", f"{what} has more keys than are read", f"{shown}: {key}")

    def orphans(self, paths: Sequence[Path]) -> None:
        """Count label files that have no image."""
        for path in paths:
            self.losses.lost("label", "labels without an image", self.shown(path))

    def dataset(self) -> Dataset:
        """All that was read."""
        return Dataset(self.images, tuple(sorted(self.classes)), self.splits, self.root, self.losses.listed())


def stem(name: str) -> str:
    """The name of an image without its extension, folders kept."""
    front, _, extension = name.rpartition(".")
    return name if front == "" or front.endswith("/") or "/" in extension else front
