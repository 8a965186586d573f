"""`BaseUploadAction`: seven steps from source files to data units in a storage."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel

from stepwell.pipeline.actions.action import BaseAction, P, remove_scratch, scratch_folder
from stepwell.pipeline.actions.upload._context import UploadContext
from stepwell.pipeline.actions.upload._params import UploadParams
from stepwell.pipeline.actions.upload._steps import (
    AnalyzeCollectionStep,
    GenerateDataUnitsStep,
    InitializeStep,
    OrganizeFilesStep,
    ProcessMetadataStep,
    UploadFilesStep,
    ValidateFilesStep,
)
from stepwell.pipeline.steps.registry import StepRegistry


class BaseUploadAction(BaseAction[P]):
    """Sends files to a storage as data units. Each file that has arrived is recorded and not sent again after a crash;
    a failure leaves the storage as it was. Override `setup_steps` to add, replace or leave out steps.

    `execute` returns, besides the summary, ``uploaded_files``, ``data_units`` and ``skipped_duplicates`` (counts),
    ``failed_files`` (a list), ``output_path`` and ``data_units_path`` (URLs).
    """

    action_name: ClassVar[str] = "upload"
    params_model: ClassVar[type[BaseModel]] = UploadParams

    def setup_steps(self, registry: StepRegistry[UploadContext]) -> None:
        """Register the seven built-in steps."""
        registry.register(InitializeStep())
        registry.register(ValidateFilesStep())
        registry.register(AnalyzeCollectionStep())
        registry.register(OrganizeFilesStep())
        registry.register(GenerateDataUnitsStep())
        registry.register(UploadFilesStep())
        registry.register(ProcessMetadataStep())

    def create_context(self) -> UploadContext:
        """Make the context of a run."""
        return UploadContext(**self.shared_fields())

    def result(self, context: UploadContext) -> dict[str, Any]:
        """What `execute` returns besides the summary."""
        return {
            "uploaded_files": len(context.uploaded_files),
            "data_units": len(context.data_units),
            "skipped_duplicates": context.skipped_duplicates,
            "failed_files": list(context.failed_files),
            "output_path": context.output_path,
            "data_units_path": context.data_units_path,
        }

    def finished(self, context: UploadContext) -> None:
        """Remove the run's temporary folder."""
        remove_scratch(Path(context.temp_folder or scratch_folder(context)))


class DefaultUploadAction(BaseUploadAction[UploadParams]):
    """`BaseUploadAction` with `UploadParams`."""
