"""Actions: pipelines with parameters of their own that move data in and out of the workspace."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.pipeline.actions.action import BaseAction as BaseAction
    from stepwell.pipeline.actions.add_task_data import AddTaskDataAction as AddTaskDataAction
    from stepwell.pipeline.actions.add_task_data import AddTaskDataContext as AddTaskDataContext
    from stepwell.pipeline.actions.add_task_data import AddTaskDataMethod as AddTaskDataMethod
    from stepwell.pipeline.actions.add_task_data import AddTaskDataParams as AddTaskDataParams
    from stepwell.pipeline.actions.dataset import ConvertDatasetStep as ConvertDatasetStep
    from stepwell.pipeline.actions.dataset import DatasetAction as DatasetAction
    from stepwell.pipeline.actions.dataset import DatasetContext as DatasetContext
    from stepwell.pipeline.actions.dataset import DatasetOperation as DatasetOperation
    from stepwell.pipeline.actions.dataset import DatasetParams as DatasetParams
    from stepwell.pipeline.actions.dataset import ExportDatasetStep as ExportDatasetStep
    from stepwell.pipeline.actions.export import BaseExportAction as BaseExportAction
    from stepwell.pipeline.actions.export import DefaultExportAction as DefaultExportAction
    from stepwell.pipeline.actions.export import ExportContext as ExportContext
    from stepwell.pipeline.actions.export import Exporter as Exporter
    from stepwell.pipeline.actions.export import ExportParams as ExportParams
    from stepwell.pipeline.actions.train import BaseTrainAction as BaseTrainAction
    from stepwell.pipeline.actions.train import BaseTrainParams as BaseTrainParams
    from stepwell.pipeline.actions.train import TrainContext as TrainContext
    from stepwell.pipeline.actions.upload import BaseUploadAction as BaseUploadAction
    from stepwell.pipeline.actions.upload import DefaultUploadAction as DefaultUploadAction
    from stepwell.pipeline.actions.upload import UploadContext as UploadContext
    from stepwell.pipeline.actions.upload import UploadParams as UploadParams

# Name -> module. Imported when first asked for (PEP 562): each action brings pydantic and more.
_NAMES = {
    "AddTaskDataAction": "add_task_data",
    "AddTaskDataContext": "add_task_data",
    "AddTaskDataMethod": "add_task_data",
    "AddTaskDataParams": "add_task_data",
    "BaseAction": "action",
    "BaseExportAction": "export",
    "BaseTrainAction": "train",
    "BaseTrainParams": "train",
    "BaseUploadAction": "upload",
    "ConvertDatasetStep": "dataset",
    "DatasetAction": "dataset",
    "DatasetContext": "dataset",
    "DatasetOperation": "dataset",
    "DatasetParams": "dataset",
    "DefaultExportAction": "export",
    "DefaultUploadAction": "upload",
    "ExportContext": "export",
    "ExportDatasetStep": "dataset",
    "ExportParams": "export",
    "Exporter": "export",
    "TrainContext": "train",
    "UploadContext": "upload",
    "UploadParams": "upload",
}

__all__ = [
    "AddTaskDataAction",
    "AddTaskDataContext",
    "AddTaskDataMethod",
    "AddTaskDataParams",
    "BaseAction",
    "BaseExportAction",
    "BaseTrainAction",
    "BaseTrainParams",
    "BaseUploadAction",
    "ConvertDatasetStep",
    "DatasetAction",
    "DatasetContext",
    "DatasetOperation",
    "DatasetParams",
    "DefaultExportAction",
    "DefaultUploadAction",
    "ExportContext",
    "ExportDatasetStep",
    "ExportParams",
    "Exporter",
    "TrainContext",
    "UploadContext",
    "UploadParams",
]


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
