"""Sizes of image files, by Pillow, which reads no more than the header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from stepwell.errors import BadArguments, MissingExtra

T = TypeVar("T")
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
"""Orientations of EXIF that lay the image on its side."""


def image_size(path: Path) -> tuple[int, int]:
    """Width and height as the image is shown: annotations are made on the image that EXIF has turned upright.

    Raises:
        MissingExtra: Pillow is not installed (extra `images`).
        BadArguments: the file cannot be read as an image.
    """
    return _looked_up(path, _shown_size)


def image_depth(path: Path) -> int:
    """The number of channels: 1 grey, 3 colour, 4 with transparency. Raises as `image_size`."""
    return _looked_up(path, lambda image: len(image.getbands()))


def _shown_size(image: Any) -> tuple[int, int]:
    width, height = image.size
    # Asked only where the header has told of EXIF: Pillow would otherwise decode a whole PNG to look for it.
    if "exif" in image.info and image.getexif().get(_ORIENTATION) in _TURNED:
        return height, width
    return width, height


def _looked_up(path: Path, question: Callable[[Any], T]) -> T:
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtra("images", "the size of an image") from error
    try:
        with Image.open(path) as image:
            return question(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadArguments(f"{path}: not readable as an image ({error})") from error
