"""Bad and hostile input: a typed error that names file and place, and nothing written."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets import Annotation, Dataset, Image, Kind, convert, load, save
from stepwell.pipeline.datasets._json import read_json
from tests.pipeline.datasets.sample import box, picture, put, tree

FILES = {
    "dm_v1": ("original_files/a.png", "json/a.json"),
    "dm_v2": ("original_files/a.png", "json/a.json"),
    "yolo": ("images/a.png", "labels/a.txt"),
    "coco": ("images/a.png", "annotations.json"),
    "pascal": ("JPEGImages/a.png", "Annotations/a.xml"),
}
"""Of each format the image, and the file that is to be malformed."""


def refused(root: Path, format: str, content: str | bytes | dict[str, Any], *told: str) -> None:
    """Check that each of `told` stands in the error, behind the name of the file, and that nothing is written."""
    image, file = FILES[format]
    put(root / "in" / image, picture(100, 80))
    if format == "yolo" and not (root / "in/dataset.yaml").exists():
        put(root / "in/dataset.yaml", "names: [car]\n")
    path = put(root / "in" / file, content)
    fails(root, format, str(path), *told)


def fails(root: Path, format: str, *told: str) -> None:
    put(root / "out/mine.txt", "keep me")
    before = tree(root)
    with pytest.raises(BadArguments) as caught:
        convert(root / "in", root / "out", source_format=format, target_format="dm_v2", overwrite=True)
    text = str(caught.value)
    assert [part for part in told if part not in text] == [], text
    assert len(text) < 500
    assert text in caught.value.problems or not caught.value.problems
    assert tree(root) == before
    assert sorted(path.name for path in root.iterdir()) == ["in", "out"]


def dm_v1(*entries: dict[str, Any], **places: Any) -> dict[str, Any]:
    data = [{"id": id, "coordinate": value} for id, value in places.items()]
    return {"annotations": {"image_1": list(entries)}, "annotationsData": {"image_1": data}}


def v1(id: object = "b", tool: object = "bounding_box", **named: Any) -> dict[str, Any]:
    return {"id": id, "tool": tool, "classification": {"class": "car", **named}}


AREA = {"x": 0, "y": 0, "width": 1, "height": 1}


@pytest.mark.parametrize(
    "content, told",
    [
        ({}, "annotations: expected an object, got null"),
        ({"annotations": {"image_1": {}}}, "annotations.image_1: expected a list, got an object"),
        (dm_v1(v1(tool=5), b=AREA), "annotations.image_1[0].tool: expected the name of a tool, got 5"),
        (dm_v1(v1(), v1(), b=AREA), "annotations.image_1[1].id: 'b' is used twice"),
        (dm_v1(v1()), "annotations.image_1[0].id: annotationsData.image_1 has no entry with the id 'b'"),
        (dm_v1(v1([]), b=AREA), "annotations.image_1[0].id: expected text or a number"),
        (dm_v1({**v1(), "classification": {}}, b=AREA), "annotations.image_1[0].classification.class: expected the n"),
        (dm_v1(v1(), b={**AREA, "width": -1}), "annotationsData.image_1[0].coordinate: a box of negative size"),
        (dm_v1(v1(), b={"x": 0}), "annotationsData.image_1[0].coordinate.y: expected a number of pixels, got None"),
        (dm_v1(v1(tool="polygon"), b=[{"x": 0, "y": 0}]), "annotationsData.image_1[0].coordinate: a polygon needs"),
        (dm_v1(v1(tool="polyline"), b=[{"x": "0", "y": 0}]), "annotationsData.image_1[0].coordinate[0].x: expected a"),
        (
            {"annotations": {"image_1": []}, "annotationsData": {"image_1": [{"id": 1}, {"id": 1}]}},
            "annotationsData.image_1[1].id: 1 is used twice",
        ),
    ],
)
def test_dm_v1(content: dict[str, Any], told: str, tmp_path: Path) -> None:
    refused(tmp_path, "dm_v1", content, told)


@pytest.mark.parametrize(
    "tools, told",
    [
        ([], "images[0]: expected an object, got a list"),
        ({"bounding_box": {}}, "images[0].bounding_box: expected a list, got an object"),
        ({"bounding_box": [7]}, "images[0].bounding_box[0]: expected an object, got a number"),
        ({"bounding_box": [box("car", 0, 0, -1, 1)]}, "images[0].bounding_box[0].data: a box of negative size"),
        ({"bounding_box": [box("car", 0, 0, 1)]}, "images[0].bounding_box[0].data: expected 4 numbers"),
        ({"bounding_box": [box("car", 0, 0, 1, True)]}, "data: expected a number of pixels, got True"),
        ({"bounding_box": [box("car", 10**18, 0, 1, 1)]}, "data: expected a number of pixels, got 1000000"),
        ({"bounding_box": [box("car", 0, 0, 1, 1e300)]}, "data: expected a number of pixels, got 1e+300"),
        ({"bounding_box": [box("  ", 0, 0, 1, 1)]}, "images[0].bounding_box[0].classification: expected the name"),
        ({"bounding_box": [box("a\nb", 0, 0, 1, 1)]}, "classification: control characters in the name of a class"),
        ({"bounding_box": [box("\ud800", 0, 0, 1, 1)]}, "classification: control characters in the name of a class"),
        ({"bounding_box": [box("car", 0, 0, 1, 1, id=1.5)]}, "images[0].bounding_box[0].id: expected text or a num"),
        ({"polygon": [box("car", 0, 0)]}, "images[0].polygon[0].data[0]: expected 2 numbers, got 0"),
        ({"bounding_box": [{**box("car", 0, 0, 1, 1), "attrs": [{}]}]}, "images[0].bounding_box[0].attrs[0].name: exp"),
    ],
)
def test_dm_v2(tools: Any, told: str, tmp_path: Path) -> None:
    refused(tmp_path, "dm_v2", {"images": [tools]}, told)


@pytest.mark.parametrize("format", ["dm_v1", "dm_v2", "coco"])
@pytest.mark.parametrize(
    "content, told",
    [
        ('{\n  "images": [\n}', ":3: not JSON: Expecting value (column 1)"),
        ('{"images": [1, NaN]}', ":1: not JSON: NaN is not a JSON value (column 16)"),
        ('{"images":\n [-Infinity]}', ":2: not JSON: -Infinity is not a JSON value (column 3)"),
        ('{"a\\"b": 1,\n "images": [1e999]}', ":2: not JSON: '1e999' is too large a number (column 13)"),
        ('{"images": [\n-' + "9" * 5000 + "]}", "is too large a number (column 1)"),
        (
            '{"images": [],\n "x": {"images": 1},\n "images": []}',
            ":3: not JSON: the key 'images' comes twice (column 2)",
        ),
        ('{"images": [' + "[" * 100_000 + "]" * 100_000 + "]}", ":1: not JSON: nested too deeply"),
        ('{"images": [],\n"x": "\xff"}'.encode("latin-1"), ":2: not UTF-8"),
        ('{"images": []}'.encode("utf-16"), ":1: not UTF-8"),
        ('{"images": []} {}', ":1: not JSON: Extra data (column 16)"),
        ("[]", ":1: expected an object, got a list"),
        ("", ":1: not JSON: Expecting value (column 1)"),
    ],
)
def test_files_of_json(format: str, content: str | bytes, told: str, tmp_path: Path) -> None:
    refused(tmp_path, format, content, told)


SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([1e999, -1e999])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
)


@given(st.dictionaries(st.text(max_size=2), VALUES, max_size=3), st.sampled_from([None, 0, 2]), st.booleans())
def test_what_json_refuses_is_found_where_it_stands(value: dict[str, Any], indent: int | None, ascii: bool) -> None:
    """`json.dumps` writes infinities as `Infinity`, which is no JSON."""
    text = json.dumps(value, indent=indent, ensure_ascii=ascii)
    outside = re.sub(r'"(?:[^"\\]|\\.)*"', lambda found: "_" * len(found[0]), text)
    at = outside.find("Infinity")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_bytes", lambda path: text.encode())
        if at < 0:
            assert read_json(Path("a.json")) == value
            return
        with pytest.raises(BadArguments) as caught:
            read_json(Path("a.json"))
    line = text.count("\n", 0, at) + 1
    start = at - 1 if outside[at - 1] == "-" else at
    column = start - text.rfind("\n", 0, start)
    assert str(caught.value).startswith(f"a.json:{line}: not JSON: ")
    assert str(caught.value).endswith(f"(column {column})")


@pytest.mark.parametrize(
    "line, told",
    [
        ("0 0.5 0.5 0.5", "4 values are neither a box (5) nor a polygon (7, 9, …)"),
        ("0 0.5 0.5 0.5 0.5 0.5", "6 values are neither a box (5) nor a polygon (7, 9, …)"),
        ("1 0.5 0.5 0.5 0.5", "no class has the number '1'"),
        ("-1 0.5 0.5 0.5 0.5", "no class has the number '-1'"),
        ("0.5 0.5 0.5 0.5 0.5", "no class has the number '0.5'"),
        ("9" * 5000 + " 0.5 0.5 0.5 0.5", "no class has the number '999"),
        ("car 0.5 0.5 0.5 0.5", "expected a number, got 'car'"),
        ("0 nan 0.5 0.5 0.5", "expected a number, got 'nan'"),
        ("0 0.5 inf 0.5 0.5", "expected a number, got 'inf'"),
        ("0 0_1 0.5 0.5 0.5", "expected a number, got '0_1'"),
        ("0 ٠ 0.5 0.5 0.5", "expected a number, got '٠'"),
        ("0 0.5 1e999 0.5 0.5", "inf is no part of the image's width or height (0 … 1)"),
        ("0 0.5 0.5 320 240", "320 is no part of the image's width or height (0 … 1)"),
        ("0 0.5 0.5 -0.005 0.1", "a box of negative size"),
    ],
)
def test_lines_of_yolo(line: str, told: str, tmp_path: Path) -> None:
    refused(tmp_path, "yolo", f"0 0.5 0.5 0.1 0.1\n\n{line}\n", f"a.txt:3: {told}")


def test_a_file_of_yolo_in_another_encoding(tmp_path: Path) -> None:
    refused(tmp_path, "yolo", "0 0.5 0.5 0.1 0.1\n".encode("utf-16"), ":1: not UTF-8")


def test_a_pose_says_only_what_can_be_seen(tmp_path: Path) -> None:
    put(tmp_path / "in/dataset.yaml", "names: [car]\nkpt_shape: [1, 3]\n")
    refused(tmp_path, "yolo", "0 0.5 0.5 0.1 0.1 0.5 0.5 3\n", "a.txt:1: 3 is no visibility of a keypoint (0, 1 or 2)")


BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
)


@pytest.mark.parametrize(
    "config, told",
    [
        ("names: [car\n", ":2: not YAML: "),
        ("names: [a]\n\tx: 1\n", ":2: not YAML: "),
        ("- car\n", ":1: expected a mapping"),
        ("train: images\n", ": names: expected a list or a mapping of classes"),
        ("names: {a: car}\n", ": names.'a': expected the number of a class, once"),
        ("names: {0: car, 00: bus}\n", ": names.'00': expected the number of a class, once"),
        ("names: [car]\nnc: 2\n", ": nc: '2' classes, but 1 names"),
        ("names: [[car]]\n", ": names[0]: expected the name of a class"),
        ("names: [car]\nkpt_shape: [17, 5]\n", ": kpt_shape: expected [how many, 2 or 3]"),
        (f"names: [car]\nkpt_shape: [{'9' * 5000}, 3]\n", ": kpt_shape: expected [how many, 2 or 3]"),
        ("names: !!python/object/apply:os.system [exit]\n", ": names[0]: "),
        (BOMB + "names: [*p]\n", ": names[0]: expected the name of a class"),
        ("names: " + "[" * 5000 + "]" * 5000, ":1: not YAML: nested too deeply"),
    ],
)
def test_the_configuration_of_yolo(config: str, told: str, tmp_path: Path) -> None:
    put(tmp_path / "in/images/a.png", picture(9, 9))
    path = put(tmp_path / "in/dataset.yaml", config)
    if told == ": names[0]: ":  # a tag is passed over, and nothing is called
        assert load(tmp_path / "in", "yolo").classes == ("exit",)
        return
    fails(tmp_path, "yolo", f"{path}{told}")


def coco(**more: Any) -> dict[str, Any]:
    image, category = {"id": 1, "file_name": "a.png"}, {"id": 1, "name": "car"}
    return {"images": [image], "categories": [category], "annotations": [], **more}


def entry(**more: Any) -> dict[str, Any]:
    return coco(annotations=[{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], **more}])


@pytest.mark.parametrize(
    "content, told",
    [
        ({"images": []}, "categories: expected a list, got null"),
        (coco(images=[{"id": 1, "file_name": "../a.png"}]), "images[0].file_name: '../a.png' leads out of the folder"),
        (coco(images=[{"id": 1, "file_name": "x/../../a.png"}]), "images[0].file_name: 'x/../../a.png' leads out"),
        (coco(images=[{"id": 1, "file_name": "/etc/passwd"}]), "images[0].file_name: '/etc/passwd' leads out of"),
        (coco(images=[{"id": 1, "file_name": ""}]), "images[0].file_name: expected text, got ''"),
        (coco(images=[{"id": "1", "file_name": "a.png"}]), "images[0].id: expected a whole number, got '1'"),
        (coco(images=[{"id": i, "file_name": "a.png"} for i in (1, 2)]), "images[1].file_name: 'a.png' is used twice"),
        (coco(images=[{"id": 1, "file_name": f} for f in "ab"]), "images[1].id: 1 is used twice"),
        (coco(images=[{"id": 1, "file_name": "a.png", "width": 10**30, "height": 1}]), "images[0].width: expected a n"),
        (coco(images=[{"id": 1, "file_name": "a.png", "width": 5}]), "images[0].height: expected a number of pixels"),
        (coco(categories=[{"id": 1, "name": n} for n in "ab"]), "categories[1].id: 1 is used twice"),
        (coco(categories=[{"id": 1}]), "categories[0].name: expected the name of a class, got None"),
        (coco(annotations=[entry()["annotations"][0]] * 2), "annotations[1].id: 1 is used twice"),
        (entry(image_id=2), "annotations[0].image_id: there is no image 2"),
        (entry(category_id=10**300), "annotations[0].category_id: there is no category 1000"),
        (entry(bbox=[0, 0, -1, 1]), "annotations[0].bbox: a box of negative size"),
        (entry(bbox=[0, 0, 1, "1"]), "annotations[0].bbox: expected a number of pixels, got '1'"),
        (entry(bbox=None), "annotations[0].bbox: expected 4 numbers, got None"),
        (entry(segmentation=[[0, 0, 1, 1]]), "annotations[0].segmentation[0]: a polygon needs three points, got 2"),
        (entry(segmentation=[[0, 0, 1, 1, 2]]), "annotations[0].segmentation[0]: 5 numbers are no points"),
        (entry(keypoints=[0, 0, 3]), "annotations[0].keypoints[2]: 3 is no visibility of a keypoint"),
        (entry(keypoints=[0, 0]), "annotations[0].keypoints: 2 numbers are no points with visibility"),
        (entry(iscrowd="yes"), "annotations[0].iscrowd: expected a number"),
    ],
)
def test_coco(content: dict[str, Any], told: str, tmp_path: Path) -> None:
    refused(tmp_path, "coco", content, told)


OBJECT = "<object><name>car</name>{}</object>"
SIDES = "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox>"
DOCTYPE = '<?xml version="1.0"?>\n<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>\n<annotation>&b;</annotation>'


@pytest.mark.parametrize(
    "content, told",
    [
        ("<annotation>\n <object>\n</annotation>", ":3: not XML: mismatched tag (column 3)"),
        ("", ":1: not XML: no element found (column 1)"),
        ("<annotation/><annotation/>", ":1: not XML: junk after document element (column 14)"),
        ("<annotation>&x;</annotation>", ":1: not XML: undefined entity"),
        ("<html/>", ":1: expected <annotation>, got <html>"),
        (DOCTYPE, ":2: a document type is not read"),
        (DOCTYPE.encode("utf-16"), ":2: a document type is not read"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', ":1: not XML: unknown encoding"),
        (b'<?xml version="1.0"?><annotation>\n\xff</annotation>', ":2: not XML: not well-formed (invalid token)"),
        ("<annotation><size><width>9</width></size></annotation>", ": size.height: is missing"),
        ("<annotation><size><width>9.5</width><height>9</height></size></annotation>", ": size.width: expected a nu"),
        ("<annotation><size><width>-9</width><height>9</height></size></annotation>", ": size.width: expected a num"),
        ("<annotation>" + "<size><width>9</width><height>9</height></size>" * 2 + "</annotation>", ": size: stands"),
        (OBJECT.format(""), ": object[0].bndbox: is missing"),
        ("<object>" + SIDES.format(1, 2, 3, 4) + "</object>", ": object[0].name: expected the name of a class"),
        (OBJECT.format(SIDES.format(1, 2, 3, 4) * 2), ": object[0].bndbox: stands there 2 times"),
        (OBJECT.format(SIDES.format(5, 2, 3, 4)), ": object[0].bndbox: a box of negative size"),
        (OBJECT.format(SIDES.format("nan", 2, 3, 4)), ": object[0].bndbox.xmin: expected a number, got 'nan'"),
        (OBJECT.format(SIDES.format(1, "inf", 3, 4)), ": object[0].bndbox.ymin: expected a number, got 'inf'"),
        (OBJECT.format(SIDES.format(1, 2, "9" * 5000, 4)), ": object[0].bndbox.xmax: expected a number of pixels"),
        (OBJECT.format(SIDES.format(1, 2, 3, "1_0")), ": object[0].bndbox.ymax: expected a number, got '1_0'"),
        (OBJECT.format("<bndbox><xmin>1</xmin></bndbox>"), ": object[0].bndbox.ymin: is missing"),
    ],
)
def test_pascal(content: str | bytes, told: str, tmp_path: Path) -> None:
    if isinstance(content, str) and content.startswith("<object>"):
        content = f"<annotation>{content}</annotation>"
    refused(tmp_path, "pascal", content, f"a.xml{told}")


def test_the_name_of_an_image_in_a_file_of_pascal_leads_nowhere(tmp_path: Path) -> None:
    put(tmp_path / "in/JPEGImages/a.png", picture(9, 9))
    put(tmp_path / "secret.png", picture(9, 9))
    put(tmp_path / "in/Annotations/b.xml", "<annotation><filename>../../secret.png</filename></annotation>")
    report = convert(tmp_path / "in", tmp_path / "out", source_format="pascal", target_format="yolo")
    assert [(loss.kind, loss.examples) for loss in report.losses] == [("label", ("Annotations/b.xml",))]
    assert [path for path in tree(tmp_path / "out") if path.endswith(".png")] == ["images/a.png"]


@pytest.mark.parametrize(
    "format, missing",
    [
        ("dm_v1", "json"),
        ("dm_v2", "original_files"),
        ("yolo", "images"),
        ("yolo", "dataset.yaml"),
        ("coco", "annotations.json"),
        ("coco", "images"),
        ("pascal", "Annotations"),
        ("pascal", "JPEGImages"),
    ],
)
def test_what_a_format_must_have_is_named_when_it_is_missing(format: str, missing: str, tmp_path: Path) -> None:
    image = put(tmp_path / "in/a.png", picture(9, 9))
    save(Dataset([Image("a.png", image)]), tmp_path / "set", format)
    (tmp_path / "set" / missing).rename(tmp_path / "gone")
    (tmp_path / "set/classes.txt").unlink(missing_ok=True)  # which stands in for dataset.yaml
    with pytest.raises(BadArguments) as caught:
        load(tmp_path / "set", format)
    assert missing in str(caught.value)
    assert str(tmp_path / "set") in str(caught.value)


@pytest.mark.parametrize("format", [*FILES, "imagefolder"])
def test_a_root_that_is_no_folder(format: str, tmp_path: Path) -> None:
    with pytest.raises(BadArguments, match="nowhere is not a folder"):
        load(tmp_path / "nowhere", format)


@pytest.mark.parametrize(
    "name", ["../a.png", "/a.png", "x/../a.png", "./a.png", "a//b.png", "", "a\n.png", "\ud800.png"]
)
def test_an_image_made_by_hand_cannot_lead_out_of_the_target(name: str, tmp_path: Path) -> None:
    image = Image(name, put(tmp_path / "a.png", picture(9, 9)))
    with pytest.raises(BadArguments, match="an image cannot be named"):
        save(Dataset([image]), tmp_path / "out", "dm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize(
    "annotation, told",
    [
        (Annotation(Kind.BOX, "car", (0.0, 0.0, -1.0, 1.0)), ".points: a box of negative size"),
        (Annotation(Kind.BOX, "car", (0.0, 0.0, 1.0)), ".points: 3 numbers are no box"),
        (Annotation(Kind.BOX, "car", (0.0, 0.0, 1.0, float("nan"))), ".points: expected a number of pixels, got nan"),
        (Annotation(Kind.KEYPOINT, "car", (0.0, float("inf"))), ".points: expected a number of pixels, got inf"),
        (Annotation(Kind.POLYGON, "car", (0.0, 0.0, 1.0, 1.0)), ".points: a polygon needs three points, got 2"),
        (Annotation(Kind.BOX, None, (0.0, 0.0, 1.0, 1.0)), ".label: a box without a class"),
        (Annotation(Kind.BOX, "car", (0.0, 0.0, 1.0, 1.0), 1.5), ".id: expected text or a number"),  # type: ignore[arg-type]
        (Annotation("cube", "car"), ".kind: expected a Kind, got 'cube'"),  # type: ignore[arg-type]
    ],
)
def test_an_annotation_made_by_hand_is_checked(annotation: Annotation, told: str, tmp_path: Path) -> None:
    image = Image("a.png", put(tmp_path / "a.png", picture(9, 9)), annotations=[annotation])
    with pytest.raises(BadArguments) as caught:
        save(Dataset([image]), tmp_path / "out", "coco")
    assert f"image 'a.png', annotations[0]{told}" in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_an_attribute_made_by_hand_that_is_not_json(value: Any, tmp_path: Path) -> None:
    mark = Annotation(Kind.CLASSIFICATION, "car", attributes=(("x", value),))
    image = Image("a.png", put(tmp_path / "a.png", picture(9, 9)), annotations=[mark])
    with pytest.raises(BadArguments, match=r"image 'a.png': an attribute or member is not JSON"):
        save(Dataset([image]), tmp_path / "out", "dm")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize("format", [*FILES, "imagefolder"])
def test_an_image_that_has_gone_is_named(format: str, tmp_path: Path) -> None:
    image = Image("a.png", tmp_path / "gone.png", known_size=(9, 9))
    with pytest.raises(BadArguments) as caught:
        save(Dataset([image]), tmp_path / "out", format)
    assert str(tmp_path / "gone.png") in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no image", picture(9, 9)[:20]])
@pytest.mark.parametrize("format", ["yolo", "coco", "pascal"])
def test_an_image_that_is_none_is_named_where_its_size_is_needed(format: str, content: bytes, tmp_path: Path) -> None:
    path = put(tmp_path / "in/original_files/a.png", content)
    put(tmp_path / "in/json/a.json", {"images": [{"bounding_box": [box("car", 0, 0, 1, 1)]}]})
    with pytest.raises(BadArguments, match="not readable as an image") as caught:
        convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format=format)
    assert str(path) in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("name", [b"a\nb.png", b"a\xff.png", b"a\x1b[31m.png"])
def test_a_name_that_no_file_of_labels_can_hold(name: bytes, tmp_path: Path) -> None:
    put(tmp_path / "in/json/a.json", {"images": []})
    put(tmp_path / "in/original_files" / os.fsdecode(name), picture(9, 9))
    with pytest.raises(BadArguments, match="control characters in the name of a file in"):
        load(tmp_path / "in", "dm")


def test_what_is_no_file_is_never_opened(tmp_path: Path) -> None:
    put(tmp_path / "in/json/a.json", {"images": []})
    put(tmp_path / "in/original_files/a.png", picture(9, 9))
    os.mkfifo(tmp_path / "in/original_files/b.png")
    os.mkfifo(tmp_path / "in/json/b.json")
    (tmp_path / "in/original_files/round").symlink_to("..")
    (tmp_path / "in/original_files/c.png").symlink_to("nowhere")
    found = load(tmp_path / "in", "dm")
    assert [image.name for image in found.images] == ["a.png"]
    assert sorted(place for loss in found.losses for place in loss.examples) == [
        "json/b.json",
        "original_files/b.png",
        "original_files/c.png",
        "original_files/round",
    ]


def test_a_file_and_a_folder_of_one_name(tmp_path: Path) -> None:
    path = put(tmp_path / "in.png", picture(9, 9))
    with pytest.raises(BadArguments, match=r"'a.png/b.png' would lie in a folder named as another image"):
        save(Dataset([Image("a.png", path), Image("a.png/b.png", path)]), tmp_path / "out", "dm")
    classed = Image("a.png", path, annotations=[Annotation(Kind.CLASSIFICATION, "b.png")])
    with pytest.raises(BadArguments, match=r"'b.png' is named as a folder that others lie in"):
        save(Dataset([classed, Image("b.png", path)]), tmp_path / "out", "imagefolder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.png"]
