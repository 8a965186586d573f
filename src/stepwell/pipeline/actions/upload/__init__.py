"""Upload: files from folders into a storage, as data units."""

from __future__ import annotations

from stepwell.pipeline.actions.upload._action import BaseUploadAction, DefaultUploadAction
from stepwell.pipeline.actions.upload._context import UploadContext
from stepwell.pipeline.actions.upload._params import UploadAsset, UploadParams
from stepwell.pipeline.actions.upload._steps import (
    AnalyzeCollectionStep,
    GenerateDataUnitsStep,
    InitializeStep,
    OrganizeFilesStep,
    ProcessMetadataStep,
    UploadFilesStep,
    ValidateFilesStep,
)

__all__ = [
    "AnalyzeCollectionStep",
    "BaseUploadAction",
    "DefaultUploadAction",
    "GenerateDataUnitsStep",
    "InitializeStep",
    "OrganizeFilesStep",
    "ProcessMetadataStep",
    "UploadAsset",
    "UploadContext",
    "UploadFilesStep",
    "UploadParams",
    "ValidateFilesStep",
]
