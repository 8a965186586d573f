"""The shapes in which actions are printed: classes that customise them, with the helpers that are left out there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stepwell.client import Engine
from stepwell.errors import BadArguments
from stepwell.pipeline import run_plugin
from stepwell.pipeline.actions import AddTaskDataAction, AddTaskDataMethod, AddTaskDataParams, BaseAction
from stepwell.pipeline.actions.dataset import DatasetAction, DatasetOperation
from stepwell.pipeline.actions.export import DefaultExportAction, ExportContext
from stepwell.pipeline.actions.train import BaseTrainAction, TrainContext
from stepwell.pipeline.actions.upload import (
    BaseUploadAction,
    OrganizeFilesStep,
    UploadContext,
    UploadFilesStep,
    UploadParams,
    ValidateFilesStep,
)
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps import (
    BaseStep,
    ConvertDatasetStep,
    ExportDatasetStep,
    Orchestrator,
    StepRegistry,
    StepResult,
)
from tests.pipeline.actions.test_dataset import make_dm


class _Noting(BaseStep[Any]):
    """Stands for a step of the user's."""

    progress_weight = 0.1

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def execute(self, context: Any) -> StepResult:
        return StepResult(data={"done": self._name})


def names_of(registry: StepRegistry[Any]) -> list[str]:
    return [step.name for step in registry]


class MyUploadAction(BaseUploadAction[UploadParams]):
    def setup_steps(self, registry: StepRegistry[UploadContext]) -> None:
        # Option 1: Use parent's built-in steps
        super().setup_steps(registry)

        # Option 2: Add custom steps before/after
        registry.insert_before("upload_files", _Noting("pre_upload"))
        registry.insert_after("upload_files", _Noting("post_upload"))

        # Option 3: Replace specific steps
        registry.unregister("process_metadata")
        registry.register(_Noting("custom_metadata"))


