"""Parameters of adding data to tasks, and what the steps share."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from stepwell.errors import BadArguments
from stepwell.pipeline._workspace import Workspace, is_name, is_place
from stepwell.pipeline.actions._items import read_items
from stepwell.pipeline.actions._params import ActionParams
from stepwell.pipeline.actions.action import TRANSIENT, ActionContext
from stepwell.pipeline.storage import Storage


class AddTaskDataMethod(StrEnum):
    """Where the annotations come from."""

    FILE = "file"
    INFERENCE = "inference"


class AddTaskDataParams(ActionParams):
    """Parameters of `AddTaskDataAction`."""

    name: str = Field("add_task_data", description="free text")
    method: AddTaskDataMethod = Field(AddTaskDataMethod.FILE, description="`file` or `inference`")
    project: Any = Field(None, description="the project whose tasks get data: id or path")
    tasks: str | None = Field(None, description="the folder with the tasks, instead of `project`")
    task_filters: dict[str, Any] = Field(
        default_factory=dict, description="which tasks: `id ids status project dataset name tags split`"
    )
    path: str | None = Field(None, description="the .json, .jsonl or .csv with the annotations (`file`)")
    target_specification_name: str | None = Field(
        None, description="instead of `path`: the file of this specification in each task's data unit (`file`)"
    )
    predictor: str | None = Field(None, description="`pkg.mod:fn`, a function or class (`inference`)")
    predictor_params: dict[str, Any] = Field(default_factory=dict, description="for a predictor that is a class")
    model: Any = Field(None, description="the model: id in the model store, or a path (`inference`)")


@dataclass
class AddTaskDataContext(ActionContext):
    """Shared state.

    Args:
        task_ids: the tasks that fit the filters, in order.
        annotations: what was read or predicted, by task id (text).
        task_data: what goes into the tasks, by task id.
        failures: ``[{'task_id', 'error'}, …]``.
        success_count: tasks that have got their data.
        model_path: the model's local path.
        predictor: what makes predictions; never recorded.
    """

    params_model: ClassVar[type[BaseModel]] = AddTaskDataParams

    task_ids: list[str] = field(default_factory=list)
    annotations: dict[str, Any] = field(default_factory=dict)
    task_data: dict[str, Any] = field(default_factory=dict)
    failures: list[dict[str, Any]] = field(default_factory=list)
    success_count: int = 0
    model_path: str = ""
    predictor: Any = field(default=None, repr=False, metadata=TRANSIENT)

    def fail(self, task_id: str, error: str) -> None:
        """Note that a task has failed; the rest goes on."""
        self.failures = [*self.failures, {"task_id": task_id, "error": error}]
        self.log("task_failed", {"task_id": task_id, "error": error})


def tasks_folder(context: AddTaskDataContext) -> Storage:
    """The folder with the tasks.

    Raises:
        BadArguments: it is not named, or not there.
    """
    workspace: Workspace = context.workspace
    given = context.param("tasks")
    if given is not None:
        return workspace.folder("tasks", given if is_place(given) else f"./{given}")
    given = context.param("project")
    if isinstance(given, dict):
        given = given.get("id")
    if given is None:
        raise BadArguments("project or tasks is required")
    if is_place(given):
        return workspace.folder("tasks", given)
    folder = workspace.storage.below(f"tasks/{given}") if is_name(given) else None
    if folder is None or not folder.list():
        message = f"Failed to get project {given}: not found in {workspace.folder_url('tasks')}"
        raise BadArguments(message)
    return folder


def wanted_tasks(context: AddTaskDataContext) -> dict[str, dict[str, Any]]:
    """The tasks that fit the filters, by id (text), in order. Once they are settled, the same again.

    Raises:
        ValueError: there are none.
    """
    if context.task_ids:
        found = read_items(tasks_folder(context), {"ids": context.task_ids})
    else:
        found = read_items(tasks_folder(context), context.param("task_filters"))
    tasks = {str(task["id"]): task for task in found}
    if not tasks:
        raise ValueError("No tasks found to annotate")
    context.task_ids = list(tasks)
    return tasks
