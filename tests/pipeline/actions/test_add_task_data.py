from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.client import Engine
from stepwell.errors import RunCancelled
from stepwell.pipeline._storage_local import LocalStorage
from stepwell.pipeline.actions import AddTaskDataAction, AddTaskDataMethod, AddTaskDataParams
from stepwell.pipeline.actions.add_task_data import AddTaskDataContext
from stepwell.pipeline.steps import BaseStep, StepFailed, StepRegistry, StepResult

PREDICT = str(Path(__file__).with_name("predict.py"))


@pytest.fixture
def tasks(workspace: Path) -> Path:
    folder = workspace / "tasks" / "9"
    folder.mkdir(parents=True)
    for number in (1, 2):
        unit = {"files": {"label": {"path": str(folder.parent / f"label{number}.json")}}}
        (folder / f"{number}.json").write_text(json.dumps({"id": number, "status": "open", "data_unit": unit}))
    (folder.parent / "label1.json").write_text('{"from": "unit"}')
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def task(folder: Path, number: int) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / f"{number}.json").read_text())
    return value


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.json", '[{"task_id": 1, "data": {"x": "1"}}, {"task_id": "77", "data": {}}]'),
        ("a.json", '{"1": {"x": "1"}, "77": {}}'),
        ("a.jsonl", '{"task_id": "1", "data": {"x": "1"}}\n\n{"task_id": 77, "data": {}}\n'),
        ("a.csv", "task_id,x\n1,1\n77,2\n"),
    ],
)
def test_annotations_come_from_a_file(name: str, text: str, tasks: Path, tmp_path: Path, engine: Engine) -> None:
    (tmp_path / name).write_text(text)
    percents: list[int] = []
    result = AddTaskDataAction(
        {"project": 9, "path": str(tmp_path / name)},
        engine=engine,
        progress_callback=lambda now, _: percents.append(now),
    ).execute()
    assert result == {
        "success": True,
        "steps_executed": 4,
        "steps_total": 4,
        "status": "SUCCEEDED",
        "message": "add_task_data completed. success=1, failed=1",
        "total_tasks": 2,
        "success_count": 1,
        "failed_count": 1,
        "failures": [{"task_id": "77", "error": "task not found"}],
    }
    assert percents == [5, 20, 50, 100]
    assert (task(tasks, 1)["annotations"], task(tasks, 1)["status"]) == ({"x": "1"}, "submitted")
    assert task(tasks, 2)["status"] == "open"


def test_annotations_come_from_the_files_of_units(tasks: Path, engine: Engine) -> None:
    params = {"project": 9, "target_specification_name": "label"}
    result = AddTaskDataAction(params, engine=engine).execute()
    assert (result["success_count"], result["failed_count"]) == (1, 1)
    assert task(tasks, 1)["annotations"] == {"from": "unit"}
    with pytest.raises(StepFailed) as caught:
        AddTaskDataAction({"project": 9, "target_specification_name": "zz"}, engine=engine).execute()
    text = "Step 'validate_file' failed: Target specification 'zz' not found in file specifications"
    assert str(caught.value) == text


def test_annotations_come_from_a_predictor(tasks: Path, engine: Engine) -> None:
    params = {"project": 9, "method": "inference", "predictor": f"{PREDICT}:predict"}
    result = AddTaskDataAction(params, engine=engine).execute()
    assert result["message"] == "add_task_data completed. success=1, failed=1"
    assert result["failures"] == [{"task_id": "2", "error": "cannot see"}]
    assert task(tasks, 1)["annotations"] == {"label": "p1"}


def test_a_predictor_may_be_a_class(tasks: Path, workspace: Path, engine: Engine) -> None:
    model = workspace / "models" / "m-12345678"
    model.mkdir(parents=True)
    (model / "model.json").write_text('{"entry": "best.bin"}')
    params = {
        "tasks": str(tasks),
        "method": AddTaskDataMethod.INFERENCE,
        "predictor": f"{PREDICT}:Model",
        "predictor_params": {"scale": 10},
        "model": "m-12345678",
        "task_filters": {"id": 2},
    }
    result = AddTaskDataAction(params, engine=engine).execute()
    assert (result["total_tasks"], result["success_count"]) == (1, 1)
    assert task(tasks, 2)["annotations"] == {"model": str(model / "best.bin"), "scaled": 20}


class Hooked(AddTaskDataAction[AddTaskDataParams]):
    def convert_data_from_file(self, task: dict[str, Any], data: Any) -> dict[str, Any]:
        raise ValueError(f"bad {task['id']}")


class Last(BaseStep[AddTaskDataContext]):
    name = "last"
    progress_weight = 0.1

    def execute(self, context: AddTaskDataContext) -> StepResult:
        return StepResult(success=False, error="no")


