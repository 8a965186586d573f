"""`BaseExportAction` and `DefaultExportAction`: items of the workspace into files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel

from stepwell.errors import BadArguments
from stepwell.pipeline._workspace import Workspace, is_name, is_place
from stepwell.pipeline.actions._items import read_items
from stepwell.pipeline.actions.action import BaseAction, P
from stepwell.pipeline.actions.export._context import ExportContext, ExportParams, opened_storage
from stepwell.pipeline.actions.export._exporter import Exporter
from stepwell.pipeline.actions.export._files import MARKER
from stepwell.pipeline.actions.export._steps import (
    ConvertDataStep,
    FetchResultsStep,
    FinalizeStep,
    InitializeStep,
    PrepareExportStep,
    SaveFilesStep,
)
from stepwell.pipeline.steps.registry import StepRegistry
from stepwell.pipeline.storage import Storage

_KINDS = {"task": "tasks", "assignment": "assignments", "ground_truth": "ground_truth"}


class BaseExportAction(BaseAction[P]):
    """Exports items. It registers no steps; `DefaultExportAction` does. The methods ``before_convert``,
    ``convert_data``, ``after_convert`` and ``additional_file_saving`` of a subclass win over those of its
    ``exporter_class``.

    `execute` returns, besides the summary, ``exported_count``, ``failed_count``, ``total_count`` and ``output_path``.
    """

    action_name: ClassVar[str] = "export"
    params_model: ClassVar[type[BaseModel]] = ExportParams
    exporter_class: ClassVar[type[Exporter]] = Exporter

    def setup_steps(self, registry: StepRegistry[ExportContext]) -> None:
        """Register steps; here none."""

    def create_context(self) -> ExportContext:
        """Make the context of a run."""
        return ExportContext(**self.shared_fields())

    def get_filtered_results(self, filters: Mapping[str, Any]) -> tuple[Iterable[dict[str, Any]], int]:
        """The items to export, and how many: those of the workspace's folder of the target, ordered by id.

        Args:
            filters: which of them.
        """
        items = read_items(self.items_folder(), filters)
        return items, len(items)

    def items_folder(self) -> Storage:
        """The folder with the items of the target.

        Raises:
            BadArguments: it is not named, or not there.
        """
        params: Any = self.params
        kind = _KINDS[params.target]
        owner = "dataset" if params.target == "ground_truth" else "project"
        given = getattr(params, owner)
        if given is None:
            message = f"{owner} is required for target {params.target!r}"
            raise BadArguments(message)
        if isinstance(given, Mapping):
            given = given.get("id")
        env: Mapping[str, str] = getattr(self.runtime_ctx, "env", os.environ)
        workspace = Workspace.current(env)
        if is_place(given):
            return workspace.folder(kind, given)
        folder = workspace.storage.below(f"{kind}/{given}") if is_name(given) else None
        if folder is None or not folder.list():
            message = f"Failed to get {owner} {given}: not found in {workspace.folder_url(kind)}"
            raise BadArguments(message)
        return folder

    def result(self, context: ExportContext) -> dict[str, Any]:
        """What `execute` returns besides the summary."""
        return {
            "exported_count": context.exported_count,
            "failed_count": context.failed_count,
            "total_count": context.total_count,
            "output_path": context.output_path or context.unique_export_path,
        }

    def finished(self, context: ExportContext) -> None:
        """Remove the marker, where a ``finalize`` of one's own has not."""
        if context.folder:
            opened_storage(context).delete(f"{context.folder}/{MARKER}")


class DefaultExportAction(BaseExportAction[ExportParams]):
    """Six steps from the items of the workspace to files in a storage."""

    def setup_steps(self, registry: StepRegistry[ExportContext]) -> None:
        """Register the six built-in steps."""
        registry.register(InitializeStep())
        registry.register(FetchResultsStep())
        registry.register(PrepareExportStep())
        registry.register(ConvertDataStep())
        registry.register(SaveFilesStep())
        registry.register(FinalizeStep())
