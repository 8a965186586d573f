"""The steps of adding data to tasks: three that make it, for each of the two methods, and one that writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepwell.errors import BadArguments
from stepwell.pipeline._storage_spec import resolve
from stepwell.pipeline._workspace import is_place
from stepwell.pipeline.actions._transfer import Patience, patiently
from stepwell.pipeline.actions.add_task_data._changes import apply_change, make_change, take_back
from stepwell.pipeline.actions.add_task_data._context import AddTaskDataContext, tasks_folder, wanted_tasks
from stepwell.pipeline.actions.add_task_data._predictor import find_model, load_predictor
from stepwell.pipeline.actions.add_task_data._reading import read_annotations
from stepwell.pipeline.steps.base import BaseStep, StepResult
from stepwell.pipeline.storage import Storage

PATIENCE = Patience(attempts=3, delay=0.2)


class ValidateFileStep(BaseStep[AddTaskDataContext]):
    """Checks that there are tasks, and that the annotations can be read."""

    name = "validate_file"
    progress_weight = 0.05

    def execute(self, context: AddTaskDataContext) -> StepResult:
        """Fails without tasks, without a file, or with one that cannot be used."""
        tasks = wanted_tasks(context)
        path, specification = context.param("path"), context.param("target_specification_name")
        if path:
            source = Path(path).expanduser()
            if not source.is_file():
                message = f"{path}: not found"
                raise BadArguments(message)
            return StepResult(data={"tasks": len(tasks), "entries": len(read_annotations(source))})
        if not specification:
            raise BadArguments("path or target_specification_name is required for method 'file'")
        if specification not in _known_specifications(context, tasks):
            message = f"Target specification '{specification}' not found in file specifications"
            raise BadArguments(message)
        return StepResult(data={"tasks": len(tasks)})


class LoadAnnotationsStep(BaseStep[AddTaskDataContext]):
    """Reads the annotations."""

    name = "load_annotations"
    progress_weight = 0.15

    def execute(self, context: AddTaskDataContext) -> StepResult:
        """Fills ``annotations``."""
        path = context.param("path")
        if path:
            context.annotations = read_annotations(Path(path).expanduser())
        else:
            specification = str(context.param("target_specification_name"))
            for task_id, task in wanted_tasks(context).items():
                try:
                    found = _unit_file(context, task, specification)
                    if found is not None:
                        context.annotations[task_id] = json.loads(found)
                except Exception as error:
                    context.fail(task_id, str(error) or type(error).__name__)
        return StepResult(data={"entries": len(context.annotations)})

    def rollback(self, context: AddTaskDataContext, result: StepResult) -> None:
        """Forget them."""
        context.annotations = {}


class ProcessTasksStep(BaseStep[AddTaskDataContext]):
    """Brings annotations and tasks together; each goes through the action's ``convert_data_from_file``."""

    name = "process_tasks"
    progress_weight = 0.30

    def execute(self, context: AddTaskDataContext) -> StepResult:
        """Fails when all tasks fail."""
        tasks = wanted_tasks(context)
        failed = {failure["task_id"] for failure in context.failures}
        for task_id in tasks:
            if task_id not in context.annotations and task_id not in failed:
                context.log("task_without_annotation", {"task_id": task_id})
        for number, (task_id, data) in enumerate(context.annotations.items(), 1):
            if task_id not in tasks:
                context.fail(task_id, "task not found")
            else:
                _convert(context, "convert_data_from_file", tasks[task_id], data)
            context.set_progress(number, len(context.annotations))
        return _processed(context)

    def rollback(self, context: AddTaskDataContext, result: StepResult) -> None:
        """Forget the data."""
        context.task_data = {}


class LoadModelStep(BaseStep[AddTaskDataContext]):
    """Finds the model and makes the predictor."""

    name = "load_model"
    progress_weight = 0.10

    def execute(self, context: AddTaskDataContext) -> StepResult:
        """Fails without tasks, or when model or predictor are not there."""
        tasks = wanted_tasks(context)
        context.model_path = find_model(context)
        load_predictor(context)
        return StepResult(data={"tasks": len(tasks), "model_path": context.model_path})

    def restore(self, context: AddTaskDataContext, result: StepResult) -> None:
        """Make the predictor again."""
        load_predictor(context)


class RunInferenceStep(BaseStep[AddTaskDataContext]):
    """Asks the predictor about each task; each prediction is recorded and never made again."""

    name = "run_inference"
    progress_weight = 0.60

    def execute(self, context: AddTaskDataContext) -> StepResult:
        """A task whose prediction raises is a failed task."""
        tasks = wanted_tasks(context)
        predictor = load_predictor(context)
        for number, (task_id, task) in enumerate(tasks.items(), 1):
            if context.cancelled:
                return StepResult(success=False, error="cancelled")
            try:
                context.annotations[task_id] = context.once(f"task:{task_id}", lambda task=task: predictor(task))  # type: ignore[misc]
            except Exception as error:
                context.fail(task_id, str(error) or type(error).__name__)
            context.set_progress(number, len(tasks))
        if not context.annotations:
            return _all_failed(context)
        return StepResult(data={"predictions": len(context.annotations)})

    def rollback(self, context: AddTaskDataContext, result: StepResult) -> None:
        """Forget the predictions."""
        context.annotations = {}


