"""What all readers share: the folder, its splits and files, and errors that name the file and the line or field."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets._model import SPLITS, Annotation, Dataset, Image
from stepwell.pipeline.datasets._report import Losses

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
IGNORED = frozenset({"Thumbs.db", "desktop.ini", "__pycache__", "@eaDir"})
"""What operating systems leave in folders; names that begin with a dot are left out as well."""

# Control characters, line separators and lone surrogates: no format but JSON can hold them in a name.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")


class Fault(Exception):
    """What is wrong with a value, and where in it.

    It never leaves the package: the reader who knows the file and the way to the value raises BadArguments.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem


def malformed(path: Path, where: int | str, problem: str) -> BadArguments:
    """The error of a malformed file: `where` is a line (from 1) or a field."""
    text = f"{path}:{where}: {problem}" if isinstance(where, int) else f"{path}: {where}: {problem}"
    return BadArguments(text, problems=(text,))


class Reading:
    """One load of a dataset: its folder, what it loses, the classes found so far."""

    def __init__(self, root: Path, *, folders: Sequence[str]) -> None:
        """`folders` are the names that a split of the format has; they tell what lies beside the splits."""
        self.root = root
        self.losses = Losses()
        self.classes: set[str] = set()
        self.images: list[Image] = []
        if not root.is_dir():
            raise BadArguments(f"{root} is not a folder")
        self.splits = tuple(split for split in SPLITS if (root / split).is_dir())
        if "train" not in self.splits:
            self.splits = ()
        for name in folders if self.splits else ():
            if (root / name).exists():
                self.losses.lost("label", "lies beside the splits and belongs to none", name)

    def folders(self) -> Iterator[tuple[str | None, Path]]:
        """Each split with its folder; one without a name in a dataset without splits."""
        if not self.splits:
            yield None, self.root
        for split in self.splits:
            yield split, self.root / split

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
        found: dict[str, Path] = {}
        for name, path in _files(folder):
            if path.suffix.lower() in EXTENSIONS:
                found[name] = path
            else:
                self.losses.lost("image", f"not an image ({' '.join(EXTENSIONS)})", self.shown(path))
        return found

    def label_files(self, folder: Path, suffix: str, *, optional: bool = False) -> dict[str, Path]:
        """The files that end in `suffix`, by name without it, sorted; others count as lost.

        Raises:
            BadArguments: there is no such folder and it is not optional.
        """
        if optional and not folder.is_dir():
            return {}
        found: dict[str, Path] = {}
        for name, path in _files(folder):
            if path.suffix.lower() == suffix:
                found[name[: -len(suffix)]] = path
            else:
                self.losses.lost("label", f"not a file of annotations (*{suffix})", self.shown(path))
        return found

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
    return name[: -len(PurePosixPath(name).suffix)] if PurePosixPath(name).suffix else name


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Files below `folder` by their names in it, sorted by name; what the system left there is left out."""
    if not folder.is_dir():
        raise BadArguments(f"no folder {folder.name!r} in {folder.parent}")
    names: list[str] = []

    def refuse(error: OSError) -> NoReturn:
        raise error  # os.walk would pass over a folder that may not be read

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _is_ignored(name)]
        front = os.path.relpath(place, folder)
        names += [name if front == "." else f"{front}/{name}" for name in files if not _is_ignored(name)]
    for name in sorted(names):
        if _UNFIT.search(name):
            raise BadArguments(f"control characters in the name of a file in {folder}: {name!r:.80}")
        yield name, folder / name


def _is_ignored(name: str) -> bool:
    return name.startswith(".") or name in IGNORED


def read_text(path: Path) -> str:
    """A text file in UTF-8.

    Raises:
        BadArguments: it is not UTF-8; the line is named.
    """
    raw = path.read_bytes()
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise malformed(path, raw.count(b"\n", 0, error.start) + 1, "not UTF-8") from error


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        BadArguments: it is malformed; the line is named.
    """
    text = read_text(path)
    try:
        value = _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise malformed(path, error.lineno, f"not JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise malformed(path, 1, f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise malformed(path, 1, f"expected an object, got {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def a_list(value: object, field: str) -> list[Any]:
    """`value`, a list.

    Raises:
        Fault: it is none.
    """
    if not isinstance(value, list):
        raise Fault(field, f"expected a list, got {_kind(value)}")
    return value


def an_object(value: object, field: str) -> dict[str, Any]:
    """`value`, an object.

    Raises:
        Fault: it is none.
    """
    if not isinstance(value, dict):
        raise Fault(field, f"expected an object, got {_kind(value)}")
    return value


def numbers(value: object, count: int | None, field: str) -> tuple[float, ...]:
    """`value`, a list of finite numbers, `count` of them.

    Raises:
        Fault: it is none.
    """
    if not isinstance(value, list) or (count is not None and len(value) != count):
        shape = "a list of numbers" if count is None else f"{count} numbers"
        raise Fault(field, f"expected {shape}, got {value!r:.80}")
    for item in value:
        check_number(item, field)
    return tuple(value)


def check_label(value: object, field: str) -> str:
    """`value`, the name of a class.

    Raises:
        Fault: it is no text, is empty, or has control characters, which most formats cannot hold.
    """
    if not isinstance(value, str) or not value.strip():
        raise Fault(field, f"expected the name of a class, got {value!r:.80}")
    if _UNFIT.search(value):
        raise Fault(field, f"control characters in the name of a class: {value!r:.80}")
    return value


def check_number(item: object, field: str) -> None:
    """Check that it is a finite number.

    Raises:
        Fault: it is none.
    """
    # `x - x` is 0 but for infinities and NaN, whatever size the integer has.
    if type(item) not in (int, float) or item - item != 0:  # type: ignore[operator]
        raise Fault(field, f"expected a number, got {item!r:.80}")


def check_shape(annotation: Annotation, field: str) -> Annotation:
    """Check that sizes are not negative and that a polygon has three points.

    Raises:
        Fault: it is not so.
    """
    points = annotation.points
    if annotation.kind == "box" and (points[2] < 0 or points[3] < 0):
        raise Fault(field, f"a box of negative size: {list(points)!r:.80}")
    if annotation.kind == "polygon" and len(points) < 6:
        raise Fault(field, f"a polygon needs three points, got {len(points) // 2}")
    return annotation
