"""The six steps of an export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline._storage_spec import resolve
from stepwell.pipeline._workspace import is_place
from stepwell.pipeline.actions._items import check_filters
from stepwell.pipeline.actions._params import revealed
from stepwell.pipeline.actions._transfer import Patience, patiently, side_by_side
from stepwell.pipeline.actions.export._context import ExportContext, opened_storage
from stepwell.pipeline.actions.export._exporter import hook_of
from stepwell.pipeline.actions.export._files import (
    MARKER,
    Naming,
    claim_folder,
    claimed_folder,
    json_text,
    named,
    remove_claimed,
)
from stepwell.pipeline.steps.base import BaseStep, StepResult
from stepwell.pipeline.storage import Storage

ERROR_LIST = "error_file_list.json"
COLLISIONS = "filename_collisions.json"
JSON, ORIGINALS = "json", "origin_files"
WORKERS = 8
PATIENCE = Patience(attempts=3, delay=0.2)
FAILURE = "_export_error"
"""Key of a converted item that holds why its conversion failed."""


class InitializeStep(BaseStep[ExportContext]):
    """Opens the storage and makes the export's own folder, ``<name>``, or ``<name>(1)`` … where that is taken."""

    name = "initialize"
    progress_weight = 0.05

    def execute(self, context: ExportContext) -> StepResult:
        """Fails without a storage."""
        storage = opened_storage(context)
        context.path_root = context.param("path")
        wanted = _wanted(context)
        context.once("folders", lambda: list(storage.absent_folders([f"{wanted}/{MARKER}"])))
        folder = claim_folder(storage, wanted, str(context.run_id))
        context.folder = folder
        context.unique_export_path = storage.get_url(folder)
        context.output_paths = {name: storage.get_url(f"{folder}/{name}") for name in (JSON, ORIGINALS)}
        return StepResult(data={"path": context.unique_export_path}, rollback_data={"folder": folder})

    def rollback(self, context: ExportContext, result: StepResult) -> None:
        """Remove the folder that it made, and only that."""
        absent: Any = context.once("folders", lambda: None)
        if absent is None:
            return  # it came to nothing before it could make anything
        storage, owner = opened_storage(context), str(context.run_id)
        folder = result.rollback_data.get("folder") or claimed_folder(storage, _wanted(context), owner)
        if folder:
            remove_claimed(storage, folder, owner, made=result.success)
        # Of the folder itself its marker tells; what is above it goes if it was not there before.
        storage.remove_folders([name for name in absent if name != _wanted(context)])
        context.folder = context.output_path = ""

    def restore(self, context: ExportContext, result: StepResult) -> None:
        """Open the storage again."""
        opened_storage(context)


def _wanted(context: ExportContext) -> str:
    root, name = context.param("path"), str(context.param("name"))
    return f"{root}/{name}" if root else name


class FetchResultsStep(BaseStep[ExportContext]):
    """Asks the action for the items."""

    name = "fetch_results"
    progress_weight = 0.10

    def execute(self, context: ExportContext) -> StepResult:
        """Fails without a target, and with a filter that is not known."""
        if context.param("target") is None:
            raise ValueError("Target parameter is required")
        filters = dict(context.param("filter"))
        check_filters(filters)
        context.handler = handler_of(context)
        found, count = context.handler.get_filtered_results(filters)
        context.results = list(found)
        context.total_count = int(count)
        return StepResult(data={"total_count": context.total_count})

    def rollback(self, context: ExportContext, result: StepResult) -> None:
        """Forget them."""
        context.handler = None
        context.results = []


class PrepareExportStep(BaseStep[ExportContext]):
    """Gathers what the exporter needs to know."""

    name = "prepare_export"
    progress_weight = 0.10

    def can_skip(self, context: ExportContext) -> bool:
        """Without items."""
        return context.total_count == 0

    def execute(self, context: ExportContext) -> StepResult:
        """Looks up the project, if one is given by a file."""
        project = context.param("project")
        if project is not None:
            context.project_id = project
            context.configuration = _configuration(context, project)
        context.export_params = {
            name: context.params.get(name, context.param(name))
            for name in ("name", "description", "target", "save_original_file", "extra_params")
        } | {"count": context.total_count, "project_id": context.project_id, "configuration": context.configuration}
        context.export_items = list(context.results)
        return StepResult(data={"item_count": len(context.export_items)})

    def rollback(self, context: ExportContext, result: StepResult) -> None:
        """Forget them."""
        context.export_params = {}
        context.configuration = {}


class ConvertDataStep(BaseStep[ExportContext]):
    """Sends each item through the exporter's hooks; one that raises is a failed item."""

    name = "convert_data"
    progress_weight = 0.30

    def can_skip(self, context: ExportContext) -> bool:
        """Without items."""
        return context.total_count == 0

    def execute(self, context: ExportContext) -> StepResult:
        """Fails when all items fail."""
        items = context.export_items or context.results
        hooks = [hook_of(context, name) for name in ("before_convert", "convert_data", "after_convert")]
        converted = []
        for number, item in enumerate(items, 1):
            converted.append(_converted(context, dict(item), hooks))
            context.set_progress(number, len(items))
        failed = [item for item in converted if FAILURE in item]
        context.converted_items = converted
        if items and len(failed) == len(items):
            return StepResult(success=False, error=f"all {len(items)} items failed: {failed[0][FAILURE]}")
        return StepResult(data={"converted": len(items) - len(failed), "failed": len(failed)})

    def rollback(self, context: ExportContext, result: StepResult) -> None:
        """Forget them."""
        context.converted_items = []