class Broken(AddTaskDataAction[AddTaskDataParams]):
    def setup_steps(self, registry: StepRegistry[AddTaskDataContext]) -> None:
        super().setup_steps(registry)
        registry.register(Last())


@pytest.fixture
def params(tasks: Path, tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "a.json"
    path.write_text('{"1": {"x": 1}, "2": {"x": 2}}')
    return {"project": 9, "path": str(path)}


def test_all_tasks_fail(params: dict[str, Any], tasks: Path, engine: Engine) -> None:
    before = contents(tasks)
    with pytest.raises(StepFailed) as caught:
        Hooked(params, engine=engine).execute()
    assert str(caught.value) == "Step 'process_tasks' failed: all 2 tasks failed: 1: bad 1"
    assert contents(tasks) == before


def test_a_rollback_puts_back_the_exact_bytes(params: dict[str, Any], tasks: Path, engine: Engine) -> None:
    """§11.6: add-task."""
    before = contents(tasks)
    with pytest.raises(StepFailed) as caught:
        Broken(params, engine=engine).execute()
    assert caught.value.rollback_errors == ()
    assert contents(tasks) == before


class Meddling(Last):
    def execute(self, context: AddTaskDataContext) -> StepResult:
        (Path(context.param("tasks")) / "1.json").write_text("{}")
        return StepResult(success=False, error="no")


class Meddled(Broken):
    def setup_steps(self, registry: StepRegistry[AddTaskDataContext]) -> None:
        super().setup_steps(registry)
        registry.replace("last", Meddling())


def test_what_somebody_changed_meanwhile_stays(params: dict[str, Any], tasks: Path, engine: Engine) -> None:
    before = contents(tasks)
    with pytest.raises(StepFailed) as caught:
        Meddled({**params, "tasks": str(tasks)}, engine=engine).execute()
    assert caught.value.rollback_errors == (
        "Rollback failed for step 'upload_annotations': 1.json was changed by somebody else and is left as it is",
    )
    assert contents(tasks) == {"1.json": b"{}", "2.json": before["2.json"]}


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"task_filters": {"status": "none"}}, "Step 'validate_file' failed: No tasks found to annotate"),
        ({"project": 8}, "Step 'validate_file' failed: Failed to get project 8: not found in {workspace}/tasks"),
        ({"path": "/nowhere.json"}, "Step 'validate_file' failed: /nowhere.json: not found"),
        (
            {"method": "inference", "predictor": "no.such:thing"},
            "Step 'load_model' failed: ",
        ),
    ],
)
def test_what_is_refused(
    changes: dict[str, Any], text: str, params: dict[str, Any], tasks: Path, workspace: Path, engine: Engine
) -> None:
    before = contents(tasks)
    with pytest.raises(StepFailed) as caught:
        AddTaskDataAction({**params, **changes}, engine=engine).execute()
    assert str(caught.value).startswith(text.format(workspace=workspace))
    assert contents(tasks) == before


@pytest.mark.parametrize(
    "name, text, problem",
    [
        ("a.json", "3", "a.json: a list or an object is expected, got int"),
        ("a.json", '[{"id": 1}]', "a.json: entry 0: an object with task_id and data is expected"),
        ("a.jsonl", "{}\nx", "a.jsonl: line 1: an object with task_id and data is expected"),
        ("a.csv", "id,x\n1,1\n", "a.csv: there is no column task_id"),
        ("a.csv", "task_id,x\n1,1\n1,2\n", "a.csv: line 3: task_id '1' is there twice"),
        ("a.txt", "", "a.txt: annotations are a .json, .jsonl or .csv"),
    ],
)
def test_annotations_that_cannot_be_used(
    name: str, text: str, problem: str, tasks: Path, tmp_path: Path, engine: Engine
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(StepFailed) as caught:
        AddTaskDataAction({"project": 9, "path": str(tmp_path / name)}, engine=engine).execute()
    assert str(caught.value) == f"Step 'validate_file' failed: {problem}"


class Cut(BaseException):
    """What ends a process, as far as a run can tell."""


def test_a_run_that_was_cut_off_and_cancelled_changes_nothing(
    params: dict[str, Any], tasks: Path, workspace: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(tasks)
    real = LocalStorage.write
    written: list[str] = []

    def write(self: LocalStorage, target: str, content: bytes) -> str:
        if written:
            raise Cut
        written.append(target)
        return real(self, target, content)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "write", write)
        with pytest.raises(Cut):
            AddTaskDataAction(params, run_id="cut", engine=engine).execute()
    assert contents(tasks) != before
    engine.get_run("cut").cancel()
    with pytest.raises(RunCancelled):
        AddTaskDataAction(params, run_id="cut", engine=engine).execute()
    assert contents(tasks) == before
    assert not (workspace / "runs").exists()
