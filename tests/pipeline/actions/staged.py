"""A stage for each action: a workspace, something to do, and a target that holds something already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.pipeline.actions.test_dataset import make_dm


def _dataset(root: Path) -> dict[str, Any]:
    for split in ("train", "valid"):
        make_dm(root / "workspace" / "datasets" / "1" / split, split)
    for name in ("dm/old", "yolo/old"):
        _file(root / "target" / name)
    return {"dataset": 1, "operation": "convert", "output_dir": str(root / "target"), "overwrite": True}


def _train(root: Path) -> dict[str, Any]:
    params = _dataset(root)
    del params["operation"]
    _file(root / "model" / "best.bin", "weights")
    _file(root / "model" / "more" / "labels.txt", "a b c")
    return {**params, "checkpoint": str(root / "model")}


def _tasks(root: Path) -> None:
    for number in (1, 2):
        _file(root / "workspace" / "tasks" / "9" / f"{number}.json", json.dumps({"id": number, "data": {"n": number}}))


def _export(root: Path) -> dict[str, Any]:
    _tasks(root)
    _file(root / "target" / "out" / "mine")
    return {"name": "out", "storage": str(root / "target"), "target": "task", "project": 9}


def _add_task_data(root: Path) -> dict[str, Any]:
    _tasks(root)
    _file(root / "annotations.json", '{"1": {"x": 1}, "2": {"x": 2}}')
    return {"project": 9, "path": str(root / "annotations.json")}


def _upload(root: Path) -> dict[str, Any]:
    (root / "workspace").mkdir()
    for number in range(3):
        _file(root / "in" / f"{number}.bin", f"new {number}")
    _file(root / "meta.csv", "filename,camera\n1.bin,left\n")
    _file(root / "target" / "up" / "file" / "1.bin")
    given = {"name": "up", "path": str(root / "in"), "storage": str(root / "target"), "overwrite": True}
    return {**given, "excel_metadata_path": str(root / "meta.csv"), "upload_max_workers": 1}


def _file(path: Path, text: str = "former") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


STAGES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "add_task_data": _add_task_data,
    "dataset": _dataset,
    "export": _export,
    "train": _train,
    "upload": _upload,
}
"""By action: makes the stage, and gives the parameters."""
