"""Adding data to tasks, from a file or by inference."""

from __future__ import annotations

from stepwell.pipeline.actions.add_task_data._action import AddTaskDataAction
from stepwell.pipeline.actions.add_task_data._context import AddTaskDataContext, AddTaskDataMethod, AddTaskDataParams
from stepwell.pipeline.actions.add_task_data._steps import (
    FormatResultsStep,
    LoadAnnotationsStep,
    LoadModelStep,
    ProcessTasksStep,
    RunInferenceStep,
    UploadAnnotationsStep,
    ValidateFileStep,
)

__all__ = [
    "AddTaskDataAction",
    "AddTaskDataContext",
    "AddTaskDataMethod",
    "AddTaskDataParams",
    "FormatResultsStep",
    "LoadAnnotationsStep",
    "LoadModelStep",
    "ProcessTasksStep",
    "RunInferenceStep",
    "UploadAnnotationsStep",
    "ValidateFileStep",
]
