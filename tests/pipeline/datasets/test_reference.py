"""The tables of docs/reference/datasets.md say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stepwell.pipeline.datasets import (
    Annotation,
    ConversionReport,
    Dataset,
    DatasetFormat,
    Image,
    Kind,
    Loss,
    load,
    save,
)
from tests.pipeline.datasets.sample import picture, put

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "datasets.md").read_text("utf-8")


def rows(title: str) -> list[list[str]]:
    """The table of a section, with its head, without the line below that."""
    lines = re.findall(r"^\|(.*)\|$", PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0], re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in (lines[0], *lines[2:])]


HEAD, *BODY = rows("What each format holds")
CELLS = {row[0]: dict(zip((cell.strip("`") for cell in HEAD[1:]), row[1:], strict=True)) for row in BODY}
POINTS = {Kind.BOX: (1.0, 1.0, 2.0, 2.0), Kind.KEYPOINT: (1.0, 1.0), Kind.POLYGON: (0.0, 0.0, 9.0, 0.0, 9.0, 9.0)}
POINTS[Kind.POLYLINE] = POINTS[Kind.POLYGON]
FORMATS = [format.value for format in DatasetFormat]


def written(root: Path, format: str, mark: Annotation, *classes: str) -> tuple[ConversionReport, Dataset]:
    image = Image("a.png", put(root / "a.png", picture(20, 20)), annotations=[mark])
    return save(Dataset([image], classes), root / "out", format), load(root / "out", format)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", list(Kind))
def test_kinds(kind: Kind, format: str, tmp_path: Path) -> None:
    report, found = written(tmp_path, format, Annotation(kind, "x", POINTS.get(kind, ())))
    kinds = [annotation.kind for annotation in found.annotations()]
    match CELLS[kind][format]:
        case "yes" | "alone" | "whole pixels" | "one an image":
            assert (kinds, report.lossless) == ([kind], True)
        case "its class":
            assert (kinds, [loss.kind for loss in report.losses]) == ([Kind.CLASSIFICATION], ["annotation"])
        case "no":
            assert kinds == []
            assert "annotation" in [loss.kind for loss in report.losses]
        case other:
            pytest.fail(other)


def mark_for(format: str) -> Kind:
    return Kind.CLASSIFICATION if format == "imagefolder" else Kind.BOX


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("id", ["7", "seven"])
def test_ids(id: str, format: str, tmp_path: Path) -> None:
    kind = mark_for(format)
    report, found = written(tmp_path, format, Annotation(kind, "x", POINTS.get(kind, ()), id))
    kept = CELLS["ids"][format] in ("yes", "whole numbers" if id == "7" else "yes")
    assert ([annotation.id for annotation in found.annotations()] == [id]) is kept
    assert [loss.kind for loss in report.losses] == ([] if kept else ["id"])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["colour", "iscrowd", "pose", "truncated", "difficult", "occluded"])
def test_attributes(name: str, format: str, tmp_path: Path) -> None:
    kind = mark_for(format)
    report, found = written(tmp_path, format, Annotation(kind, "x", POINTS.get(kind, ()), None, ((name, 1),)))
    cell = CELLS["attributes"][format]
    kept = cell == "yes" or f"`{name}`" in cell
    assert [annotation.attributes for annotation in found.annotations()] == [((name, 1),) if kept else ()]
    assert [loss.kind for loss in report.losses] == ([] if kept else ["attribute"])


@pytest.mark.parametrize("format", FORMATS)
def test_classes_without_annotation(format: str, tmp_path: Path) -> None:
    kind = mark_for(format)
    report, found = written(tmp_path, format, Annotation(kind, "x", POINTS.get(kind, ())), "idle")
    kept = CELLS["classes without annotation"][format] == "yes"
    assert found.classes == (("idle", "x") if kept else ("x",))
    assert [loss.kind for loss in report.losses] == ([] if kept else ["class"])


def test_the_kinds_of_losses() -> None:
    listed = {row[0].strip("`") for row in rows("Losses")[1:]}
    assert listed == set(re.findall(r"`(\w+)`", (Loss.__doc__ or "").partition("is one of")[2].partition(";")[0]))
    code = Path(__file__).parents[3] / "src" / "stepwell" / "pipeline" / "datasets"
    used = {kind for file in code.glob("*.py") for kind in re.findall(r'\.lost\(\s*"(\w+)"', file.read_text("utf-8"))}
    assert used <= listed