class FormatResultsStep(BaseStep[AddTaskDataContext]):
    """Makes annotations of predictions: the action's ``convert_data_from_inference``."""

    name = "format_results"
    progress_weight = 0.10

    def execute(self, context: AddTaskDataContext) -> StepResult:
        """Fails when all tasks fail."""
        tasks = wanted_tasks(context)
        for task_id, prediction in context.annotations.items():
            _convert(context, "convert_data_from_inference", tasks[task_id], prediction)
        return _processed(context)

    def rollback(self, context: AddTaskDataContext, result: StepResult) -> None:
        """Forget the data."""
        context.task_data = {}


class UploadAnnotationsStep(BaseStep[AddTaskDataContext]):
    """Writes the data into the tasks, each file whole.

    Args:
        progress_weight: the step's part in the progress; .50 behind a file, .20 behind an inference.
    """

    name = "upload_annotations"
    progress_weight: float = 0.50

    def __init__(self, progress_weight: float = 0.50) -> None:
        self.progress_weight = progress_weight

    def execute(self, context: AddTaskDataContext) -> StepResult:
        """What is replaced is recorded before the first file is."""
        folder = tasks_folder(context)
        targets = _targets(folder)
        changed: list[dict[str, Any]] = context.once(
            "plan", lambda: [make_change(folder, targets, task_id, data) for task_id, data in context.task_data.items()]
        )
        for number, change in enumerate(changed, 1):
            try:
                patiently(lambda change=change: apply_change(folder, change), PATIENCE)  # type: ignore[misc]
                context.success_count += 1
            except Exception as error:
                context.fail(change["task_id"], str(error) or type(error).__name__)
            context.set_progress(number, len(changed))
        failed = len(context.failures)
        context.set_metrics({"success": context.success_count, "failed": failed})
        result = StepResult(
            data={"success": context.success_count, "failed": failed}, rollback_data={"changed": changed}
        )
        if changed and not context.success_count:
            result.success, result.error = False, _all_failed(context).error
        return result

    def rollback(self, context: AddTaskDataContext, result: StepResult) -> None:
        """Put back the exact former bytes. What somebody else has changed since is left as it is, and reported."""
        take_back(context, result.rollback_data.get("changed") or context.once("plan", list))


def _processed(context: AddTaskDataContext) -> StepResult:
    if context.failures and not context.task_data:
        return _all_failed(context)
    return StepResult(data={"processed": len(context.task_data), "failed": len(context.failures)})


def _all_failed(context: AddTaskDataContext) -> StepResult:
    first = context.failures[0]
    text = f"all {len(context.failures)} tasks failed: {first['task_id']}: {first['error']}"
    return StepResult(success=False, error=text)


def _convert(context: AddTaskDataContext, hook: str, task: dict[str, Any], data: Any) -> None:
    task_id = str(task["id"])
    try:
        value: Any = getattr(context.action, hook)(task, data)
        if not isinstance(value, dict):
            message = f"{hook}() must return a dict, got {type(value).__name__}"
            raise TypeError(message)
        context.task_data[task_id] = value
    except Exception as error:
        context.fail(task_id, str(error) or type(error).__name__)


def _known_specifications(context: AddTaskDataContext, tasks: dict[str, dict[str, Any]]) -> set[str]:
    """Names of specifications: those of the project's collection, and those that the tasks' units have."""
    known = {name for task in tasks.values() for name in (task.get("data_unit") or {}).get("files", {})}
    project = context.param("project")
    if project is not None:
        try:
            document = context.workspace.document("project", project)
            collection = document.get("data_collection")
            if collection is not None:
                listed = context.workspace.document("collection", collection).get("file_specifications", [])
                known |= {item["name"] for item in listed}
        except BadArguments:
            pass  # the units alone say it then
    return known


def _unit_file(context: AddTaskDataContext, task: dict[str, Any], specification: str) -> bytes | None:
    """The file of the specification in the task's unit: a path or URL, as it is or under ``url`` or ``path``."""
    place: Any = (task.get("data_unit") or {}).get("files", {}).get(specification)
    if isinstance(place, dict):
        place = place.get("url") or place.get("path")
    if place is None:
        return None
    place = str(place)
    if "://" in place or (is_place(place) and Path(place).is_absolute()):
        folder, _, name = place.rpartition("/")
        return resolve(folder if "://" in folder else Path(folder or "/"), context.env, "").read(name)
    return tasks_folder(context).read(place)


def _targets(folder: Storage) -> dict[str, str]:
    """File of each task, by id (text)."""
    found = {}
    for target in folder.list():
        if target.endswith(".json") and "/" not in target:
            try:
                task = json.loads(folder.read(target))
            except ValueError:
                continue
            if isinstance(task, dict):
                found[str(task.get("id", target.removesuffix(".json")))] = target
    return found
