"""The seven steps of an upload."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stepwell.pipeline.actions.action import remove_scratch, scratch_folder
from stepwell.pipeline.actions.upload._context import (
    UploadContext,
    check_paths,
    load_collection,
    opened_storage,
    organize,
    specifications,
    validate_sources,
)
from stepwell.pipeline.actions.upload._sending import send_units, take_back_upload
from stepwell.pipeline.actions.upload._sheet import BadSheet, check_sheet_reader, merge_rows, read_sheet
from stepwell.pipeline.actions.upload._sources import Refused, main_specification
from stepwell.pipeline.actions.upload._units import make_units, units_target, units_text, without_duplicates
from stepwell.pipeline.steps.base import BaseStep, StepResult


class InitializeStep(BaseStep[UploadContext]):
    """Checks the parameters, opens the storage, looks up project and collection."""

    name = "initialize"
    progress_weight = 0.05

    def execute(self, context: UploadContext) -> StepResult:
        """Fails without a storage, or without a folder with files."""
        storage = opened_storage(context)
        check_paths(context)
        sheet = context.param("excel_metadata_path")
        if sheet:
            check_sheet_reader(sheet)
        load_collection(context)
        return StepResult(data={"storage": storage.url})

    def rollback(self, context: UploadContext, result: StepResult) -> None:
        """Forget what was opened and looked up."""
        context.storage = None
        context.project = {}
        context.data_collection = {}

    def restore(self, context: UploadContext, result: StepResult) -> None:
        """Open the storage again."""
        opened_storage(context)


class ValidateFilesStep(BaseStep[UploadContext]):
    """Finds the source files; each must be readable and not too large."""

    name = "validate_files"
    progress_weight = 0.10

    def execute(self, context: UploadContext) -> StepResult:
        """Fails with all problems in one text."""
        return StepResult(data={"file_count": validate_sources(context)})


class AnalyzeCollectionStep(BaseStep[UploadContext]):
    """Finds out which files a unit consists of."""

    name = "analyze_collection"
    progress_weight = 0.05

    def execute(self, context: UploadContext) -> StepResult:
        """Fills ``file_specifications``."""
        return StepResult(data={"file_specifications": [spec["name"] for spec in specifications(context)]})

    def rollback(self, context: UploadContext, result: StepResult) -> None:
        """Forget them."""
        context.file_specifications = []


class OrganizeFilesStep(BaseStep[UploadContext]):
    """Sorts the files into units."""

    name = "organize_files"
    progress_weight = 0.15

    def execute(self, context: UploadContext) -> StepResult:
        """Fails when a file fits nowhere, or no unit is left."""
        _organize(context)
        context.temp_folder = str(scratch_folder(context))
        return StepResult(data={"unit_count": len(context.organized_files)})

    def rollback(self, context: UploadContext, result: StepResult) -> None:
        """Remove the run's temporary folder, unless something is in it that could not be put back."""
        scratch = Path(context.temp_folder or scratch_folder(context))
        if not any(scratch.glob("*.former")):
            remove_scratch(scratch)


class GenerateDataUnitsStep(BaseStep[UploadContext]):
    """Gives each unit its id, and each file its target."""

    name = "generate_data_units"
    progress_weight = 0.10

    def execute(self, context: UploadContext) -> StepResult:
        """Fills ``data_units``; leaves out those whose main file equals an earlier one's."""
        _generate(context)
        return StepResult(
            data={"data_unit_count": len(context.data_units), "skipped_duplicates": context.skipped_duplicates}
        )


class UploadFilesStep(BaseStep[UploadContext]):
    """Copies the files into the storage, side by side, then writes the file with the units."""

    name = "upload_files"
    progress_weight = 0.50

    def execute(self, context: UploadContext) -> StepResult:
        """Each file that has arrived is recorded; none is sent twice."""
        if not context.data_units:
            _generate(context)
        return send_units(context)

    def rollback(self, context: UploadContext, result: StepResult) -> None:
        """Delete every file it made, and put back those it replaced."""
        take_back_upload(context, result.rollback_data.get("plan") or context.once("plan", lambda: None))


class ProcessMetadataStep(BaseStep[UploadContext]):
    """Merges the rows of a sheet into the units."""

    name = "process_metadata"
    progress_weight = 0.05

    def can_skip(self, context: UploadContext) -> bool:
        """Without a sheet."""
        return not context.param("excel_metadata_path")

    def execute(self, context: UploadContext) -> StepResult:
        """A sheet that cannot be used is an event, no failure."""
        path = Path(context.param("excel_metadata_path")).expanduser()
        try:
            rows = read_sheet(path)
        except BadSheet as error:
            context.log("metadata_invalid", {"path": str(path), "error": str(error)})
            context.metadata = {"error": str(error)}
            return StepResult(data=dict(context.metadata))
        if not context.data_units:
            _generate(context)
        units = context.data_units
        storage = opened_storage(context)
        target = units_target(context.param("name"), context.run_id)
        former = context.once("former", lambda: storage.read(target) if storage.exists(target) else None)
        unmatched = merge_rows(units, rows)
        context.data_units = units
        context.metadata = {"rows": len(rows), "unmatched": unmatched}
        if unmatched:
            context.log("metadata_unmatched", {"path": str(path), "names": unmatched})
        if former is not None:
            storage.write(target, units_text(units))
        return StepResult(data=dict(context.metadata), rollback_data={"target": target, "former": former})

    def rollback(self, context: UploadContext, result: StepResult) -> None:
        """Put the former file with the units back."""
        former = result.rollback_data.get("former") or context.once("former", lambda: None)
        if former is not None:
            opened_storage(context).write(units_target(context.param("name"), context.run_id), former)


def _organize(context: UploadContext) -> None:
    found = organize(context)
    if found.ignored:
        context.log("files_ignored", {"files": found.ignored})
    if found.dropped and context.param("on_missing") == "error":
        lines = [f"{key}: required file {', '.join(missing)} is missing" for key, missing in found.dropped]
        raise Refused(lines)
    for key, missing in found.dropped:
        context.log("group_dropped", {"key": key, "missing": missing})
    if not found.units:
        raise Refused(["no complete group of files found"])
    context.organized_files = found.units


def _generate(context: UploadContext) -> None:
    if not context.organized_files:
        _organize(context)
    units: list[dict[str, Any]] = make_units(context.organized_files, context.param("name"), context.run_id)
    skipped: list[tuple[str, str]] = []
    if context.param("skip_local_duplicates"):
        units, skipped = without_duplicates(units, main_specification(context.file_specifications))
    for path, same_as in skipped:
        context.log("duplicate_skipped", {"path": path, "same_as": same_as}, path)
    context.data_units = units
    context.skipped_duplicates = len(skipped)
