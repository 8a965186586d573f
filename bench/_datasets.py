"""Datasets: 10,000 images with 100,000 boxes from DM to YOLO and back, beside reading and writing the same bytes.

``python -m bench._datasets`` prints this part alone.
"""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench._rows import Row, at_most, rows_table

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
IMAGES, BOXES = 10_000, 10
"""How many, and how many boxes each has."""
WIDTH, HEIGHT = 640, 480
CLASSES = ["bicycle", "bus", "car", "person", "truck"]
SECONDS, MEBIBYTES = 20, 300
"""At most, for both ways."""


def make(folder: Path) -> None:
    """A DM v2 dataset; the images are JPEG files of noise in large squares, some 20 kB each."""
    from PIL import Image

    drawn = random.Random(1)
    pictures = []
    for _ in range(10):
        out = io.BytesIO()
        small = Image.frombytes("RGB", (WIDTH // 20, HEIGHT // 20), drawn.randbytes(WIDTH * HEIGHT * 3 // 400))
        small.resize((WIDTH, HEIGHT), Image.Resampling.NEAREST).save(out, "JPEG", quality=80)
        pictures.append(out.getvalue())
    for name in ("json", "original_files"):
        (folder / name).mkdir(parents=True)
    for number in range(IMAGES):
        boxes = [_box(drawn, f"{number}-{index}") for index in range(BOXES)]
        used = sorted({box["classification"] for box in boxes})
        value = {"classification": {"bounding_box": used}, "images": [{"bounding_box": boxes}]}
        (folder / "json" / f"{number:05}.json").write_text(json.dumps(value))
        (folder / "original_files" / f"{number:05}.jpg").write_bytes(pictures[number % len(pictures)])


def _box(drawn: random.Random, id: str) -> dict[str, Any]:
    x, y = drawn.uniform(0, WIDTH - 100), drawn.uniform(0, HEIGHT - 100)
    data = [round(value, 3) for value in (x, y, drawn.uniform(1, 100), drawn.uniform(1, 100))]
    return {"id": id, "classification": drawn.choice(CLASSES), "attrs": [], "data": data}


def there_and_back(folder: Path) -> None:
    """What is measured."""
    from stepwell.pipeline.datasets import convert

    convert(folder / "dm", folder / "yolo", source_format="dm", target_format="yolo")
    report = convert(folder / "yolo", folder / "back", source_format="yolo", target_format="dm")
    assert (report.images, report.annotations) == (IMAGES, IMAGES * BOXES)


def same_bytes(folder: Path) -> None:
    """What it is measured against: the bytes of both datasets are read, and written, and end on the disk."""
    for name in ("dm", "yolo"):
        for path in sorted((folder / name).rglob("*")):
            target = folder / f"plain-{name}" / path.relative_to(folder / name)
            if path.is_dir():
                target.mkdir(parents=True)
            elif path.suffix == ".json":
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(json.dumps(json.loads(path.read_text())))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
        os.sync()


def taken(what: str, folder: Path) -> tuple[float, float]:
    """Seconds and peak MiB of a process that does it, from start to end."""
    os.sync()
    launcher = [sys.executable, "-IS", str(Path(__file__).with_name("_peak.py"))]
    command = [*launcher, sys.executable, "-m", "bench._datasets", what, str(folder)]
    began = perf_counter()
    kibibytes, code = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    seconds = perf_counter() - began
    assert code == "0", (what, code)
    return seconds, int(kibibytes) / 1024


def rows(folder: Path) -> Iterator[Row]:
    """Seconds, memory, and the ratio."""
    make(folder / "dm")
    seconds, peak = taken("there_and_back", folder)
    plain, _ = taken("same_bytes", folder)
    what = f"{IMAGES:,} images with {IMAGES * BOXES:,} boxes, DM to YOLO and back"
    yield at_most(what, seconds, "s", SECONDS, 1)
    yield at_most("the same, peak memory", peak, "MiB", MEBIBYTES)
    yield at_most("the same bytes read and written with `json` and `pathlib` alone", plain, "s", None, 1)
    yield at_most("ratio of the first to it", seconds / plain, "×", None, 1)


if __name__ == "__main__":
    if sys.argv[1:]:
        {"there_and_back": there_and_back, "same_bytes": same_bytes}[sys.argv[1]](Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as place:
            print(rows_table(list(rows(Path(place)))))
