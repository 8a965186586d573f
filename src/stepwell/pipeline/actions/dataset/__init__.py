"""Data sets: fetch one from the workspace, convert one to another format."""

from __future__ import annotations

from stepwell.pipeline.actions.dataset._action import DatasetAction
from stepwell.pipeline.actions.dataset._context import DatasetContext, DatasetOperation, DatasetParams
from stepwell.pipeline.actions.dataset._steps import ConvertDatasetStep, ExportDatasetStep

__all__ = [
    "ConvertDatasetStep",
    "DatasetAction",
    "DatasetContext",
    "DatasetOperation",
    "DatasetParams",
    "ExportDatasetStep",
]
