from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stepwell.client import Engine
from stepwell.errors import BadArguments
from stepwell.pipeline.actions.export import DefaultExportAction, ExportContext, Exporter, FinalizeStep
from stepwell.pipeline.steps import StepFailed, StepRegistry, StepResult
from stepwell.pipeline.storage import Storage, open_storage


@pytest.fixture(autouse=True)
def _items(workspace: Path) -> None:
    folder = workspace / "assignments" / "9"
    (folder / "files").mkdir(parents=True)
    for number, name in ((10, "a.jpg"), (2, "b.jpg"), (3, "a.jpg")):
        (folder / "files" / f"{number}.jpg").write_bytes(bytes([number]))
        item = {
            "id": number,
            "name": name,
            "original_file": f"files/{number}.jpg",
            "data": {"n": number},
            "status": "done",
        }
        (folder / f"{number}.json").write_text(json.dumps(item))


def params(spec: Any, **more: Any) -> dict[str, Any]:
    return {"name": "out", "storage": spec, "target": "assignment", "project": 9} | more


def contents(storage: Storage) -> dict[str, bytes]:
    return {name: storage.read(name) for name in storage.list()}


def test_items_become_files(storage_spec: Any, engine: Engine) -> None:
    percents: list[int] = []
    action = DefaultExportAction(
        params(storage_spec), engine=engine, progress_callback=lambda now, _: percents.append(now)
    )
    result = action.execute()
    storage = open_storage(storage_spec)
    assert result == {
        "success": True,
        "steps_executed": 6,
        "steps_total": 6,
        "exported_count": 3,
        "failed_count": 0,
        "total_count": 3,
        "output_path": storage.get_url("out"),
    }
    assert percents == [5, 15, 25, 55, 90, 100]
    files = contents(storage)
    assert json.loads(files.pop("out/filename_collisions.json")) == [{"id": 10, "name": "a", "saved_as": "a__10"}]
    assert {name: files[name] for name in files if "origin" in name} == {
        "out/origin_files/a.jpg": b"\x03",
        "out/origin_files/a__10.jpg": b"\x0a",
        "out/origin_files/b.jpg": b"\x02",
    }
    assert {name: json.loads(files[name]) for name in files if "json" in name} == {
        "out/json/a.json": {"n": 3},
        "out/json/a__10.json": {"n": 10},
        "out/json/b.json": {"n": 2},
    }


def test_a_taken_name_gets_a_number(storage_spec: Any, engine: Engine) -> None:
    paths = [
        DefaultExportAction(params(storage_spec, path="x/y"), engine=engine).execute()["output_path"] for _ in "123"
    ]
    storage = open_storage(storage_spec)
    assert paths == [storage.get_url(f"x/y/{name}") for name in ("out", "out(1)", "out(2)")]


def test_no_items(storage_spec: Any, engine: Engine) -> None:
    result = DefaultExportAction(params(storage_spec, filter={"status": "none"}), engine=engine).execute()
    assert (result["steps_executed"], result["steps_total"], result["total_count"]) == (3, 6, 0)
    assert open_storage(storage_spec).list() == []


@pytest.mark.parametrize(
    "wanted, found",
    [
        ({"id": 2}, [2]),
        ({"ids": ["3", 10]}, [3, 10]),
        ({"name": "a.jpg", "status": ["done", "x"]}, [3, 10]),
        ({"tags": ["x"]}, []),
    ],
)
def test_filters(wanted: dict[str, Any], found: list[int], tmp_path: Path) -> None:
    items, count = DefaultExportAction(params(str(tmp_path))).get_filtered_results(wanted)
    assert [item["id"] for item in items] == found
    assert count == len(found)


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"storage": None}, "Step 'initialize' failed: Storage parameter is required"),
        ({"target": None}, "Step 'fetch_results' failed: Target parameter is required"),
        (
            {"filter": {"zz": 1}},
            "Step 'fetch_results' failed: unknown filter 'zz'; there are id, ids, status, project, dataset, name, tags, split",
        ),
        ({"project": 8}, "Step 'fetch_results' failed: Failed to get project 8: not found in {workspace}/assignments"),
        ({"project": None}, "Step 'fetch_results' failed: project is required for target 'assignment'"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], text: str, workspace: Path, tmp_path: Path, engine: Engine) -> None:
    with pytest.raises(StepFailed) as caught:
        DefaultExportAction(params(str(tmp_path / "s"), **changes), engine=engine).execute()
    assert str(caught.value) == text.format(workspace=workspace)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../b"])
