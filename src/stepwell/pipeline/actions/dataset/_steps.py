"""The two steps on data sets: fetch one, convert one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from stepwell.errors import BadArguments
from stepwell.pipeline.actions._folders import Filling
from stepwell.pipeline.actions._transfer import Patience, patiently, side_by_side
from stepwell.pipeline.actions.action import run_token
from stepwell.pipeline.actions.dataset._context import DatasetContext, DatasetOperation, dataset_name, output_folder
from stepwell.pipeline.steps.base import BaseStep, StepResult
from stepwell.pipeline.storage import Storage

D = TypeVar("D", bound=DatasetContext)
IMAGES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})
SPLITS = ("train", "valid", "test")
WORKERS = 8
PATIENCE = Patience(attempts=3, delay=0.2)


class _FolderStep(BaseStep[D]):
    """A step that makes one folder."""

    name: str = ""
    progress_weight: float = 0.0

    def begin(self, context: D, target: Path) -> Filling:
        """Look at the target, once per run, and remember what has to be taken back."""
        overwrite = bool(context.param("overwrite"))
        fact = context.once("folder", lambda: asdict(Filling.begun(target, run_token(context), overwrite=overwrite)))
        context.folders = {**context.folders, self.name: fact}
        return Filling(**fact)

    def rollback(self, context: D, result: StepResult) -> None:
        """Delete what was made, and put back what was there."""
        fact = context.folders.get(self.name) or context.once("folder", lambda: None)
        if fact is not None:
            Filling(**fact).take_back()


class ExportDatasetStep(_FolderStep[D]):
    """Copies a data set from where it is kept to ``<output_dir>/dm``.

    Args:
        progress_weight: the step's part in the progress.
    """

    def __init__(self, progress_weight: float = 0.3) -> None:
        self.name = "dataset"
        self.progress_weight = progress_weight

    def execute(self, context: D) -> StepResult:
        """Fails when there is no such data set, or the target is not empty."""
        given = context.param("dataset")
        if given is None or given == "":
            raise ValueError("dataset is required in params")
        place = given.get("path", given.get("id")) if isinstance(given, Mapping) else given
        source = context.workspace.folder("datasets", place)
        files = _wanted(source.list(), context.param("splits"), source.url)
        target = output_folder(context) / "dm"
        self.begin(context, target).fill(lambda part: _download(context, source, files, part))
        context.dataset = {"id": dataset_name(given), "source": source.url}
        context.source_path = source.url
        context.data_path = str(target)
        context.format = str(context.param("source_format") or "dm_v2")
        context.count = sum(Path(file).suffix.lower() in IMAGES for file in files)
        context.is_categorized = any(file.startswith("train/") for file in files)
        return StepResult(data={"path": str(target), "files": len(files), "count": context.count})


class ConvertDatasetStep(_FolderStep[D]):
    """Writes the data set of the context, or that of ``params['path']``, in another format to
    ``<output_dir>/<format>``.

    Args:
        target_format: as `stepwell.pipeline.datasets.DatasetFormat` has it.
        source_format: the same.
        progress_weight: the step's part in the progress.
    """

    def __init__(self, target_format: str = "yolo", source_format: str = "dm_v2", progress_weight: float = 0.2) -> None:
        self.name = "convert"
        self.progress_weight = progress_weight
        self.target_format = target_format
        self.source_format = source_format

    def execute(self, context: D) -> StepResult:
        """Fails when there is nothing to convert, or the target is not empty."""
        from stepwell.pipeline.datasets import load, save

        source = Path(self._source(context))
        target = output_folder(context) / str(self.target_format)
        splits = context.param("splits")
        filling = self.begin(context, target)
        data = load(source, self.source_format)
        if splits is not None:
            missing = [split for split in splits if split not in data.splits]
            if missing:
                message = f"split {missing[0]!r} not found in {source}"
                raise BadArguments(message)
            kept = tuple(split for split in data.splits if split in splits)
            data = replace(data, splits=kept, images=[image for image in data.images if image.split in splits])

        def write(part: Path) -> Any:
            report = save(data, part, self.target_format)
            config = report.config_path
            return replace(report, config_path=None if config is None else target / config.relative_to(part))

        report = filling.fill(write)
        context.source_path = str(source)
        context.data_path = str(target)
        context.format = str(self.target_format)
        context.config_path = None if report.config_path is None else str(report.config_path)
        context.count = report.images
        context.is_categorized = bool(data.splits)
        context.losses = [{**asdict(loss), "examples": list(loss.examples)} for loss in report.losses]
        if context.losses:
            context.log("conversion_losses", {"losses": context.losses})
        return StepResult(data={"path": str(target), "count": report.images, "annotations": report.annotations})

    def _source(self, context: D) -> str:
        if context.data_path:
            return context.data_path
        path = context.param("path")
        if path:
            return str(Path(path).expanduser().absolute())
        if context.param("operation") == DatasetOperation.CONVERT and context.param("dataset") is None:
            raise ValueError("path or dataset is required for convert operation")
        raise ValueError("No dataset in context. ExportDatasetStep must run first.")


def _wanted(files: Sequence[str], splits: Sequence[str] | None, where: str) -> list[str]:
    if splits is None:
        return list(files)
    present = {file.partition("/")[0] for file in files if "/" in file}
    for split in splits:
        if split not in present:
            message = f"split {split!r} not found in {where}"
            raise BadArguments(message)
    return [file for file in files if file.partition("/")[0] in splits or file.partition("/")[0] not in SPLITS]


def _download(context: DatasetContext, source: Storage, files: Sequence[str], part: Path) -> None:
    """Copy the files; the folder is synchronised as a whole when it is complete."""

    def one(file: str) -> None:
        patiently(lambda: source.download(file, part / file), PATIENCE)

    done, failed = side_by_side(
        files,
        one,
        workers=WORKERS,
        ended=lambda count: context.set_progress(count, len(files)),
        stop=lambda: context.cancelled,
    )
    for file, error in failed:
        message = f"{file}: {str(error) or type(error).__name__}"
        raise OSError(message) from error
    if len(done) < len(files):
        raise InterruptedError("cancelled")
