"""Export: items of the workspace into files of a storage."""

from __future__ import annotations

from stepwell.pipeline.actions.export._action import BaseExportAction, DefaultExportAction
from stepwell.pipeline.actions.export._context import ExportContext, ExportParams
from stepwell.pipeline.actions.export._exporter import Exporter
from stepwell.pipeline.actions.export._steps import (
    ConvertDataStep,
    FetchResultsStep,
    FinalizeStep,
    InitializeStep,
    PrepareExportStep,
    SaveFilesStep,
)

__all__ = [
    "BaseExportAction",
    "ConvertDataStep",
    "DefaultExportAction",
    "ExportContext",
    "ExportParams",
    "Exporter",
    "FetchResultsStep",
    "FinalizeStep",
    "InitializeStep",
    "PrepareExportStep",
    "SaveFilesStep",
]
