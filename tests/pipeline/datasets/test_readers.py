"""§11.8: what we write is read by others: pycocotools, a strict reader of the published YOLO format, lxml."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path

import lxml.etree
import PIL.Image
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from stepwell.pipeline.datasets import Dataset, Image, Kind, load, save
from tests.pipeline.datasets.sample import KINDS, datasets


def written(data: st.DataObject, format: str, root: Path) -> Dataset:
    (root / "pictures").mkdir()
    save(data.draw(datasets(root / "pictures", KINDS)), root / "dm", "dm")
    dataset = load(root / "dm", "dm")
    save(dataset, root / "out", format)
    return dataset


def folders(root: Path, dataset: Dataset) -> list[tuple[Path, list[Image]]]:
    if not dataset.splits:
        return [(root, dataset.images)]
    return [(root / split, [i for i in dataset.images if i.split == split]) for split in dataset.splits]


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_pycocotools_reads_coco(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        dataset = written(data, "coco", Path(place))
        for folder, images in folders(Path(place) / "out", dataset):
            with contextlib.redirect_stdout(io.StringIO()):
                coco = COCO(str(folder / "annotations.json"))
            assert coco.getImgIds() == list(range(1, len(images) + 1))
            assert coco.getCatIds() == list(range(1, len(dataset.classes) + 1))
            names = {number: coco.loadCats(number)[0]["name"] for number in coco.getCatIds()}
            assert tuple(names.values()) == dataset.classes
            for number, image in enumerate(images, 1):
                entry = coco.loadImgs(number)[0]
                with PIL.Image.open(folder / "images" / entry["file_name"]) as opened:
                    assert (entry["width"], entry["height"]) == opened.size == image.size
                marks = coco.loadAnns(coco.getAnnIds(imgIds=number))
                assert [names[mark["category_id"]] for mark in marks] == [a.label for a in image.annotations]
                for mark, annotation in zip(marks, image.annotations, strict=True):
                    if annotation.kind is Kind.BOX:
                        assert mark["bbox"] == list(annotation.points)
                        assert mark["area"] == pytest.approx(annotation.points[2] * annotation.points[3])
                    else:
                        assert mark["segmentation"] == [list(annotation.points)]
                        assert coco.annToRLE(mark)["size"] == [image.size[1], image.size[0]]


def test_the_area_of_a_polygon_is_what_pycocotools_counts(tmp_path: Path) -> None:
    from pycocotools import mask

    from stepwell.pipeline.datasets import Annotation
    from tests.pipeline.datasets.sample import picture, put

    path = put(tmp_path / "a.png", picture(100, 100))
    star = (10.0, 10.0, 90.0, 20.0, 50.0, 50.0, 80.0, 90.0, 10.0, 70.0)
    save(Dataset([Image("a.png", path, annotations=[Annotation(Kind.POLYGON, "x", star)])]), tmp_path / "out", "coco")
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "out" / "annotations.json"))
    mark = coco.loadAnns(coco.getAnnIds())[0]
    assert mark["area"] == pytest.approx(float(mask.area(coco.annToRLE(mark))), rel=0.03)
    assert mark["bbox"] == [10, 10, 80, 80]


def strict_yolo(labels: Path, classes: int) -> list[tuple[int, list[float]]]:
    """By the published text: class and values in ASCII, one space between, values in [0, 1], box or polygon."""
    found = []
    text = labels.read_bytes().decode("ascii")
    assert text == "" or text.endswith("\n")
    for line in text.splitlines():
        first, *rest = line.split(" ")
        assert first.isdecimal()
        assert int(first) < classes
        assert len(rest) == 4 or (len(rest) >= 6 and len(rest) % 2 == 0)
        assert all(len(word.split(".")[1]) == 6 for word in rest)
        values = [float(word) for word in rest]
        assert min(values) >= 0
        assert max(values) <= 1
        found.append((int(first), values))
    return found


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_strict_reader_reads_yolo(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        dataset = written(data, "yolo", Path(place))
        root = Path(place) / "out"
        config = yaml.safe_load((root / "dataset.yaml").read_text())
        assert set(config) == {"train", "val", "nc", "names"} | ({"test"} if "test" in dataset.splits else set())
        assert config["nc"] == len(config["names"])
        assert tuple(config["names"]) == dataset.classes
        assert tuple((root / "classes.txt").read_text().splitlines()) == dataset.classes
        for name in ("train", "val"):
            assert (root / config[name]).is_dir()
        for folder, images in folders(root, dataset):
            for image in images:
                labels = folder / "labels" / f"{image.name[:-4]}.txt"
                assert (folder / "images" / image.name).is_file()
                width, height = image.size
                lines = strict_yolo(labels, config["nc"])
                assert [dataset.classes[number] for number, _ in lines] == [a.label for a in image.annotations]
                for (_, values), annotation in zip(lines, image.annotations, strict=True):
                    if annotation.kind is Kind.BOX:
                        x, y, w, h = annotation.points
                        expected = [(x + w / 2) / width, (y + h / 2) / height, w / width, h / height]
                    else:
                        expected = [v / (height if i % 2 else width) for i, v in enumerate(annotation.points)]
                    assert values == pytest.approx(expected, abs=1e-6)


# After the annotations of the VOC2012 development kit.
LAYOUT = lxml.etree.RelaxNG(
    lxml.etree.XML("""
<element name="annotation" xmlns="http://relaxng.org/ns/structure/1.0"
    datatypeLibrary="http://www.w3.org/2001/XMLSchema-datatypes">
  <element name="folder"><text/></element>
  <element name="filename"><data type="string"><param name="minLength">1</param></data></element>
  <element name="size">
    <element name="width"><data type="positiveInteger"/></element>
    <element name="height"><data type="positiveInteger"/></element>
    <element name="depth"><data type="positiveInteger"/></element>
  </element>
  <element name="segmented"><data type="boolean"/></element>
  <zeroOrMore><element name="object">
    <element name="name"><data type="string"><param name="minLength">1</param></data></element>
    <element name="pose"><text/></element>
    <element name="truncated"><data type="boolean"/></element>
    <element name="difficult"><data type="boolean"/></element>
    <optional><element name="occluded"><data type="boolean"/></element></optional>
    <element name="bndbox">
      <element name="xmin"><data type="nonNegativeInteger"/></element>
      <element name="ymin"><data type="nonNegativeInteger"/></element>
      <element name="xmax"><data type="nonNegativeInteger"/></element>
      <element name="ymax"><data type="nonNegativeInteger"/></element>
    </element>
  </element></zeroOrMore>
</element>""")
)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_lxml_finds_the_layout_of_voc(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place:
        dataset = written(data, "pascal", Path(place))
        for folder, images in folders(Path(place) / "out", dataset):
            for image in images:
                file = lxml.etree.parse(str(folder / "Annotations" / f"{image.name[:-4]}.xml"))
                LAYOUT.assertValid(file)
                assert file.findtext("filename") == image.name
                assert (folder / "JPEGImages" / image.name).is_file()
                assert (int(file.findtext("size/width") or 0), int(file.findtext("size/height") or 0)) == image.size
                boxes = [a for a in image.annotations if a.kind is Kind.BOX]
                assert [o.findtext("name") for o in file.findall("object")] == [a.label for a in boxes]
                for element, annotation in zip(file.findall("object/bndbox"), boxes, strict=True):
                    x, y, w, h = annotation.points
                    assert [int(side.text or "") for side in element] == [round(v) for v in (x, y, x + w, y + h)]
