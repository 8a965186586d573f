"""Each format by the letter: what is written, and what others write that must be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

from stepwell.pipeline.datasets import Annotation, Dataset, Image, Kind, convert, load, save
from tests.pipeline.datasets.sample import box, dm, picture, put, tree


def a_dataset(root: Path, *annotations: Annotation, size: tuple[int, int] = (100, 80), name: str = "a.png") -> Dataset:
    return Dataset([Image(name, put(root / "pictures" / name, picture(*size)), annotations=list(annotations))])


def losses(found: Any) -> list[tuple[str, str, int]]:
    return [(loss.kind, loss.reason, loss.count) for loss in found.losses]


# DM

TOOLS = {
    "bounding_box": [box("car", 1, 2.5, 3, 4, id="b", colour="red")],
    "polygon": [{"id": "p", "classification": "tree", "attrs": [], "data": [[0, 0], [9, 0], [9, 9]]}],
    "polyline": [{"id": "l", "classification": "lane", "attrs": [], "data": [[0, 0], [9, 9]]}],
    "keypoint": [{"id": "k", "classification": "eye", "attrs": [], "data": [3, 4]}],
    "relation": [{"id": "r", "classification": None, "attrs": [], "data": ["b", "p"]}],
    "group": [{"id": "g", "classification": "both", "attrs": [], "data": ["b", "p"]}],
    "classification": [{"id": "c", "classification": "street", "attrs": []}],
}


def test_dm_v2_is_read_and_written_as_it_is(tmp_path: Path) -> None:
    classes = {tool: [e["classification"] for e in entries if e["classification"]] for tool, entries in TOOLS.items()}
    put(tmp_path / "in/original_files/a.png", picture(20, 20))
    value = {"classification": {tool: names for tool, names in classes.items() if names}, "images": [TOOLS]}
    put(tmp_path / "in/json/a.json", value)
    assert convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="dm_v2").lossless
    assert json.loads((tmp_path / "out/json/a.json").read_text()) == value
    found = load(tmp_path / "in", "dm")
    assert found.classes == ("both", "car", "eye", "lane", "street", "tree")
    assert {a.kind: a.points for a in found.annotations()} == {
        Kind.BOX: (1, 2.5, 3, 4),
        Kind.POLYGON: (0, 0, 9, 0, 9, 9),
        Kind.POLYLINE: (0, 0, 9, 9),
        Kind.KEYPOINT: (3, 4),
        Kind.RELATION: (),
        Kind.GROUP: (),
        Kind.CLASSIFICATION: (),
    }


def test_dm_v1_has_what_and_where_apart(tmp_path: Path) -> None:
    put(tmp_path / "in/original_files/a.png", picture(20, 20))
    put(tmp_path / "in/json/a.json", {"images": [TOOLS]})
    assert convert(tmp_path / "in", tmp_path / "v1", source_format="dm", target_format="dm_v1").lossless
    value = json.loads((tmp_path / "v1/json/a.json").read_text())
    assert value["annotations"]["image_1"][0] == {
        "id": "b",
        "tool": "bounding_box",
        "classification": {"class": "car", "colour": "red"},
    }
    assert {entry["id"]: entry["coordinate"] for entry in value["annotationsData"]["image_1"]} == {
        "b": {"x": 1, "y": 2.5, "width": 3, "height": 4},
        "p": [{"x": 0, "y": 0}, {"x": 9, "y": 0}, {"x": 9, "y": 9}],
        "l": [{"x": 0, "y": 0}, {"x": 9, "y": 9}],
        "k": [{"x": 3, "y": 4}],
        "r": ["b", "p"],
        "g": ["b", "p"],
    }


def test_dm_v2_keeps_classes_that_nothing_has_and_dm_v1_counts_them(tmp_path: Path) -> None:
    put(tmp_path / "in/original_files/a.png", picture(20, 20))
    put(tmp_path / "in/json/a.json", {"classification": {"polygon": ["idle"]}, "images": []})
    assert convert(tmp_path / "in", tmp_path / "v2", source_format="dm", target_format="dm").lossless
    assert load(tmp_path / "v2", "dm").classes == ("idle",)
    report = convert(tmp_path / "in", tmp_path / "v1", source_format="dm", target_format="dm_v1")
    assert [(loss.kind, loss.examples) for loss in report.losses] == [("class", ("idle",))]


def test_dm_v2_lists_classes_in_the_order_of_the_tools(tmp_path: Path) -> None:
    marks = [Annotation(Kind.GROUP, None, (), "1", (), []), Annotation(Kind.BOX, "b", (0.0, 0.0, 1.0, 1.0), "2")]
    save(a_dataset(tmp_path, *marks, Annotation(Kind.GROUP, "a", (), "3", (), [])), tmp_path / "out", "dm")
    value = json.loads((tmp_path / "out/json/a.json").read_text())
    assert list(value["classification"]) == list(value["images"][0]) == ["group", "bounding_box"]


@pytest.mark.parametrize("format", ["dm_v1", "dm_v2"])
def test_annotations_without_an_id_get_one_in_dm_that_nothing_else_has(format: str, tmp_path: Path) -> None:
    marks = [Annotation(Kind.BOX, "car", (0.0, 0.0, 1.0, 1.0), id) for id in (None, "1", None, 3)]
    assert save(a_dataset(tmp_path, *marks), tmp_path / "out", format).lossless
    assert [annotation.id for annotation in load(tmp_path / "out", format).annotations()] == ["2", "1", "4", 3]


def test_what_dm_has_and_the_model_has_not_is_counted(tmp_path: Path) -> None:
    put(tmp_path / "original_files/a.png", picture(20, 20))
    entry = {**box("car", 0, 0, 1, 1), "confidence": 0.5}
    put(
        tmp_path / "json/a.json",
        {"images": [{"bounding_box": [entry], "cuboid": [{}, {}]}, {"polygon": [{}]}], "dataset": 7},
    )
    assert losses(load(tmp_path, "dm")) == [
        ("annotation", "a tool that is not known", 2),
        ("annotation", "the file speaks of more than one image", 1),
        ("field", "a file has more keys than are read", 1),
        ("field", "an annotation has more keys than are read", 1),
    ]


def test_halves_of_letters_come_back_from_dm(tmp_path: Path) -> None:
    put(tmp_path / "in/original_files/a.png", picture(20, 20))
    put(tmp_path / "in/json/a.json", {"images": [{"bounding_box": [box("ä", 0, 0, 1, 1, text="ü \ud83d")]}]})
    assert convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="dm_v1").lossless
    (annotation,) = load(tmp_path / "out", "dm_v1").annotations()
    assert annotation.attributes == (("text", "ü \ud83d"),)
    report = convert(tmp_path / "in", tmp_path / "coco", source_format="dm", target_format="coco")
    assert "attribute" in [loss.kind for loss in report.losses]


# YOLO


def test_yolo_by_the_letter(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        shape = {"id": "p", "classification": "no", "data": [[0, 0], [100, 0], [50, 40]]}
        dm(tmp_path / "in" / split, "a.png", bounding_box=[box("car: 1", 10, 20, 30, 40)], polygon=[shape])
    report = convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="yolo")
    files = tree(tmp_path / "out")
    assert files.pop("dataset.yaml").decode() == (
        'train: train/images\nval: valid/images\ntest: test/images\nnc: 2\nnames:\n- "car: 1"\n- "no"\n'
    )
    assert files.pop("classes.txt") == b"car: 1\nno\n"
    assert files["train/labels/a.txt"].decode() == (
        "0 0.250000 0.500000 0.300000 0.500000\n1 0.000000 0.000000 1.000000 0.000000 0.500000 0.500000\n"
    )
    assert sorted(files) == [f"{s}/{f}" for s in ("test", "train", "valid") for f in ("images/a.png", "labels/a.txt")]
    assert {loss.kind for loss in report.losses} == {"id"}


def yolo(root: Path, labels: str, config: str = "names: [car, no]\n", **files: str) -> Path:
    put(root / "images/a.png", picture(100, 80))
    put(root / "labels/a.txt", labels)
    put(root / "dataset.yaml", config)
    for name, text in files.items():
        put(root / name, text)
    return root


@pytest.mark.parametrize(
    "config", ["names: [car, no]\n", "names: {0: car, 1: no}\nnc: 2\n", "path: /elsewhere\nnames:\n- car\n- 'no'\n"]
)
def test_names_of_yolo_are_a_list_or_a_mapping(config: str, tmp_path: Path) -> None:
    found = load(yolo(tmp_path, "1 0.5 0.5 0.2 0.25\n", config), "yolo")
    assert list(found.annotations()) == [Annotation(Kind.BOX, "no", (40, 30, 20, 20))]
    assert found.classes == ("car", "no")


def test_yolo_of_other_tools_is_read(tmp_path: Path) -> None:
    """Windows line ends, empty lines, numbers of classes as floats, no configuration but a list of classes."""
    yolo(tmp_path, "\r\n0.0 .5 5e-1 0.2 0.25\r\n\n1  0 0 1 0 1 1", config="")
    (tmp_path / "dataset.yaml").unlink()
    put(tmp_path / "classes.txt", "car\r\nno\r\n\r\n")
    assert [(a.kind, a.label, a.points) for a in load(tmp_path, "yolo").annotations()] == [
        (Kind.BOX, "car", (40, 30, 20, 20)),
        (Kind.POLYGON, "no", (0, 0, 100, 0, 100, 80)),
    ]


def test_pose_lines_are_a_box_its_keypoints_and_a_group(tmp_path: Path) -> None:
    line = "0 0.5 0.5 0.2 0.25 0.1 0.1 2 0.2 0.2 1 0 0 0\n"
    found = load(yolo(tmp_path, line, "names: [car]\nkpt_shape: [3, 3]\n"), "yolo")
    assert list(found.annotations()) == [
        Annotation(Kind.BOX, "car", (40, 30, 20, 20), "1"),
        Annotation(Kind.KEYPOINT, "car", (10, 8), "2"),
        Annotation(Kind.KEYPOINT, "car", (20, 16), "3", (("visibility", 1),)),
        Annotation(Kind.GROUP, "car", (), "4", (), ["1", "2", "3"]),
    ]


def test_a_line_that_is_no_pose_is_a_polygon_also_beside_a_shape_of_keypoints(tmp_path: Path) -> None:
    found = load(yolo(tmp_path, "0 0 0 1 0 1 1\n", "names: [car]\nkpt_shape: [3, 3]\n"), "yolo")
    assert [a.kind for a in found.annotations()] == [Kind.POLYGON]
    found = load(yolo(tmp_path, "0 0 0 1 0 1 1 1 1\n", "names: [car]\nkpt_shape: [2, 2]\n"), "yolo")
    assert [a.kind for a in found.annotations()] == [Kind.BOX, Kind.KEYPOINT, Kind.KEYPOINT, Kind.GROUP]


def test_keypoints_are_written_only_where_there_is_nothing_else(tmp_path: Path) -> None:
    eye = Annotation(Kind.KEYPOINT, "eye", (50.0, 20.0))
    assert save(a_dataset(tmp_path, eye), tmp_path / "pose", "yolo").lossless
    assert (tmp_path / "pose/dataset.yaml").read_text().endswith("kpt_shape: [1, 3]\n")
    assert list(load(tmp_path / "pose", "yolo").annotations()) == [eye]
    mixed = a_dataset(tmp_path, eye, Annotation(Kind.BOX, "car", (0.0, 0.0, 10.0, 10.0)))
    assert losses(save(mixed, tmp_path / "boxes", "yolo")) == [("annotation", "YOLO has no keypoint", 1)]
    assert "kpt_shape" not in (tmp_path / "boxes/dataset.yaml").read_text()


def test_what_sticks_out_is_cut_and_what_lies_outside_is_lost(tmp_path: Path) -> None:
    inside, over, beyond = (0.0, 0.0, 10.0, 8.0), (90.0, 70.0, 40.0, 40.0), (200.0, 0.0, 10.0, 8.0)
    dataset = a_dataset(tmp_path, *(Annotation(Kind.BOX, "car", points) for points in (inside, over, beyond)))
    report = save(dataset, tmp_path / "out", "yolo")
    assert report.annotations == 2
    assert losses(report) == [
        ("annotation", "lies outside of the image", 1),
        ("clipping", "sticks out of the image, is cut at its edges", 1),
    ]
    found = [a.points for a in load(tmp_path / "out", "yolo").annotations()]
    assert found == [pytest.approx(inside), pytest.approx((90.0, 70.0, 10.0, 10.0))]


def test_in_images_too_large_for_six_decimals_rounding_is_a_loss(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path, Annotation(Kind.BOX, "car", (1.0, 1.0, 1.0, 1.0)))
    dataset.images[0].known_size = (600_000, 80)
    assert [kind for kind, _, _ in losses(save(dataset, tmp_path / "out", "yolo"))] == ["rounding"]


# COCO


def test_coco_by_the_letter(tmp_path: Path) -> None:
    dataset = a_dataset(
        tmp_path,
        Annotation(Kind.BOX, "car", (1.0, 2.0, 3.0, 4.5)),
        Annotation(Kind.POLYGON, "bus", (0.0, 0.0, 10.0, 0.0, 10.0, 10.0)),
        Annotation(Kind.KEYPOINT, "eye", (3.0, 4.0)),
        size=(20, 20),
    )
    assert save(dataset, tmp_path / "out", "coco").lossless
    value = json.loads((tmp_path / "out/annotations.json").read_text())
    assert value["images"] == [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}]
    names = enumerate(["bus", "car", "eye"], 1)
    assert value["categories"] == [{"id": id, "name": name, "supercategory": ""} for id, name in names]
    one, two, three = value["annotations"]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in (one, two, three)] == [(1, 1, 2), (2, 1, 1), (3, 1, 3)]
    assert (one["bbox"], one["area"]) == ([1, 2, 3, 4.5], 13.5)
    assert (two["segmentation"], two["bbox"], two["area"]) == ([[0, 0, 10, 0, 10, 10]], [0, 0, 10, 10], 50)
    assert (three["keypoints"], three["num_keypoints"]) == ([3, 4, 2], 1)


def coco(root: Path, *entries: dict[str, Any], **more: Any) -> Path:
    put(root / "images/a.png", picture(100, 80))
    images = [{"id": 7, "file_name": "a.png", "width": 100, "height": 80}]
    rest = {"id": 1, "image_id": 7, "category_id": 9}
    value = {"images": images, "categories": [{"id": 9, "name": "car"}], **more}
    put(root / "annotations.json", {**value, "annotations": [{**rest, **entry} for entry in entries]})
    return root


def test_masks_of_runs_are_a_loss_and_their_boxes_are_kept(tmp_path: Path) -> None:
    mask = {"counts": [10, 20], "size": [80, 100]}
    found = load(coco(tmp_path, {"segmentation": mask, "bbox": [1, 2, 3, 4], "iscrowd": 1}), "coco")
    assert list(found.annotations()) == [Annotation(Kind.BOX, "car", (1, 2, 3, 4), "1", (("iscrowd", 1),))]
    assert ("mask", "run-length masks are not read, their boxes are", 1) in losses(found)


def test_rings_and_poses_of_coco_are_groups(tmp_path: Path) -> None:
    rings = [[0, 0, 9, 0, 9, 9], [20, 20, 29, 20, 29, 29]]
    pose = {"id": 2, "bbox": [0, 0, 50, 50], "keypoints": [1, 2, 2, 0, 0, 0, 3, 4, 1]}
    found = load(coco(tmp_path, {"segmentation": rings, "bbox": [0, 0, 29, 29]}, pose), "coco")
    assert [(a.kind, a.id, a.members) for a in found.annotations()] == [
        (Kind.POLYGON, "1-1", None),
        (Kind.POLYGON, "1-2", None),
        (Kind.GROUP, "1", ["1-1", "1-2"]),
        (Kind.BOX, "2-1", None),
        (Kind.KEYPOINT, "2-2", None),
        (Kind.KEYPOINT, "2-3", None),
        (Kind.GROUP, "2", ["2-1", "2-2", "2-3"]),
    ]


def test_what_coco_has_and_the_model_has_not_is_counted(tmp_path: Path) -> None:
    categories = [{"id": 9, "name": "car", "supercategory": "vehicle", "skeleton": [[1, 2]]}]
    found = load(coco(tmp_path, {"bbox": [1, 2, 3, 4], "score": 0.5}, categories=categories, info={"year": 1}), "coco")
    assert losses(found) == [
        ("field", "a file has more keys than are read", 1),
        ("field", "an annotation has more keys than are read", 1),
        ("field", "skeletons of keypoints are not kept", 1),
        ("field", "supercategories are not kept", 1),
        ("id", "the ids of images are given anew", 1),
    ]


def test_ids_that_coco_cannot_hold_are_a_loss(tmp_path: Path) -> None:
    ids: list[str | int | None] = ["7", 8, "x", "7", None]
    marks = [Annotation(Kind.BOX, "car", (0.0, 0.0, 1.0, 1.0), id) for id in ids]
    report = save(a_dataset(tmp_path, *marks), tmp_path / "out", "coco")
    value = json.loads((tmp_path / "out/annotations.json").read_text())
    assert [entry["id"] for entry in value["annotations"]] == [7, 8, 1, 2, 3]
    assert losses(report) == [("id", "an id of COCO is a whole number of its own", 2)]


# Pascal VOC


def test_pascal_by_the_letter(tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path, Annotation(Kind.BOX, "a < b", (1.4, 2.0, 3.2, 4.0), None, (("difficult", 1),)))
    report = save(dataset, tmp_path / "out", "pascal")
    assert losses(report) == [("rounding", "Pascal VOC has whole pixels", 1)]
    text = (tmp_path / "out/Annotations/a.xml").read_text()
    assert "<filename>a.png</filename>" in text
    assert "<size><width>100</width><height>80</height><depth>3</depth></size>" in text
    assert "<name>a &lt; b</name>" in text
    assert "<difficult>1</difficult>" in text
    assert "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>" in text
    assert (tmp_path / "out/JPEGImages/a.png").is_file()
    assert list(load(tmp_path / "out", "voc").annotations()) == [
        Annotation(Kind.BOX, "a < b", (1, 2, 4, 4), None, (("difficult", 1),))
    ]


def pascal(root: Path, inner: str, images: str = "JPEGImages", encoding: str = "utf-8") -> Path:
    put(root / images / "a.png", picture(100, 80))
    put(root / "Annotations" / "a.xml", f"<annotation>{inner}</annotation>".encode(encoding))
    return root


BOX = "<bndbox><xmin>1.5</xmin><ymin>2</ymin><xmax>4</xmax><ymax>6e0</ymax></bndbox>"


def test_pascal_of_other_tools_is_read(tmp_path: Path) -> None:
    """Images in `Images/`, floats, a file that is named otherwise than its image, parts and polygons."""
    inner = f"<filename>b.png</filename><object><name>\n  car\n</name>{BOX}<part/><occluded>1</occluded></object>"
    pascal(tmp_path, inner + "<owner>x</owner>", "Images")
    (tmp_path / "Images/a.png").rename(tmp_path / "Images/b.png")
    found = load(tmp_path, "pascal")
    assert [(i.name, i.size, i.annotations) for i in found.images] == [
        ("b.png", (100, 80), [Annotation(Kind.BOX, "car", (1.5, 2, 2.5, 4), None, (("occluded", 1),))])
    ]
    assert losses(found) == [
        ("attribute", "<part> of an object is not kept", 1),
        ("field", "<owner> is not kept", 1),
    ]


def test_two_folders_of_images_are_not_passed_over(tmp_path: Path) -> None:
    pascal(tmp_path, "")
    put(tmp_path / "Images/b.png", picture(9, 9))
    found = load(tmp_path, "pascal")
    assert [image.name for image in found.images] == ["a.png"]
    assert [(loss.kind, loss.examples) for loss in found.losses] == [("image", ("Images/b.png",))]


def test_an_image_that_exif_turns_has_the_size_it_is_shown_in(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    PIL.Image.new("RGB", (30, 10)).save(path, exif=exif)
    assert Image("a.jpg", path).size == (10, 30)


# ImageFolder


def test_the_first_class_wins_in_an_imagefolder(tmp_path: Path) -> None:
    marks = [Annotation(Kind.BOX, "car", (0.0, 0.0, 1.0, 1.0)), Annotation(Kind.CLASSIFICATION, "street")]
    report = save(a_dataset(tmp_path, *marks), tmp_path / "both", "imagefolder")
    assert sorted(tree(tmp_path / "both")) == ["street/a.png"]
    assert losses(report) == [
        ("annotation", "ImageFolder has one class an image", 1),
        ("class", "ImageFolder has only the classes of images", 1),
    ]
    report = save(a_dataset(tmp_path, *marks[:1]), tmp_path / "shape", "imagefolder")
    assert sorted(tree(tmp_path / "shape")) == ["car/a.png"]
    assert losses(report) == [("annotation", "of a shape only the class is kept", 1)]


def test_a_folder_without_images_is_a_class(tmp_path: Path) -> None:
    put(tmp_path / "in/cat/a.png", picture(9, 9))
    (tmp_path / "in/dog").mkdir()
    assert load(tmp_path / "in", "imagefolder").classes == ("cat", "dog")
    report = convert(tmp_path / "in", tmp_path / "dm", source_format="imagefolder", target_format="dm")
    assert report.lossless
    assert load(tmp_path / "dm", "dm").classes == ("cat", "dog")


@pytest.mark.parametrize("label", ["../out", "/etc", "..", ".hidden", "a/b", "x" * 300, "train"])
def test_a_class_that_can_be_no_folder_is_a_loss_and_leads_nowhere(label: str, tmp_path: Path) -> None:
    dataset = a_dataset(tmp_path, Annotation(Kind.CLASSIFICATION, label))
    report = save(dataset, tmp_path / "deep/out", "imagefolder")
    assert ("annotation", "the class cannot be the name of a folder", 1) in losses(report)
    assert sorted(tree(tmp_path / "deep")) == ["out/a.png"]
