"""Load, save, convert: the formats by name, and what holds for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path, PurePosixPath

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets import _coco, _dm_v1, _dm_v2, _imagefolder, _pascal, _yolo
from stepwell.pipeline.datasets._checks import UNFIT, Fault, check_annotation, check_label, told
from stepwell.pipeline.datasets._model import SPLITS, Dataset, Image
from stepwell.pipeline.datasets._place import check, filled
from stepwell.pipeline.datasets._report import ConversionReport, Losses
from stepwell.pipeline.datasets._writing import Writing


class DatasetFormat(StrEnum):
    """The formats of datasets; `dm` stands for `dm_v2` and `voc` for `pascal`."""

    DM_V1 = "dm_v1"
    DM_V2 = "dm_v2"
    YOLO = "yolo"
    COCO = "coco"
    PASCAL = "pascal"
    IMAGEFOLDER = "imagefolder"

    @classmethod
    def _missing_(cls, value: object) -> DatasetFormat | None:
        return {"dm": cls.DM_V2, "voc": cls.PASCAL}.get(value) if isinstance(value, str) else None


_LOAD: dict[DatasetFormat, Callable[[Path], Dataset]] = {
    DatasetFormat.DM_V1: _dm_v1.load,
    DatasetFormat.DM_V2: _dm_v2.load,
    DatasetFormat.YOLO: _yolo.load,
    DatasetFormat.COCO: _coco.load,
    DatasetFormat.PASCAL: _pascal.load,
    DatasetFormat.IMAGEFOLDER: _imagefolder.load,
}
_SAVE: dict[DatasetFormat, Callable[[Writing], None]] = {
    DatasetFormat.DM_V1: _dm_v1.save,
    DatasetFormat.DM_V2: _dm_v2.save,
    DatasetFormat.YOLO: _yolo.save,
    DatasetFormat.COCO: _coco.save,
    DatasetFormat.PASCAL: _pascal.save,
    DatasetFormat.IMAGEFOLDER: _imagefolder.save,
}


def load(path: str | os.PathLike[str], format: DatasetFormat | str) -> Dataset:
    """Read the annotations of a dataset; its images stay where they are.

    `path` is the root. Folders `train/`, `valid/` and `test/` in it are splits if there is a `train/`.

    Raises:
        BadArguments: the format is not known, a folder is missing, or a file is malformed: file and line or field are
            named.
        MissingExtra: the format needs the sizes of images and Pillow is not installed (extra `images`).
    """
    return _LOAD[_known(format)](Path(path))


def save(
    dataset: Dataset, target: str | os.PathLike[str], format: DatasetFormat | str, *, overwrite: bool = False
) -> ConversionReport:
    """Write a dataset, its images included, to the folder `target`, which appears at once and whole.

    Classes are sorted, images ordered by split and name; the same dataset gives the same bytes. What the dataset lost
    when it was loaded stands in the report as well.

    Raises:
        BadArguments: the format is not known; the target is a file, or is not empty and `overwrite` is false; the
            dataset has an image outside of its splits, or a class or file name that cannot be written.
        MissingExtra: the format needs the sizes of images and Pillow is not installed (extra `images`).
    """
    write = _SAVE[_known(format)]
    place = Path(target)
    check(place, overwrite=overwrite)
    losses = Losses(dataset.losses)
    ready = _ordered(dataset)
    with filled(place, overwrite=overwrite) as folder:
        writing = Writing(ready, folder, losses)
        write(writing)
    config = place / writing.config if writing.config else None
    return ConversionReport(len(ready.images), writing.annotations, losses.listed(), config)


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    source_format: DatasetFormat | str,
    target_format: DatasetFormat | str,
    overwrite: bool = False,
) -> ConversionReport:
    """Write the dataset in the folder `source` to the folder `target` in another format.

    Raises:
        BadArguments: as `load` and `save`; the target is the source or holds it.
        MissingExtra: as `load` and `save`.
    """
    first, second = _known(source_format), _known(target_format)
    here, there = Path(source), Path(target)
    if here.resolve().is_relative_to(there.resolve()):
        raise BadArguments(f"the target {there} is the source or holds it")
    check(there, overwrite=overwrite)
    return save(load(here, first), there, second, overwrite=overwrite)


def _known(format: DatasetFormat | str) -> DatasetFormat:
    try:
        return DatasetFormat(format)
    except ValueError:
        names = ", ".join(DatasetFormat)
        raise BadArguments(f"unknown format {format!r}; there are {names} (also dm = dm_v2, voc = pascal)") from None


def _ordered(dataset: Dataset) -> Dataset:
    """The dataset in the order in which it is written, checked: it may have been made by hand."""
    labels = set(dataset.classes)
    splits = tuple(split for split in SPLITS if split in dataset.splits)
    if unknown := set(dataset.splits) - set(SPLITS):
        raise BadArguments(f"unknown splits {sorted(unknown)}; there are {', '.join(SPLITS)}")
    for image in dataset.images:
        if image.split not in (splits or (None,)):
            raise BadArguments(f"image {image.name!r} is in the split {image.split!r}, which the dataset does not have")
        _check_name(image.name)
        for index, annotation in enumerate(image.annotations):
            try:
                check_annotation(annotation)
            except Fault as fault:
                where = f"image {image.place!r}, annotations[{index}]{fault.field}"
                raise BadArguments(f"{where}: {fault.problem}") from fault
            if annotation.label is not None:
                labels.add(annotation.label)
    try:
        classes = tuple(sorted(check_label(label, "") for label in labels))
    except Fault as fault:
        raise BadArguments(fault.problem) from fault
    return replace(dataset, classes=classes, splits=splits, images=sorted(dataset.images, key=_order))


def _check_name(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or path.as_posix() != name or not path.name or UNFIT.search(name):
        raise BadArguments(f"an image cannot be named {told(name)}")


def _order(image: Image) -> tuple[int, str]:
    return SPLITS.index(image.split) if image.split else 0, image.name