def upload_params(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("a")
    return {"name": "up", "path": str(tmp_path / "in"), "storage": str(tmp_path / "s")}


def test_point_1_an_upload_with_steps_of_its_own(tmp_path: Path, engine: Engine) -> None:
    action = MyUploadAction(upload_params(tmp_path), engine=engine)
    result = action.execute()
    assert (result["steps_executed"], result["uploaded_files"]) == (9, 1)


class FourSteps(BaseUploadAction[UploadParams]):
    def setup_steps(self, registry: StepRegistry[UploadContext]) -> None:
        registry.register(ValidateFilesStep())
        registry.register(OrganizeFilesStep())
        registry.register(UploadFilesStep())
        registry.register(_Noting("verify_upload"))


def test_point_1_an_upload_of_four_steps(tmp_path: Path, engine: Engine) -> None:
    result = FourSteps(upload_params(tmp_path), engine=engine).execute()
    assert (result["steps_executed"], result["uploaded_files"], result["data_units"]) == (4, 1, 1)


class MyExportAction(DefaultExportAction):
    # Uses all 6 built-in steps by default
    pass


class CustomExport(DefaultExportAction):
    def setup_steps(self, registry: StepRegistry[ExportContext]) -> None:
        super().setup_steps(registry)
        registry.insert_before("convert_data", _Noting("validation"))
        registry.insert_after("save_files", _Noting("notification"))
        registry.unregister("finalize")
        registry.register(_Noting("custom_finalize"))


def test_point_1_an_export(tmp_path: Path, workspace: Path, engine: Engine) -> None:
    folder = workspace / "tasks" / "1"
    folder.mkdir(parents=True)
    (folder / "5.json").write_text('{"id": 5, "data": {"x": 1}}')
    params = {"name": "out", "storage": str(tmp_path / "s"), "target": "task", "project": 1}
    assert MyExportAction(params, engine=engine).execute()["exported_count"] == 1
    result = CustomExport(params, engine=engine).execute()
    assert (result["steps_executed"], result["output_path"]) == (8, str(tmp_path / "s" / "out(1)"))
    assert sorted(path.name for path in (tmp_path / "s" / "out(1)").iterdir()) == ["json"]


class MyAddTaskDataAction(AddTaskDataAction[AddTaskDataParams]):
    # Built-in steps are automatically configured based on method
    pass


def test_point_1_adding_task_data_has_steps_by_method() -> None:
    found = {}
    for method in AddTaskDataMethod:
        registry: StepRegistry[Any] = StepRegistry()
        MyAddTaskDataAction({"method": method}).setup_steps(registry)
        found[method.value] = [(step.name, step.progress_weight) for step in registry]
    assert found == {
        "file": [
            ("validate_file", 0.05),
            ("load_annotations", 0.15),
            ("process_tasks", 0.30),
            ("upload_annotations", 0.50),
        ],
        "inference": [
            ("load_model", 0.10),
            ("run_inference", 0.60),
            ("format_results", 0.10),
            ("upload_annotations", 0.20),
        ],
    }


class TrainParams(BaseModel):
    epochs: int = 1


class MyTrainAction(BaseTrainAction[TrainParams]):
    def setup_steps(self, registry: StepRegistry[TrainContext]) -> None:
        """Override to register training steps."""
        registry.register(_Noting("prepare_dataset"))
        registry.register(_Noting("initialize_model"))
        registry.register(_Noting("train_model"))
        registry.register(_Noting("save_checkpoint"))
        registry.register(_Noting("upload_model"))

    def execute(self) -> dict[str, Any]:
        # BaseTrainAction handles orchestration
        return super().execute()


def test_point_1_a_training_with_steps_of_its_own(engine: Engine) -> None:
    result = MyTrainAction({"epochs": 3}, engine=engine).execute()
    assert result == {"success": True, "steps_executed": 5, "steps_total": 5, "model": None, "model_path": None}


def test_point_1_a_data_set_is_converted_by_the_name_of_the_plugin(workspace: Path, engine: Engine) -> None:
    for split in ("train", "valid"):
        make_dm(workspace / "datasets" / "123" / split, split)
    params = {"dataset": 123, "operation": DatasetOperation.CONVERT, "target_format": "yolo"}
    result = run_plugin("plugin", "dataset", params, engine=engine)
    assert (result["format"], result["count"]) == ("yolo", 2)
    registry: StepRegistry[Any] = StepRegistry()
    DatasetAction(params).setup_steps(registry)
    assert [type(step) for step in registry] == [ExportDatasetStep, ConvertDatasetStep]


def test_all_steps_of_the_built_in_actions_stand_in_their_order() -> None:
    upload: StepRegistry[Any] = StepRegistry()
    BaseUploadAction({"name": "x"}).setup_steps(upload)
    assert names_of(upload) == [
        "initialize",
        "validate_files",
        "analyze_collection",
        "organize_files",
        "generate_data_units",
        "upload_files",
        "process_metadata",
    ]


def test_steps_of_actions_run_without_their_action(tmp_path: Path, workspace: Path, engine: Engine) -> None:
    (workspace / "tasks" / "1").mkdir(parents=True)
    (workspace / "tasks" / "1" / "5.json").write_text('{"id": 5, "data": {"x": 1}}')
    given = {"name": "out", "storage": str(tmp_path / "s"), "target": "task", "project": 1}
    registry: StepRegistry[Any] = StepRegistry()
    DefaultExportAction({"name": "x"}).setup_steps(registry)
    context = ExportContext(RuntimeContext(), params=given)
    assert Orchestrator(registry, context, engine=engine).execute()["steps_executed"] == 6
    assert context.exported_count == 1
    registry = StepRegistry()
    BaseUploadAction({"name": "x"}).setup_steps(registry)
    upload = UploadContext(RuntimeContext(), params=upload_params(tmp_path))
    assert Orchestrator(registry, upload, engine=engine).execute()["steps_executed"] == 6
    assert len(upload.uploaded_files) == 1


class Steps(BaseAction[TrainParams]):
    action_name = "steps"

    def setup_steps(self, registry: StepRegistry[Any]) -> None:
        for number in range(self.params.epochs):
            registry.register(_Noting(f"epoch_{number}"))


def test_an_action_from_nothing(engine: Engine) -> None:
    assert Steps({"epochs": 2}, engine=engine).run() == {"success": True, "steps_executed": 2, "steps_total": 2}
    with pytest.raises(RuntimeError, match=r"^No steps registered\. Override setup_steps\(\) "):
        Steps({"epochs": 0}, engine=engine).execute()
    with pytest.raises(BadArguments, match=r"^epochs: Input should be a valid integer"):
        Steps({"epochs": "x"})
