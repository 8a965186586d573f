"""What holds for all formats: their names, splits, reports, targets, and the same bytes each time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepwell.errors import BadArguments, MissingExtra
from stepwell.pipeline.datasets import (
    Annotation,
    ConversionReport,
    Dataset,
    DatasetFormat,
    Image,
    Kind,
    _place,
    convert,
    load,
    save,
)
from tests.pipeline.datasets.sample import box, dm, picture, put, tree

FORMATS = [format.value for format in DatasetFormat]


def test_there_are_six_formats_and_two_aliases() -> None:
    assert FORMATS == ["dm_v1", "dm_v2", "yolo", "coco", "pascal", "imagefolder"]
    assert DatasetFormat("dm") is DatasetFormat.DM_V2
    assert DatasetFormat("voc") is DatasetFormat.PASCAL


@pytest.mark.parametrize("name", ["yolov8", "", "YOLO"])
def test_an_unknown_format_is_told_with_those_there_are(name: str, tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png")
    for call in (
        lambda: load(tmp_path / "in", name),
        lambda: save(Dataset(), tmp_path / "out", name),
        lambda: convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format=name),
        lambda: convert(tmp_path / "in", tmp_path / "out", source_format=name, target_format="dm"),
    ):
        with pytest.raises(BadArguments, match="dm_v1, dm_v2, yolo, coco, pascal, imagefolder"):
            call()
    assert not (tmp_path / "out").exists()


def test_a_report_tells_what_was_written_and_what_was_not(tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png", bounding_box=[box("car", 1, 2, 3, 4, colour="red"), box("bus", 5, 6, 7, 8)])
    dm(tmp_path / "in", "b.png", polyline=[{"id": "l", "classification": "lane", "data": [[0, 0], [9, 9]]}])
    report = convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="yolo")
    assert (report.images, report.annotations, report.lossless) == (2, 2, False)
    assert report.config_path == tmp_path / "out" / "dataset.yaml"
    assert [(loss.kind, loss.count, loss.reason, loss.examples) for loss in report.losses] == [
        ("annotation", 1, "YOLO has no polyline", ("b.png",)),
        ("attribute", 1, "YOLO has no attributes", ("a.png: colour",)),
        ("id", 2, "YOLO has no ids of annotations", ("a.png",)),
    ]


def test_a_report_names_five_places_and_counts_all(tmp_path: Path) -> None:
    for number in range(9):
        dm(tmp_path / "in", f"{number}.png", keypoint=[{"id": "k", "classification": "eye", "data": [1, 1]}] * 2)
    report = convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="pascal")
    loss = next(loss for loss in report.losses if loss.kind == "annotation")
    assert loss.count == 18
    assert loss.examples == ("0.png", "1.png", "2.png", "3.png", "4.png")


@pytest.mark.parametrize("format", FORMATS)
def test_only_yolo_has_a_file_to_point_a_trainer_at(format: str, tmp_path: Path) -> None:
    report = convert(dm(tmp_path / "in", "a.png"), tmp_path / "out", source_format="dm", target_format=format)
    assert report.config_path == (tmp_path / "out" / "dataset.yaml" if format == "yolo" else None)
    assert report == ConversionReport(1, 0, (), report.config_path)
    assert report.lossless


def split_dm(root: Path, *splits: str) -> Path:
    for split in splits:
        dm(root / split, f"{split}.png", bounding_box=[box(f"of {split}", 0, 0, 10, 10)])
    return root


@pytest.mark.parametrize("format", FORMATS)
def test_splits_are_folders_in_each_format_and_classes_are_of_all(format: str, tmp_path: Path) -> None:
    split_dm(tmp_path / "in", "train", "valid", "test")
    convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format=format)
    assert {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()} == {"train", "valid", "test"}
    found = load(tmp_path / "out", format)
    assert found.splits == ("train", "valid", "test")
    assert [(image.split, image.name) for image in found.images] == [
        (s, f"{s}.png") for s in ("train", "valid", "test")
    ]
    assert found.classes == ("of test", "of train", "of valid")


@pytest.mark.parametrize("format", FORMATS)
def test_without_train_there_are_no_splits(format: str, tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png", bounding_box=[box("valid", 0, 0, 10, 10)])
    convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format=format)
    found = load(tmp_path / "out", format)
    assert (found.splits, [image.split for image in found.images]) == ((), [None])


def test_yolo_with_splits_needs_valid(tmp_path: Path) -> None:
    split_dm(tmp_path / "in", "train", "test")
    with pytest.raises(BadArguments) as caught:
        convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="yolo")
    assert str(caught.value) == f"split 'valid' not found in {tmp_path / 'in'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize("format", FORMATS)
def test_images_without_labels_are_kept(format: str, tmp_path: Path) -> None:
    put(tmp_path / "in" / "original_files" / "bare.png", picture(9, 9))
    (tmp_path / "in" / "json").mkdir()
    assert convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format=format).lossless
    (image,) = load(tmp_path / "out", format).images
    assert (image.name, image.annotations) == ("bare.png", [])
    labels = {"yolo": "labels/bare.txt", "dm_v2": "json/bare.json", "pascal": "Annotations/bare.xml"}
    if format in labels:
        assert (tmp_path / "out" / labels[format]).is_file()


@pytest.mark.parametrize(
    "format, left",
    [("dm_v1", "json/b.json"), ("dm_v2", "json/b.json"), ("yolo", "labels/b.txt"), ("pascal", "Annotations/b.xml")],
)
def test_labels_without_an_image_are_a_loss(format: str, left: str, tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png", bounding_box=[box("car", 0, 0, 10, 10)])
    dm(tmp_path / "in", "b.png", bounding_box=[box("car", 0, 0, 10, 10)])
    convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format=format)
    next((tmp_path / "out").rglob("b.png")).unlink()
    found = load(tmp_path / "out", format)
    assert [image.name for image in found.images] == ["a.png"]
    assert [(loss.kind, loss.count, loss.examples) for loss in found.losses] == [("label", 1, (left,))]


def test_labels_without_an_image_are_a_loss_in_coco(tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png", bounding_box=[box("car", 0, 0, 10, 10)])
    convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="coco")
    (tmp_path / "out" / "images" / "a.png").unlink()
    found = load(tmp_path / "out", "coco")
    assert [(loss.kind, loss.reason, loss.count) for loss in found.losses] == [
        ("annotation", "its image is missing", 1),
        ("label", "labels without an image", 1),
    ]


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png", "a.bmp", "a.webp", "a.JPG"])
def test_images_are_told_by_their_extension(name: str, tmp_path: Path) -> None:
    put(tmp_path / "original_files" / name, picture(4, 4))
    put(tmp_path / "original_files" / "a.gif", picture(4, 4, "GIF"))
    (tmp_path / "json").mkdir()
    found = load(tmp_path, "dm")
    assert [image.name for image in found.images] == [name]
    assert [(loss.kind, loss.examples) for loss in found.losses] == [("image", ("original_files/a.gif",))]


@pytest.mark.parametrize("format", FORMATS)
def test_no_folder_of_images_is_passed_over_in_silence(format: str, tmp_path: Path) -> None:
    split_dm(tmp_path / "dm", "train", "valid")
    convert(tmp_path / "dm", tmp_path / "in", source_format="dm", target_format=format)
    put(tmp_path / "in" / "val" / "images" / "a.png", picture(4, 4))
    put(tmp_path / "in" / "val" / "labels" / "a.txt", "")
    put(tmp_path / "in" / "b.png", picture(4, 4))
    put(tmp_path / "in" / ".git" / "c.png", picture(4, 4))
    put(tmp_path / "in" / "README.md", "about it")
    lost = {loss.kind: loss.examples for loss in load(tmp_path / "in", format).losses}
    assert lost["image"] == ("b.png", "val/images/a.png")
    assert lost["label"][-1] == "val/labels/a.txt"


def test_the_same_input_gives_the_same_bytes_whatever_the_process(tmp_path: Path) -> None:
    for number, label in enumerate(["car", "bus", "no", "lane", "eye", "tree"]):
        dm(tmp_path / "in", f"{number}.png", bounding_box=[box(label, 0, 0, 9.5, 9, a=1, b=2), box("x", 1, 1, 1, 1)])
    script = (
        "import sys\nfrom stepwell.pipeline.datasets import DatasetFormat, convert\n"
        "for format in DatasetFormat:\n"
        "    print(convert('in', f'{sys.argv[1]}/{format}', source_format='dm', target_format=format).losses)\n"
    )
    said = []
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", script, seed]
        said.append(subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True).stdout)
    assert said[0] == said[1]
    assert tree(tmp_path / "1") == tree(tmp_path / "2")


def test_sizes_need_pillow_and_only_they_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dm(tmp_path / "in", "a.png", bounding_box=[box("car", 0, 0, 10, 10)])
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra) as caught:
        convert(tmp_path / "in", tmp_path / "yolo", source_format="dm", target_format="yolo")
    assert caught.value.extra == "images"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    for format in ("dm_v1", "imagefolder"):
        convert(tmp_path / "in", tmp_path / format, source_format="dm", target_format=format)


def test_a_target_that_holds_something_is_replaced_only_when_asked(tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png")
    put(tmp_path / "out" / "mine.txt", "keep me")
    with pytest.raises(BadArguments, match=r"is not empty; overwrite=True replaces it"):
        convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="yolo")
    assert tree(tmp_path / "out") == {"mine.txt": b"keep me"}
    convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="yolo", overwrite=True)
    assert "mine.txt" not in tree(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_failure_leaves_a_target_that_was_to_be_replaced_as_it_was(tmp_path: Path) -> None:
    split_dm(tmp_path / "in", "train")
    put(tmp_path / "out" / "mine.txt", "keep me")
    with pytest.raises(BadArguments, match="split 'valid' not found"):
        convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="yolo", overwrite=True)
    assert tree(tmp_path / "out") == {"mine.txt": b"keep me"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("target", ["in", "in/../in", ".", "link"])
def test_the_source_is_never_its_own_target(target: str, tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png")
    (tmp_path / "link").symlink_to("in")
    before = tree(tmp_path)
    with pytest.raises(BadArguments, match="is the source or holds it"):
        convert(tmp_path / "in", tmp_path / target, source_format="dm", target_format="dm_v1", overwrite=True)
    assert tree(tmp_path) == before


def test_a_file_is_no_target(tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png")
    put(tmp_path / "out", "a file")
    with pytest.raises(BadArguments, match="is not a folder"):
        convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="coco", overwrite=True)
    assert (tmp_path / "out").read_text() == "a file"


def test_what_a_kill_left_between_two_renames_is_put_right(tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png")
    put(tmp_path / ".out.old" / "mine.txt", "keep me")  # out was put aside, its follower not yet in place
    put(tmp_path / ".out.part" / "half.txt", "half")
    with pytest.raises(BadArguments, match="is not empty"), _place.filled(tmp_path / "out", overwrite=False):
        pytest.fail("filled")
    assert tree(tmp_path / "out") == {"mine.txt": b"keep me"}
    convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="dm_v1", overwrite=True)
    assert sorted(tree(tmp_path / "out")) == ["json/a.json", "original_files/a.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_all_is_on_the_disk_before_the_target_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dm(tmp_path / "in", "a.png")
    seen: list[tuple[bool, list[str]]] = []
    part = tmp_path / ".out.part"
    monkeypatch.setattr(os, "sync", lambda: seen.append(((tmp_path / "out").exists(), sorted(tree(part)))))
    convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="dm_v1")
    assert seen == [(False, ["json/a.json", "original_files/a.png"])]


def test_two_do_not_write_one_target(tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png")
    writing, refused = _place.filled(tmp_path / "out", overwrite=False), "another process is writing"
    with writing, pytest.raises(BadArguments, match=refused):
        convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="dm_v1")


def test_a_link_in_the_place_that_is_filled_is_not_followed(tmp_path: Path) -> None:
    dm(tmp_path / "in", "a.png")
    put(tmp_path / "elsewhere" / "mine.txt", "keep me")
    (tmp_path / ".out.part").symlink_to("elsewhere")
    with pytest.raises(BadArguments, match="is in the way"):
        convert(tmp_path / "in", tmp_path / "out", source_format="dm", target_format="dm_v1")
    assert tree(tmp_path / "elsewhere") == {"mine.txt": b"keep me"}


@pytest.mark.parametrize("format", FORMATS)
def test_images_of_one_name_get_numbers_which_is_a_loss(format: str, tmp_path: Path) -> None:
    images = []
    for split, name in (("train", "a.png"), ("train", "a.jpg"), ("valid", "a.png")):
        path = put(tmp_path / split / name, picture(9, 9, "PNG" if name.endswith("png") else "JPEG"))
        images.append(Image(name, path, split, annotations=[Annotation(Kind.CLASSIFICATION, "cat")]))
    report = save(Dataset(images, splits=("train", "valid")), tmp_path / "out", format)
    found = load(tmp_path / "out", format)
    names = [image.name for image in found.images]
    named = [loss for loss in report.losses if loss.kind == "name"]
    if format in ("coco", "imagefolder"):  # which have no file of labels for each image
        assert (names, named) == (["a.jpg", "a.png", "a.png"], [])
    else:
        assert names == ["a.jpg", "a__2.png", "a.png"]
        assert [(loss.count, loss.examples) for loss in named] == [(1, ("train/a.png",))]
    assert sorted(i.path.read_bytes() for i in found.images) == sorted(i.path.read_bytes() for i in images)
