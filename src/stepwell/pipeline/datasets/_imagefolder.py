"""ImageFolder: the folder that an image lies in is its class; images without a class lie beside these folders."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from stepwell.pipeline.datasets._checks import Fault, malformed
from stepwell.pipeline.datasets._files import is_ignored
from stepwell.pipeline.datasets._model import SPLITS, Annotation, Dataset, Image, Kind
from stepwell.pipeline.datasets._reading import Reading
from stepwell.pipeline.datasets._writing import Writing

_LONGEST = 255
"""Bytes in the name of a folder."""


def load(root: Path) -> Dataset:
    """Read a dataset.

    Raises:
        BadArguments: the name of a folder is no name of a class, or the root is no folder.
    """
    reading = Reading(root, folders=())
    if reading.splits:
        for path in sorted(root.iterdir()):
            if path.name not in SPLITS and not is_ignored(path.name):
                reading.beside(path)
    for split, folder in reading.folders():
        for place in sorted(folder.iterdir()):
            if place.is_dir() and not is_ignored(place.name):  # a class, though no image may be in it
                _label(reading, place)
        for name, path in reading.image_files(folder).items():
            label, slash, rest = name.partition("/")
            if not slash:
                reading.add(split, name, path)
                continue
            reading.add(split, rest, path, [Annotation(Kind.CLASSIFICATION, label)])
    reading.images.sort(key=lambda image: (SPLITS.index(image.split) if image.split else 0, image.name, image.path))
    return reading.dataset()


def _label(reading: Reading, folder: Path) -> None:
    try:
        reading.label(folder.name, "")
    except Fault as fault:
        raise malformed(folder, "name", fault.problem) from fault


def save(writing: Writing) -> None:
    """Write a dataset: the first class of an image counts, of what kind of annotation it may be."""
    used: set[str] = set()
    for folder, images in writing.folders():
        writing.folder(folder)
        by_class: dict[str | None, list[Image]] = defaultdict(list)
        for image in images:
            by_class[_chosen(writing, image)].append(image)
        for label, members in by_class.items():
            place = folder
            if label is not None:
                used.add(label)
                writing.annotations += len(members)
                place = folder / label
            for image, name in writing.named(members, _flat if label is None else str):
                if label is None and "/" in name:  # the folder would be read as a class
                    writing.losses.lost("name", "an image without a class lies in no folder", image.place)
                    name = _flat(name)
                writing.copy(image, place / name)
    writing.classes_lost(used, "ImageFolder has only the classes of images")


def _flat(name: str) -> str:
    return name.replace("/", "__")


def _chosen(writing: Writing, image: Image) -> str | None:
    """The class of an image: of its first classification, else of its first annotation that has one."""
    classed = [a for a in image.annotations if a.kind is Kind.CLASSIFICATION]
    named = [a for a in classed or image.annotations if a.label is not None]
    chosen = named[0] if named else None
    if chosen is not None and not _is_folder(chosen.label or "", in_split=bool(writing.dataset.splits)):
        writing.losses.lost("annotation", "the class cannot be the name of a folder", f"{image.place}: {chosen.label}")
        chosen, rest = None, [a for a in image.annotations if a is not named[0]]
    else:
        rest = [a for a in image.annotations if a is not chosen]
    if rest:
        writing.losses.lost("annotation", "ImageFolder has one class an image", image.place, len(rest))
    if chosen is not None:
        writing.attributes_lost(image, chosen, "ImageFolder")
        if chosen.id is not None:
            writing.losses.lost("id", "ImageFolder has no ids of annotations", image.place)
        if chosen.kind is not Kind.CLASSIFICATION:
            writing.losses.lost("annotation", "of a shape only the class is kept", image.place)
    return chosen.label if chosen else None


def _is_folder(label: str, *, in_split: bool) -> bool:
    return (
        not re.search(r"[/\x00]", label)
        and not is_ignored(label)
        and len(label.encode()) <= _LONGEST
        and (in_split or label not in SPLITS)
    )
