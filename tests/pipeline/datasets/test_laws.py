"""§11.8: what holds for every dataset; there and back it is the same, but for what the reports name as lost."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.pipeline.datasets import (
    Annotation,
    ConversionReport,
    Dataset,
    DatasetFormat,
    Image,
    Kind,
    convert,
    load,
    save,
)
from tests.pipeline.datasets.sample import ALL_KINDS, KINDS, datasets, tree

HALF = 0.5 + 1e-9
FORMATS = [format.value for format in DatasetFormat]
SOME_KINDS = [ALL_KINDS, KINDS, (Kind.KEYPOINT,), (Kind.CLASSIFICATION,)]


def in_folder(
    kinds: tuple[Kind, ...], law: Callable[[Path, Dataset], None], data: st.DataObject, *, idle: bool = True
) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        (root / "pictures").mkdir()
        law(root, data.draw(datasets(root / "pictures", kinds, idle=idle)))


def there_and_back(root: Path, start: str, home: str, away: str, tag: str) -> Counter[str]:
    """`start` (in the format `home`) → `away` → `home`, all in `root`; what was lost on both ways, by kind."""
    first = convert(root / start, root / f"there{tag}", source_format=home, target_format=away)
    second = convert(root / f"there{tag}", root / f"back{tag}", source_format=away, target_format=home)
    return lost(first) + lost(second)


def lost(report: ConversionReport) -> Counter[str]:
    return sum((Counter({loss.kind: loss.count}) for loss in report.losses), Counter[str]())


def edges(annotation: Annotation) -> list[float]:
    if annotation.kind is not Kind.BOX:
        return list(annotation.points)
    x, y, w, h = annotation.points
    return [x, y, x + w, y + h]


def by_kind(image: Image) -> dict[Kind, list[Annotation]]:
    """DM v2 lists by tool; within a tool the order stays."""
    found: dict[Kind, list[Annotation]] = defaultdict(list)
    for annotation in image.annotations:
        found[annotation.kind].append(annotation)
    return found


def compare(before: Image, after: Image, *, exact: bool) -> Counter[str]:
    """Check that each kind of annotation came back whole or not at all, and count what is missing."""
    assert (before.place, before.path.read_bytes()) == (after.place, after.path.read_bytes())
    missing: Counter[str] = Counter()
    other = by_kind(after)
    assert other.keys() <= by_kind(before).keys()
    for kind, ones in by_kind(before).items():
        if kind not in other:
            missing["annotation"] += len(ones)
            continue
        for one, two in zip(ones, other[kind], strict=True):
            assert one.label == two.label
            assert edges(one) == (edges(two) if exact else pytest.approx(edges(two), abs=HALF))
            assert one.members == two.members
            kept = [pair for pair in one.attributes if pair in two.attributes]
            assert list(two.attributes) == kept
            missing["attribute"] += len(one.attributes) - len(kept)
            missing["id"] += str(one.id) != str(two.id)
    return missing


@pytest.mark.parametrize("home, away", list(product(FORMATS, FORMATS)))
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_there_and_back_all_is_as_it_was_but_for_what_the_reports_name(
    home: str, away: str, data: st.DataObject
) -> None:
    def law(root: Path, dataset: Dataset) -> None:
        save(dataset, root / "start", home)
        before = load(root / "start", home)
        losses = there_and_back(root, "start", home, away, "")
        after = load(root / "back", home)
        assert before.losses == after.losses == ()
        assert before.splits == after.splits
        assert set(after.classes) <= set(before.classes)
        assert len(before.classes) - len(after.classes) == losses["class"]
        if losses["name"]:  # an image without a class may lie in no folder of an ImageFolder
            assert len(before.images) == len(after.images)
            return
        missing: Counter[str] = Counter()
        if away == "imagefolder" != home:
            for one, two in zip(sorted(before.images, key=place), sorted(after.images, key=place), strict=True):
                only_classes(one, two)
            missing["annotation"] = len(list(before.annotations())) - len(list(after.annotations()))
            assert missing["annotation"] <= losses["annotation"]
            return
        exact = "yolo" not in (home, away) and not losses["rounding"]
        for one, two in zip(sorted(before.images, key=place), sorted(after.images, key=place), strict=True):
            missing += compare(one, two, exact=exact)
        assert missing["annotation"] == losses["annotation"]
        assert missing["attribute"] == losses["attribute"]
        assert missing["id"] <= losses["id"]  # a new one may by chance be what the old one was

    in_folder(data.draw(st.sampled_from(SOME_KINDS)), law, data)


def place(image: Image) -> str:
    return image.place


def only_classes(before: Image, after: Image) -> None:
    """The first class of an image wins: that of its first classification, else of its first annotation."""
    classed = [a for a in before.annotations if a.kind is Kind.CLASSIFICATION]
    first = [a.label for a in classed or before.annotations if a.label is not None][:1]
    assert (before.place, before.path.read_bytes()) == (after.place, after.path.read_bytes())
    assert [a.kind for a in after.annotations] in ([], [Kind.CLASSIFICATION])
    assert [a.label for a in after.annotations] in ([], first)


@pytest.mark.parametrize("format", ["yolo", "coco", "pascal"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_boxes_come_back_within_half_a_pixel(format: str, data: st.DataObject) -> None:
    def law(root: Path, dataset: Dataset) -> None:
        save(dataset, root / "dm", "dm_v2")
        there_and_back(root, "dm", "dm", format, "")
        before, after = load(root / "dm", "dm"), load(root / "back", "dm")
        assert before.classes == after.classes
        for one, other in zip(before.images, after.images, strict=True):
            assert compare(one, other, exact=False)["annotation"] == 0

    in_folder((Kind.BOX,), law, data, idle=False)


@pytest.mark.parametrize("format", ["yolo", "coco"])
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_polygons_come_back_within_half_a_pixel(format: str, data: st.DataObject) -> None:
    def law(root: Path, dataset: Dataset) -> None:
        save(dataset, root / "dm", "dm_v2")
        there_and_back(root, "dm", "dm", format, "")
        before, after = load(root / "dm", "dm"), load(root / "back", "dm")
        assert before.classes == after.classes
        for one, other in zip(before.images, after.images, strict=True):
            assert compare(one, other, exact=False)["annotation"] == 0

    in_folder(KINDS, law, data)


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_dm_v1_and_v2_hold_the_same(data: st.DataObject) -> None:
    def law(root: Path, dataset: Dataset) -> None:
        for first, other in (("dm_v1", "dm_v2"), ("dm_v2", "dm_v1")):
            start, there, back = (root / f"{first}{step}" for step in ("-start", "-there", "-back"))
            save(dataset, start, first)
            assert convert(start, there, source_format=first, target_format=other).lossless
            assert convert(there, back, source_format=other, target_format=first).lossless
            before, after = load(start, first), load(back, first)
            assert before.classes == after.classes
            for one, same in zip(before.images, after.images, strict=True):
                assert by_kind(one) == by_kind(same)
            if first == "dm_v2":
                assert tree(start) == tree(back)

    in_folder(ALL_KINDS, law, data, idle=False)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_second_trip_changes_nothing(format: str, data: st.DataObject) -> None:
    def law(root: Path, dataset: Dataset) -> None:
        save(dataset, root / "dm", "dm_v2")
        there_and_back(root, "dm", "dm", format, "1")
        there_and_back(root, "back1", "dm", format, "2")
        assert tree(root / "there1") == tree(root / "there2")
        assert tree(root / "back1") == tree(root / "back2")

    in_folder(data.draw(st.sampled_from(SOME_KINDS)), law, data)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_equal_inputs_give_equal_bytes_and_reports(format: str, data: st.DataObject) -> None:
    def law(root: Path, dataset: Dataset) -> None:
        one = save(dataset, root / "one", format)
        backwards = Dataset(dataset.images[::-1], dataset.classes[::-1], dataset.splits[::-1])
        other = save(backwards, root / "other", format)
        assert tree(root / "one") == tree(root / "other")
        assert one.losses == other.losses
        assert one.images == len(dataset.images)

    in_folder(ALL_KINDS, law, data)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_what_stands_in_the_target_and_what_the_report_names_is_all(format: str, data: st.DataObject) -> None:
    def law(root: Path, dataset: Dataset) -> None:
        report = save(dataset, root / "there", format)
        losses = lost(report)
        found = load(root / "there", format)
        assert found.losses == ()
        before, after = list(dataset.annotations()), list(found.annotations())
        assert report.annotations == len(after)
        names = {a.label for a in before if a.label is not None} | set(dataset.classes)
        assert len(names) == losses["class"] + len(found.classes)
        if format == "imagefolder":  # a shape gives its class to the image and is lost as a shape
            assert len(before) - len(after) <= losses["annotation"] <= len(before)
        else:
            assert len(before) == losses["annotation"] + len(after)

    in_folder(ALL_KINDS, law, data)