def test_a_path_that_leaves_the_storage_is_refused(path: str, tmp_path: Path) -> None:
    with pytest.raises(BadArguments, match=f"^path: target '{path}' leaves the storage$"):
        DefaultExportAction(params(str(tmp_path), path=path))


class Picky(DefaultExportAction):
    def convert_data(self, data: dict[str, Any]) -> dict[str, Any]:
        if data["id"] == 2:
            raise ValueError("no two")
        return {**data, "data": {"changed": data["id"]}}


class Loud(Exporter):
    def after_convert(self, data: dict[str, Any]) -> dict[str, Any]:
        return {**data, "data": {**data["data"], "after": True}}

    def convert_data(self, data: dict[str, Any]) -> dict[str, Any]:
        raise AssertionError("the action's own method wins")

    def additional_file_saving(self, path: str) -> None:
        (Path(path) / "more.txt").write_text("more")


class PickyLoud(Picky):
    exporter_class = Loud


def test_an_item_that_raises_is_a_failed_item(tmp_path: Path, engine: Engine, workspace: Path) -> None:
    (workspace / "assignments" / "9" / "files" / "3.jpg").unlink()
    result = PickyLoud(params(str(tmp_path / "s")), engine=engine).execute()
    assert (result["exported_count"], result["failed_count"], result["total_count"]) == (1, 2, 3)
    storage = open_storage(tmp_path / "s")
    errors = json.loads(storage.read("out/error_file_list.json"))
    assert errors["json_file_name"] == [["b.json", "no two"]]
    assert [name for name, _ in errors["origin_file_name"]] == ["a.jpg"]
    assert json.loads(storage.read("out/json/a__10.json")) == {"changed": 10, "after": True}
    assert storage.read("out/more.txt") == b"more"


class Own(DefaultExportAction):
    items: ClassVar[list[dict[str, Any]]] = []

    def get_filtered_results(self, filters: Any) -> tuple[Iterable[dict[str, Any]], int]:
        return iter(self.items), len(self.items)


def test_unsafe_names_are_failures_of_their_items(tmp_path: Path, engine: Engine) -> None:
    names = ["../up", "/abs", "a/b", ".hidden", "..", "fine", "v1.2"]
    Own.items = [{"id": number, "name": name, "data": {}} for number, name in enumerate(names)]
    result = Own(params(str(tmp_path / "s")), engine=engine).execute()
    assert (result["exported_count"], result["failed_count"]) == (2, 5)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("runs.db")) == ["s", "workspace"]
    storage = open_storage(tmp_path / "s")
    assert [name for name, _ in json.loads(storage.read("out/error_file_list.json"))["json_file_name"]] == names[:5]
    Own.items = Own.items[:2]
    with pytest.raises(StepFailed, match="Step 'save_files' failed: all 2 items failed: "):
        Own(params(str(tmp_path / "t")), engine=engine).execute()
    assert not (tmp_path / "t").exists()


class BrokenEnd(FinalizeStep):
    def execute(self, context: ExportContext) -> StepResult:
        super().execute(context)
        return StepResult(success=False, error="no")


class Broken(DefaultExportAction):
    def setup_steps(self, registry: StepRegistry[ExportContext]) -> None:
        super().setup_steps(registry)
        registry.replace("finalize", BrokenEnd())


def test_a_rollback_leaves_the_storage_as_it_was(storage_spec: Any, engine: Engine) -> None:
    """§11.6: export; even when the marker is gone."""
    storage = open_storage(storage_spec)
    with pytest.raises(StepFailed):
        Broken(params(storage_spec, path="x"), engine=engine).execute()
    assert storage.list() == []
    if storage.url.startswith("/"):
        assert not Path(storage.url).exists()
    storage.write("x/out/mine", b"1")
    with pytest.raises(StepFailed) as caught:
        Broken(params(storage_spec, path="x"), engine=engine).execute()
    assert caught.value.rollback_errors == ()
    assert contents(storage) == {"x/out/mine": b"1"}
