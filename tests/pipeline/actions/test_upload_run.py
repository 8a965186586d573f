from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stepwell.client import Engine
from stepwell.pipeline.actions.upload import BaseUploadAction, DefaultUploadAction, UploadContext, UploadParams
from stepwell.pipeline.steps import BaseStep, StepFailed, StepRegistry, StepResult
from stepwell.pipeline.storage import open_storage


@pytest.fixture
def source(tmp_path: Path) -> str:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 100)
    return str(folder)


@pytest.fixture
def params(source: str, storage_spec: Any) -> dict[str, Any]:
    return {"name": "up", "path": source, "storage": storage_spec, "retry_delay": 0}


class Broken(BaseStep[UploadContext]):
    name = "broken"
    progress_weight = 0.1

    def execute(self, context: UploadContext) -> StepResult:
        return StepResult(success=False, error="no")


class BrokenUpload(BaseUploadAction[UploadParams]):
    def setup_steps(self, registry: StepRegistry[UploadContext]) -> None:
        super().setup_steps(registry)
        registry.insert_after("upload_files", Broken())


def test_an_upload_is_a_run(params: dict[str, Any], engine: Engine) -> None:
    percents: list[int] = []
    action = DefaultUploadAction(
        params, run_id="u1", engine=engine, progress_callback=lambda now, total: percents.append(now)
    )
    result = action.execute()
    storage = open_storage(params["storage"])
    assert result == {
        "success": True,
        "steps_executed": 6,
        "steps_total": 7,
        "uploaded_files": 5,
        "data_units": 5,
        "skipped_duplicates": 0,
        "failed_files": [],
        "output_path": storage.get_url("up"),
        "data_units_path": storage.get_url("up/data_units/u1.jsonl"),
    }
    assert percents == [5, 15, 20, 35, 45, 95, 100]
    again = DefaultUploadAction(params, run_id="u1", engine=engine).execute()
    assert again == result


def test_a_failure_behind_the_upload_takes_it_back(params: dict[str, Any], engine: Engine, tmp_path: Path) -> None:
    """§11.6: upload, by the runtime's own rollback."""
    storage = open_storage(params["storage"])
    storage.write("mine", b"1")
    with pytest.raises(StepFailed) as caught:
        BrokenUpload(params, engine=engine).execute()
    assert str(caught.value) == "Step 'broken' failed: no"
    assert caught.value.rollback_errors == ()
    assert {name: storage.read(name) for name in storage.list()} == {"mine": b"1"}
    assert not (tmp_path / "workspace" / "runs").exists()


def test_point_9_secrets_are_nowhere_in_the_store(source: str, engine: Engine, tmp_path: Path, s3_config: Any) -> None:
    """§11.9: a canary in the configuration of a storage."""
    storage = s3_config()
    DefaultUploadAction({"name": "up", "path": source, "storage": storage}, engine=engine).execute()
    canary = storage["configuration"]["secret_key"]
    for path in (path for path in tmp_path.rglob("runs.db*") if path.is_file()):
        assert canary.encode() not in path.read_bytes()


class Chatty(BaseUploadAction[UploadParams]):
    def setup_steps(self, registry: StepRegistry[UploadContext]) -> None:
        super().setup_steps(registry)
        registry.register(Telling())


class Telling(BaseStep[UploadContext]):
    name = "telling"
    progress_weight = 0.1

    def execute(self, context: UploadContext) -> StepResult:
        told = " ".join(context.secrets.values())
        context.log("told", {"all": told})
        return StepResult(success=False, error=told, data={"told": told})


@pytest.mark.parametrize("place", ["canary-in-the-file", "${env:CANARY}"])
def test_what_storages_are_opened_with_is_masked_everywhere(
    place: str,
    source: str,
    workspace: Path,
    engine: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    s3_config: Any,
) -> None:
    """§11.9: a canary in the workspace's storages.yaml, and one in the environment that it refers to."""
    monkeypatch.setenv("CANARY", "canary-in-the-environment")
    config = s3_config()
    config["configuration"]["secret_key"] = place
    workspace.mkdir()
    (workspace / "storages.yaml").write_text(json.dumps({"7": config}))
    with pytest.raises(StepFailed) as caught:
        Chatty({"name": "up", "path": source, "storage": 7}, engine=engine).execute()
    assert "***" in str(caught.value)
    assert "canary" not in str(caught.value)
    engine.stop()
    for path in (path for path in tmp_path.rglob("runs.db*") if path.is_file()):
        assert b"canary-in" not in path.read_bytes()
