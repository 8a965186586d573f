"""Checks of single values, and the errors that say what is wrong with one, and where."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets._model import Annotation, Kind

FARTHEST = 2**53
"""Pixels from the corner of an image. Beyond that floats leave out whole numbers, and sums may become infinite."""
MOST_PIXELS = 2**31 - 1
"""Along a side of an image: no format has more."""

# Control characters, line separators and lone surrogates: no format but JSON can hold them in a name.
UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]")

_told = reprlib.Repr()
_told.maxstring = _told.maxother = _told.maxlong = 60
_told.maxlevel = 2


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
    return BadArguments(
        text, problems=(text,), hint=f"correct {path.name}, or take it out of the dataset; nothing was written"
    )


def told(value: object) -> str:
    """A value in an error: never long, however large it is and however often it holds the same."""
    return _told.repr(value)


def a_list(value: object, field: str) -> list[Any]:
    """`value`, a list.

    Raises:
        Fault: it is none.
    """
    if not isinstance(value, list):
        raise Fault(field, f"expected a list, got {kind(value)}")
    return value


def an_object(value: object, field: str) -> dict[str, Any]:
    """`value`, an object.

    Raises:
        Fault: it is none.
    """
    if not isinstance(value, dict):
        raise Fault(field, f"expected an object, got {kind(value)}")
    return value


def kind(value: object) -> str:
    """How an error names what a JSON file has where it should have something else."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def numbers(value: object, count: int | None, field: str) -> tuple[float, ...]:
    """`value`, a list of finite numbers, `count` of them.

    Raises:
        Fault: it is none.
    """
    if not isinstance(value, list) or (count is not None and len(value) != count):
        shape = "a list of numbers" if count is None else f"{count} numbers"
        raise Fault(field, f"expected {shape}, got {told(value)}")
    for item in value:
        check_number(item, field)
    return tuple(value)


def check_label(value: object, field: str) -> str:
    """`value`, the name of a class.

    Raises:
        Fault: it is no text, is empty, or has control characters, which most formats cannot hold.
    """
    if not isinstance(value, str) or not value.strip():
        raise Fault(field, f"expected the name of a class, got {told(value)}")
    if UNFIT.search(value):
        raise Fault(field, f"control characters in the name of a class: {told(value)}")
    return value


_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def text_number(text: str, field: str) -> float:
    """The number that a file of text has there, in the digits and signs of ASCII.

    Raises:
        Fault: it is none.
    """
    if not _NUMBER.fullmatch(text):
        raise Fault(field, f"expected a number, got {told(text)}")
    return float(text)


def check_number(item: object, field: str) -> None:
    """Check that it is a number that can be a place in an image.

    Raises:
        Fault: it is none.
    """
    if type(item) not in (int, float) or not -FARTHEST <= item <= FARTHEST:  # type: ignore[operator]
        raise Fault(field, f"expected a number of pixels, got {told(item)}")


def check_pixels(value: object, field: str) -> int:
    """`value`, the length of a side of an image.

    Raises:
        Fault: it is no whole number, or none that an image can have.
    """
    if type(value) is not int or not 0 < value <= MOST_PIXELS:
        raise Fault(field, f"expected a number of pixels, got {told(value)}")
    return value


def check_shape(annotation: Annotation, field: str) -> Annotation:
    """Check that sizes are not negative and that a polygon has three points.

    Raises:
        Fault: it is not so.
    """
    points = annotation.points
    if annotation.kind is Kind.BOX and (points[2] < 0 or points[3] < 0):
        raise Fault(field, f"a box of negative size: {told(list(points))}")
    if annotation.kind is Kind.POLYGON and len(points) < 6:
        raise Fault(field, f"a polygon needs three points, got {len(points) // 2}")
    return annotation


_COUNTS = {Kind.BOX: 4, Kind.KEYPOINT: 2, Kind.CLASSIFICATION: 0, Kind.RELATION: 0, Kind.GROUP: 0}


def check_annotation(annotation: Annotation) -> None:
    """Check one that may have been made by hand.

    Raises:
        Fault: its kind, class, id or points are not usable.
    """
    if not isinstance(annotation.kind, Kind):
        raise Fault(".kind", f"expected a Kind, got {told(annotation.kind)}")
    if annotation.label is None and annotation.kind not in (Kind.RELATION, Kind.GROUP):
        raise Fault(".label", f"a {annotation.kind} without a class")
    check_id(annotation.id, ".id")
    points = annotation.points
    wanted = _COUNTS.get(annotation.kind)
    if len(points) % 2 or (wanted is not None and len(points) != wanted):
        raise Fault(".points", f"{len(points)} numbers are no {annotation.kind}")
    for item in points:
        check_number(item, ".points")
    check_shape(annotation, ".points")


def check_id(value: object, field: str) -> str | int | None:
    """`value`, the id of an annotation.

    Raises:
        Fault: it is neither text nor a whole number nor null.
    """
    if value is None or isinstance(value, str) or type(value) is int:
        return value
    raise Fault(field, f"expected text or a number, got {told(value)}")


def check_once(values: Sequence[object], field: str) -> None:
    """Check that something that may stand there once does.

    Raises:
        Fault: it stands there more often.
    """
    if len(values) > 1:
        raise Fault(field, f"stands there {len(values)} times")
