"""What both DM formats share: the folders, the names of tools, and the ids that an annotation must have there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets._checks import Fault, malformed
from stepwell.pipeline.datasets._json import read_json
from stepwell.pipeline.datasets._model import Annotation, Dataset, Image, Kind
from stepwell.pipeline.datasets._reading import Reading, stem
from stepwell.pipeline.datasets._writing import Writing, json_text

JSON, FILES = "json", "original_files"
TOOLS = {
    "bounding_box": Kind.BOX,
    "polygon": Kind.POLYGON,
    "polyline": Kind.POLYLINE,
    "keypoint": Kind.KEYPOINT,
    "classification": Kind.CLASSIFICATION,
    "relation": Kind.RELATION,
    "group": Kind.GROUP,
}
TOOL_OF = {kind: tool for tool, kind in TOOLS.items()}
ANOTHER = "the file speaks of more than one image"
UNKNOWN = "a tool that is not known"
JOINING = frozenset({Kind.RELATION, Kind.GROUP})


class Field:
    """The way to what is being read in a JSON file, made into text only when something is wrong there."""

    def __init__(self) -> None:
        self.parts: tuple[object, ...] = ()

    def at(self, *parts: object) -> None:
        """Stand there: names and, as integers, indices."""
        self.parts = parts

    def __str__(self) -> str:
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.parts)
        return text.removeprefix(".")


Parse = Callable[[dict[str, Any], Field, Reading, str], Iterator[Annotation]]


def load(root: Path, parse: Parse) -> Dataset:
    """Read a DM dataset; `parse` gives the annotations of one JSON file."""
    reading = Reading(root, folders=(JSON, FILES))
    for split, folder in reading.folders():
        files = reading.image_files(folder / FILES)
        labels = reading.label_files(folder / JSON, ".json")
        for name, path in files.items():
            found: list[Annotation] = []
            if (label := labels.get(stem(name))) is not None:
                found = _parsed(label, parse, reading)
            reading.add(split, name, path, found)
        stems = {stem(name) for name in files}
        reading.orphans([path for name, path in labels.items() if name not in stems])
    return reading.dataset()


def _parsed(path: Path, parse: Parse, reading: Reading) -> list[Annotation]:
    value, field = read_json(path), Field()
    try:
        return list(parse(value, field, reading, reading.shown(path)))
    except Fault as fault:
        raise malformed(path, f"{field}{fault.field}".removeprefix("."), fault.problem) from fault


def save(writing: Writing, made: Callable[[Image, list[Annotation]], dict[str, Any]]) -> None:
    """Write a DM dataset; `made` gives the content of one JSON file."""
    fresh = _fresh_ids(writing.dataset)
    for folder, images in writing.folders():
        writing.folder(folder / JSON)
        writing.folder(folder / FILES)
        for image, name in writing.named(images):
            writing.copy(image, folder / FILES / name)
            annotations = [a if a.id is not None else replace(a, id=next(fresh)) for a in image.annotations]
            writing.annotations += len(annotations)
            try:
                text = json_text(made(image, annotations))
            except (TypeError, ValueError, RecursionError) as error:  # a dataset made by hand may hold anything
                raise BadArguments(f"image {image.place!r}: an attribute or member is not JSON ({error})") from error
            writing.text(folder / JSON / f"{stem(name)}.json", text + "\n")


def _fresh_ids(dataset: Dataset) -> Iterator[str]:
    """Ids that nothing in the dataset has; numbers, so that formats with numbers for ids can keep them."""
    taken = {str(annotation.id) for annotation in dataset.annotations()}
    number = 0
    while True:
        number += 1
        if (text := str(number)) not in taken:
            yield text


def checked_label(value: object, kind: Kind, reading: Reading, field: str = ".classification") -> str | None:
    """`value` as a class, which relations and groups may do without.

    Raises:
        Fault: it is no name of a class.
    """
    return None if value is None and kind in JOINING else reading.label(value, field)
