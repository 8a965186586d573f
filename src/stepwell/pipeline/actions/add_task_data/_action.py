"""`AddTaskDataAction`: annotations from a file or a model into the tasks of a project."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel

from stepwell.pipeline.actions.action import BaseAction, P, remove_scratch, scratch_folder
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
from stepwell.pipeline.steps.registry import StepRegistry


class AddTaskDataAction(BaseAction[P]):
    """Adds annotations to tasks, from a file (``method='file'``) or by a predictor (``'inference'``). A task that fails
    is recorded, and the rest goes on. Override the two ``convert_…`` methods to change the data on its way.

    `execute` returns, besides the summary, ``status``, ``message``, ``total_tasks``, ``success_count``,
    ``failed_count`` and ``failures``.
    """

    action_name: ClassVar[str] = "add_task_data"
    params_model: ClassVar[type[BaseModel]] = AddTaskDataParams

    def setup_steps(self, registry: StepRegistry[AddTaskDataContext]) -> None:
        """Register the four steps of the method."""
        params: Any = self.params
        if params.method == AddTaskDataMethod.FILE:
            registry.register(ValidateFileStep())
            registry.register(LoadAnnotationsStep())
            registry.register(ProcessTasksStep())
            registry.register(UploadAnnotationsStep())
        else:
            registry.register(LoadModelStep())
            registry.register(RunInferenceStep())
            registry.register(FormatResultsStep())
            registry.register(UploadAnnotationsStep(progress_weight=0.20))

    def create_context(self) -> AddTaskDataContext:
        """Make the context of a run."""
        return AddTaskDataContext(**self.shared_fields())

    def convert_data_from_file(self, task: dict[str, Any], data: Any) -> dict[str, Any]:
        """What goes into the task for what the file has for it. Here: the same."""
        result: dict[str, Any] = data
        return result

    def convert_data_from_inference(self, task: dict[str, Any], prediction: Any) -> dict[str, Any]:
        """What goes into the task for what the predictor said of it. Here: the same."""
        result: dict[str, Any] = prediction
        return result

    def finished(self, context: AddTaskDataContext) -> None:
        """Remove the run's temporary folder."""
        remove_scratch(scratch_folder(context))

    def result(self, context: AddTaskDataContext) -> dict[str, Any]:
        """What `execute` returns besides the summary."""
        success, failed = context.success_count, len(context.failures)
        return {
            "status": "SUCCEEDED",
            "message": f"add_task_data completed. success={success}, failed={failed}",
            "total_tasks": len(context.task_ids),
            "success_count": success,
            "failed_count": failed,
            "failures": list(context.failures),
        }