class SaveFilesStep(BaseStep[ExportContext]):
    """Writes the original files and the items' data."""

    name = "save_files"
    progress_weight = 0.35

    def can_skip(self, context: ExportContext) -> bool:
        """Without items."""
        return context.total_count == 0

    def execute(self, context: ExportContext) -> StepResult:
        """Fails when no item could be saved."""
        storage = opened_storage(context)
        items = context.converted_items or context.export_items or context.results
        naming = named(items)
        work = [_Saving(number, item, naming) for number, item in enumerate(items)]
        done, broken = side_by_side(
            work,
            lambda saving: saving.save(context, storage),
            workers=WORKERS,
            ended=lambda count: context.set_progress(count, len(items)),
            stop=lambda: context.cancelled,
        )
        for _, error in broken:
            raise error
        if len(done) < len(items):
            return StepResult(success=False, error="cancelled")
        errors_json = [fact for _, (kind, *fact) in done if kind == "json"]
        errors_original = [fact for _, (kind, *fact) in done if kind == "original"]
        failed = len(errors_json) + len(errors_original)
        context.set_metrics({"stand_by": 0, "success": len(items) - failed, "failed": failed})
        if naming.collisions:
            storage.write(f"{context.folder}/{COLLISIONS}", json_text(naming.collisions))
        context.errors_json, context.errors_original = errors_json, errors_original
        context.exported_count, context.failed_count = len(items) - failed, failed
        if items and failed == len(items):
            first = (errors_json or errors_original)[0][1]
            return StepResult(success=False, error=f"all {len(items)} items failed: {first}")
        return StepResult(data={"exported": context.exported_count, "failed": failed})

    def rollback(self, context: ExportContext, result: StepResult) -> None:
        """Forget the counts; the files go with the folder."""
        context.errors_json = []
        context.errors_original = []
        context.exported_count = context.failed_count = 0


class FinalizeStep(BaseStep[ExportContext]):
    """Lets the exporter write more files, and writes the list of errors. Never skipped."""

    name = "finalize"
    progress_weight = 0.10

    def execute(self, context: ExportContext) -> StepResult:
        """Removes the marker last: the folder is complete."""
        storage = opened_storage(context)
        folder = context.folder
        url = storage.get_url(folder)
        hook_of(context, "additional_file_saving")(url)
        if context.errors_json or context.errors_original:
            listed = {"json_file_name": context.errors_json, "origin_file_name": context.errors_original}
            storage.write(f"{folder}/{ERROR_LIST}", json_text(listed))
        storage.delete(f"{folder}/{MARKER}")
        context.output_path = url
        return StepResult(data={"output_path": url})


def handler_of(context: ExportContext) -> Any:
    """What knows the items: the action; where the steps are run without one, that which the parameters would make."""
    if context.action is None:
        from stepwell.pipeline.actions.export._action import DefaultExportAction

        context.action = DefaultExportAction(revealed(context.params, context.secrets), context.runtime_ctx)
    return context.action


def _configuration(context: ExportContext, project: Any) -> dict[str, Any]:
    try:
        found = context.workspace.document("project", project)
    except BadArguments as error:
        # Items may be there without a document that describes their project.
        context.log("project_without_document", {"project": str(project), "reason": str(error)})
        return {}
    return dict(found.get("configuration") or {})


def _converted(context: ExportContext, item: dict[str, Any], hooks: list[Any]) -> dict[str, Any]:
    given = {"id": item.get("id"), "name": item.get("name"), "original_file": item.get("original_file")}
    value: Any = item
    try:
        for hook in hooks:
            value = hook(value)
        if not isinstance(value, dict):
            message = f"{hooks[-1].__name__}() must return a dict, got {type(value).__name__}"
            raise TypeError(message)
    except Exception as error:
        text = str(error) or type(error).__name__
        context.log("item_failed", {"id": given["id"], "error": text})
        return {**given, FAILURE: text}
    return {**{name: fact for name, fact in given.items() if fact is not None}, **value}


@dataclass
class _Saving:
    """One item on its way into files."""

    number: int
    item: dict[str, Any]
    naming: Naming

    def save(self, context: ExportContext, storage: Storage) -> tuple[str, ...]:
        """Save it. Returns ``("saved",)``, or which file failed (``json``, ``original``), its name and why."""
        stem, original = self.naming.stems[self.number], self.naming.originals[self.number]
        if stem is None:
            return ("json", *self.naming.unsafe[self.number])
        if FAILURE in self.item:
            return ("json", f"{stem}.json", self.item[FAILURE])
        if original is not None and context.param("save_original_file"):
            target = f"{context.folder}/{ORIGINALS}/{original}"
            try:
                patiently(lambda: _copy_original(context, storage, self.item, target), PATIENCE)
            except Exception as error:
                return ("original", original, str(error) or type(error).__name__)
        content = json_text(self.item.get("data"))
        try:
            patiently(lambda: storage.write(f"{context.folder}/{JSON}/{stem}.json", content), PATIENCE)
        except Exception as error:
            return ("json", f"{stem}.json", str(error) or type(error).__name__)
        return ("saved",)


def _copy_original(context: ExportContext, storage: Storage, item: dict[str, Any], target: str) -> None:
    """The original is a URL, an absolute path, or relative to the folder that the item was read from."""
    place = str(item["original_file"])
    if "://" in place:
        folder, _, name = place.rpartition("/")
        source = resolve(folder, context.env, "")
    elif is_place(place) and Path(place).is_absolute():
        source, name = resolve(Path(place).parent, context.env, ""), PurePosixPath(place).name
    else:
        source, name = handler_of(context).items_folder(), place
    with source.open(name) as stream:
        storage.put(stream, target)
