from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stepwell.client import Engine
from stepwell.pipeline.actions.dataset import ConvertDatasetStep, DatasetAction, DatasetOperation, ExportDatasetStep
from stepwell.pipeline.steps import StepFailed


@pytest.fixture(autouse=True)
def _data_set(workspace: Path) -> None:
    for split in ("train", "valid"):
        make_dm(workspace / "datasets" / "123" / split, split)


def make_dm(folder: Path, stem: str) -> None:
    (folder / "json").mkdir(parents=True)
    (folder / "original_files").mkdir()
    box = {"id": "1", "classification": "cat", "attrs": [], "data": [1, 2, 4, 6]}
    data = {"classification": {"bounding_box": ["cat"]}, "images": [{"bounding_box": [box]}]}
    (folder / "json" / f"{stem}.json").write_text(json.dumps(data))
    Image.new("RGB", (20, 10)).save(folder / "original_files" / f"{stem}.png")


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def test_a_data_set_is_fetched(workspace: Path, engine: Engine) -> None:
    result = DatasetAction({"dataset": 123}, engine=engine).execute()
    target = workspace / "exports" / "dataset-123" / "dm"
    assert result == {
        "success": True,
        "steps_executed": 1,
        "steps_total": 1,
        "path": str(target),
        "format": "dm_v2",
        "config_path": None,
        "source_path": str(workspace / "datasets" / "123"),
        "count": 2,
        "is_categorized": True,
        "losses": [],
    }
    assert tree(target) == tree(workspace / "datasets" / "123")
    assert sorted(path.name for path in target.parent.iterdir()) == ["dm"]


def test_a_data_set_is_fetched_and_converted(workspace: Path, engine: Engine) -> None:
    params = {"dataset": 123, "operation": DatasetOperation.CONVERT, "target_format": "yolo"}
    result = DatasetAction(params, engine=engine).execute()
    target = workspace / "exports" / "dataset-123" / "yolo"
    assert (result["path"], result["format"], result["count"]) == (str(target), "yolo", 2)
    assert result["config_path"] == str(target / "dataset.yaml")
    assert result["source_path"] == str(target.with_name("dm"))
    assert (target / "train" / "labels" / "train.txt").read_text() == "0 0.150000 0.500000 0.200000 0.600000\n"


def test_a_folder_is_converted(workspace: Path, engine: Engine, tmp_path: Path) -> None:
    source = str(workspace / "datasets" / "123")
    params = {"path": source, "operation": "convert", "target_format": "coco", "output_dir": str(tmp_path / "out")}
    result = DatasetAction({**params, "splits": ["valid"]}, engine=engine).execute()
    assert (result["steps_total"], result["count"], result["source_path"]) == (1, 1, source)
    assert sorted(path.name for path in (tmp_path / "out" / "coco").iterdir()) == ["valid"]


@pytest.mark.parametrize(
    "params, text",
    [
        ({}, "Step 'dataset' failed: dataset is required in params"),
        ({"operation": "convert"}, "Step 'convert' failed: path or dataset is required for convert operation"),
        ({"dataset": 7}, "Step 'dataset' failed: Failed to get dataset 7: not found in {workspace}/datasets"),
        (
            {"dataset": 123, "splits": ["test"]},
            "Step 'dataset' failed: split 'test' not found in {workspace}/datasets/123",
        ),
    ],
)
def test_what_is_refused_writes_nothing(params: dict[str, Any], text: str, workspace: Path, engine: Engine) -> None:
    before = tree(workspace)
    with pytest.raises(StepFailed) as caught:
        DatasetAction(params, engine=engine).execute()
    assert str(caught.value) == text.format(workspace=workspace)
    assert tree(workspace) == before


def test_a_step_without_a_data_set(engine: Engine) -> None:
    class Only(DatasetAction[Any]):
        def setup_steps(self, registry: Any) -> None:
            registry.register(ConvertDatasetStep())

    with pytest.raises(StepFailed) as caught:
        Only({}, engine=engine).execute()
    assert str(caught.value) == "Step 'convert' failed: No dataset in context. ExportDatasetStep must run first."
    assert (ExportDatasetStep().progress_weight, ConvertDatasetStep().progress_weight) == (0.3, 0.2)


@pytest.mark.parametrize("former", [None, {}, {"x": b"1", "y/z": b"2"}])
def test_a_rollback_leaves_the_folders_as_they_were(
    workspace: Path, engine: Engine, tmp_path: Path, former: dict[str, bytes] | None
) -> None:
    """§11.6: dataset. The conversion fails, and what was fetched goes with it."""
    out = tmp_path / "out"
    for name, content in (former or {}).items():
        (out / "dm" / name).parent.mkdir(parents=True, exist_ok=True)
        (out / "dm" / name).write_bytes(content)
    if former is not None:
        (out / "dm").mkdir(parents=True, exist_ok=True)
    before = tree(tmp_path / "out")
    params = {"dataset": 123, "operation": "convert", "target_format": "zz", "output_dir": str(out), "overwrite": True}
    with pytest.raises(StepFailed, match="unknown format 'zz'"):
        DatasetAction(params, engine=engine).execute()
    assert tree(out) == before
    assert out.exists() == (former is not None)


def test_a_folder_with_something_in_it_needs_leave(engine: Engine, tmp_path: Path) -> None:
    target = tmp_path / "out" / "dm"
    target.mkdir(parents=True)
    (target / "x").write_text("1")
    params = {"dataset": 123, "output_dir": str(tmp_path / "out")}
    with pytest.raises(StepFailed, match=f"{target} is not empty; overwrite=True replaces it"):
        DatasetAction(params, engine=engine).execute()
    assert tree(target) == {"x": b"1"}
    DatasetAction({**params, "overwrite": True}, engine=engine).execute()
    assert not (target / "x").exists()
    assert [path.name for path in target.parent.iterdir()] == ["dm"]
