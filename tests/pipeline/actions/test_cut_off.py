"""Each step of an action is cut off once its work is done and before that is recorded; the run is taken up, and a last
step fails or not. Either way nothing is done twice in a way that can be seen, and a rollback leaves no trace.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from stepwell.client import Engine
from stepwell.errors import RunCancelled
from stepwell.pipeline.actions.action import BaseAction
from stepwell.pipeline.actions.add_task_data import AddTaskDataAction
from stepwell.pipeline.actions.dataset import DatasetAction
from stepwell.pipeline.actions.export import DefaultExportAction
from stepwell.pipeline.actions.train import BaseTrainAction
from stepwell.pipeline.actions.upload import DefaultUploadAction
from stepwell.pipeline.steps import BaseStep, StepFailed, StepRegistry, StepResult
from tests.pipeline.actions.test_dataset import make_dm, tree


class Cut(BaseException):
    """What ends a process, as far as a run can tell."""


class Last(BaseStep[Any]):
    name = "last"
    progress_weight = 0.1

    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def execute(self, context: Any) -> StepResult:
        return StepResult(success=not self.fails, error="no")


class Train(BaseTrainAction[Any]):
    def train_model(self, context: Any) -> dict[str, Any]:
        path = Path(context.param("checkpoint"))
        return {"model_path": str(path)}


@pytest.fixture
def made(tmp_path: Path, workspace: Path) -> dict[str, tuple[type[BaseAction[Any]], dict[str, Any]]]:
    """By name: an action and parameters with which it has something to do, and something to replace."""
    for split in ("train", "valid"):
        make_dm(workspace / "datasets" / "1" / split, split)
    (workspace / "tasks" / "9").mkdir(parents=True)
    for number in (1, 2):
        (workspace / "tasks" / "9" / f"{number}.json").write_text(json.dumps({"id": number, "data": {"n": number}}))
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.bin").write_text(f"new {number}")
    (tmp_path / "annotations.json").write_text('{"1": {"x": 1}, "2": {"x": 2}}')
    (tmp_path / "meta.csv").write_text("filename,camera\n1.bin,left\n")
    target = tmp_path / "target"
    for name in ("up/file/1.bin", "out/mine", "dm/old", "yolo/old"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text("former")
    upload = {"name": "up", "path": str(tmp_path / "in"), "storage": str(target), "overwrite": True}
    return {
        "upload": (DefaultUploadAction, {**upload, "excel_metadata_path": str(tmp_path / "meta.csv")}),
        "export": (DefaultExportAction, {"name": "out", "storage": str(target), "target": "task", "project": 9}),
        "dataset": (
            DatasetAction,
            {"dataset": 1, "operation": "convert", "output_dir": str(target), "overwrite": True},
        ),
        "train": (
            Train,
            {"dataset": 1, "checkpoint": str(tmp_path / "in"), "output_dir": str(target), "overwrite": True},
        ),
        "add_task_data": (AddTaskDataAction, {"project": 9, "path": str(tmp_path / "annotations.json")}),
    }


def cut_once(step: BaseStep[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The first call of ``execute`` does its work and never returns."""
    kind: Any = type(step)
    real = kind.execute
    calls = []

    def execute(self: Any, context: Any) -> Any:
        result = real(self, context)
        calls.append(1)
        if len(calls) == 1:
            raise Cut
        return result

    monkeypatch.setattr(kind, "execute", execute)


STEPS = {
    "upload": [
        "initialize",
        "validate_files",
        "analyze_collection",
        "organize_files",
        "generate_data_units",
        "upload_files",
        "process_metadata",
    ],
    "export": ["initialize", "fetch_results", "prepare_export", "convert_data", "save_files", "finalize"],
    "dataset": ["dataset", "convert"],
    "train": ["dataset", "train", "model_upload"],
    "add_task_data": ["validate_file", "load_annotations", "process_tasks", "upload_annotations"],
}


@pytest.mark.parametrize("then", ["goes on", "fails", "is cancelled"])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("name, step", [(name, step) for name, steps in STEPS.items() for step in steps])
def test_a_step_that_was_cut_off(
    name: str,
    step: str,
    then: str,
    fresh: bool,
    made: dict[str, tuple[type[BaseAction[Any]], dict[str, Any]]],
    tmp_path: Path,
    workspace: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind, params = made[name]
    if fresh:
        shutil.rmtree(tmp_path / "target")

    class Ending(kind):  # type: ignore[misc,valid-type]
        def setup_steps(self, registry: StepRegistry[Any]) -> None:
            super().setup_steps(registry)
            registry.register(Last(fails=then == "fails"))

    registry: StepRegistry[Any] = StepRegistry()
    kind(params).setup_steps(registry)
    assert [found.name for found in registry] == STEPS[name]
    cut_once(next(found for found in registry if found.name == step), monkeypatch)
    before = tree(tmp_path / "target"), tree(workspace)
    with pytest.raises(Cut):
        Ending(params, run_id="cut", engine=engine).execute()
    if then == "is cancelled":
        engine.get_run("cut").cancel()
        with pytest.raises(RunCancelled):
            Ending(params, run_id="cut", engine=engine).execute()
        assert (tree(tmp_path / "target"), tree(workspace)) == before
        assert (tmp_path / "target").exists() != fresh
    elif then == "fails":
        with pytest.raises(StepFailed) as caught:
            Ending(params, run_id="cut", engine=engine).execute()
        assert (str(caught.value), caught.value.rollback_errors) == ("Step 'last' failed: no", ())
        assert (tree(tmp_path / "target"), tree(workspace)) == before
        assert (tmp_path / "target").exists() != fresh
    else:
        result = Ending(params, run_id="cut", engine=engine).execute()
        after = tree(tmp_path / "target"), tree(workspace)
        hidden = [path for folder in after for path in folder if any(part[0] == "." for part in path.split("/"))]
        assert hidden == []
        assert "runs" not in after[1]
        assert result["steps_executed"] == len(STEPS[name]) + 1
