from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.client import Engine
from stepwell.pipeline.actions.train import BaseTrainAction, BaseTrainParams, TrainContext
from stepwell.pipeline.steps import BaseStep, StepFailed, StepRegistry, StepResult


class Trained(BaseTrainAction[BaseTrainParams]):
    def train_model(self, context: TrainContext) -> dict[str, Any]:
        path = Path(context.param("checkpoint")) / "best.bin"
        path.write_bytes(b"weights")
        context.model = object()  # what a training leaves in memory is not recorded
        return {"model_path": str(path), "metrics": {"loss": 0.5}}


class Last(BaseStep[TrainContext]):
    name = "last"
    progress_weight = 0.1

    def execute(self, context: TrainContext) -> StepResult:
        return StepResult(success=False, error="no")


class Broken(Trained):
    def setup_steps(self, registry: StepRegistry[TrainContext]) -> None:
        super().setup_steps(registry)
        registry.register(Last())


def test_a_model_comes_into_the_store(workspace: Path, tmp_path: Path, engine: Engine) -> None:
    params = {"checkpoint": str(tmp_path), "hyperparameters": {"lr": 0.1}, "more": 1}
    result = Trained(params, engine=engine).execute()
    assert result["model_path"] == str(tmp_path / "best.bin")
    assert (result["steps_executed"], result["steps_total"]) == (2, 2)
    folder = workspace / "models" / result["model"]
    assert result["model"].startswith("best-")
    assert (folder / "best.bin").read_bytes() == b"weights"
    document = json.loads((folder / "model.json").read_text())
    assert document["metrics"] == {"loss": 0.5}
    assert document["files"]["best.bin"]["size"] == 7


def test_a_rollback_leaves_the_store_as_it_was(workspace: Path, tmp_path: Path, engine: Engine) -> None:
    """§11.6: train."""
    with pytest.raises(StepFailed):
        Broken({"checkpoint": str(tmp_path)}, engine=engine).execute()
    assert not workspace.exists()
    (workspace / "models" / "mine").mkdir(parents=True)
    with pytest.raises(StepFailed) as caught:
        Broken({"checkpoint": str(tmp_path)}, engine=engine).execute()
    assert caught.value.rollback_errors == ()
    assert [path.name for path in (workspace / "models").iterdir()] == ["mine"]


def test_a_training_has_to_be_written(engine: Engine) -> None:
    with pytest.raises(StepFailed, match=r"Step 'train' failed: BaseTrainAction must override train_model\(\)"):
        BaseTrainAction({}, engine=engine).execute()


class Nothing(BaseTrainAction[BaseTrainParams]):
    def train_model(self, context: TrainContext) -> dict[str, Any]:
        return {}


def test_without_a_model_nothing_is_kept(workspace: Path, engine: Engine) -> None:
    result = Nothing({}, engine=engine).execute()
    assert (result["steps_executed"], result["model"], result["model_path"]) == (1, None, None)
    assert not workspace.exists()


class Own(BaseTrainAction[BaseTrainParams]):
    def setup_steps(self, registry: StepRegistry[TrainContext]) -> None:
        pass

    def execute(self) -> dict[str, Any]:
        return super().execute()


def test_no_steps(engine: Engine) -> None:
    with pytest.raises(RuntimeError, match=r"^No steps registered\. Override setup_steps\(\) "):
        Own({}, engine=engine).execute()
