from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import BadArguments
from stepwell.pipeline.actions.upload import DefaultUploadAction, UploadFilesStep
from stepwell.pipeline.storage import Storage, open_storage
from tests.pipeline.actions.drive_steps import Driven, Recorded

COLLECTION = {
    "file_specifications": [
        {"name": "image", "file_type": "image", "is_required": True, "is_primary": True, "extensions": ["jpg", ".PNG"]},
        {"name": "label", "file_type": "data", "extensions": ["json"]},
    ]
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    for name, content in {
        "image/a.jpg": b"a" * 10,
        "image/x/a.jpg": b"xa" * 10,
        "image/b.PNG": b"b" * 10,
        "image/.DS_Store": b"",
        "image/.git/c.jpg": b"",
        "label/a.json": b"{}",
        "label/lonely.json": b"[]",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def params(source: Path, spec: Any, **more: Any) -> dict[str, Any]:
    return {"name": "up", "path": str(source), "storage": spec, "data_collection": COLLECTION, "retry_delay": 0} | more


def contents(storage: Storage) -> dict[str, bytes]:
    return {name: storage.read(name) for name in storage.list()}


def lines(storage: Storage, target: str = "up/data_units/run-1.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in storage.read(target).splitlines()]


def test_files_arrive_as_units(source: Path, storage_spec: Any) -> None:
    run = Driven(DefaultUploadAction(params(source, storage_spec)))
    storage = open_storage(storage_spec)
    assert run.failure is None
    assert storage.list() == [
        "up/data_units/run-1.jsonl",
        "up/image/a.jpg",
        "up/image/b.PNG",
        "up/image/x/a.jpg",
        "up/label/a.json",
    ]
    assert run.output == {
        "uploaded_files": 4,
        "data_units": 3,
        "skipped_duplicates": 0,
        "failed_files": [],
        "output_path": storage.get_url("up"),
        "data_units_path": storage.get_url("up/data_units/run-1.jsonl"),
    }
    units = {unit["key"]: unit for unit in lines(storage)}
    assert list(units) == ["a", "b", "x/a"]
    assert units["a"]["files"]["image"] == {
        "path": str(source / "image/a.jpg"),
        "target": "up/image/a.jpg",
        "size": 10,
        "checksum": storage.checksum("up/image/a.jpg"),
    }
    assert len(units["a"]["id"]) == 16
    assert run.link.latest["upload_files"] == {"stand_by": 0, "success": 4, "failed": 0}
    assert ("group_dropped", {"key": "lonely", "missing": ["image"]}) in run.link.events


def test_nothing_is_sent_twice(source: Path, storage_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """§11.7: a resumed upload sends no recorded file again."""
    link = Recorded()
    Driven(DefaultUploadAction(params(source, storage_spec)), link)
    link.calls.clear()
    before = contents(open_storage(storage_spec))
    monkeypatch.setattr(type(open_storage(storage_spec)), "upload", lambda *args: pytest.fail("sent again"))
    again = Driven(DefaultUploadAction(params(source, storage_spec)), link)
    assert again.failure is None
    assert link.calls == []
    assert contents(open_storage(storage_spec)) == before


def test_a_rollback_leaves_the_storage_as_it_was(source: Path, storage_spec: Any, tmp_path: Path) -> None:
    """§11.6: upload."""
    storage = open_storage(storage_spec)
    storage.write("up/image/a.jpg", b"a" * 10)
    storage.write("up/image/b.PNG", b"former")
    storage.write("else", b"1")
    before = contents(storage)
    run = Driven(DefaultUploadAction(params(source, storage_spec, overwrite=True)), fail_after="upload_files")
    assert run.failure == "failed after upload_files"
    assert contents(storage) == before
    if isinstance(storage_spec, str) and "://" not in storage_spec:
        folders = sorted(str(p.relative_to(storage_spec)) for p in Path(storage_spec).rglob("*") if p.is_dir())
        assert folders == ["up", "up/image"]
    assert not (tmp_path / "workspace" / "runs").exists()


def test_a_storage_that_was_not_there_is_gone_again(source: Path, tmp_path: Path) -> None:
    run = Driven(DefaultUploadAction(params(source, str(tmp_path / "s"))), fail_after="process_metadata")
    assert run.failure is None
    run = Driven(DefaultUploadAction(params(source, str(tmp_path / "t"))), fail_after="upload_files")
    assert run.failure is not None
    assert not (tmp_path / "t").exists()


def test_what_is_replaced_needs_leave(source: Path, storage_spec: Any) -> None:
    storage = open_storage(storage_spec)
    storage.write("up/image/b.PNG", b"former")
    run = Driven(DefaultUploadAction(params(source, storage_spec)))
    assert run.failure == "exists with different content: up/image/b.PNG"
    assert contents(storage) == {"up/image/b.PNG": b"former"}
    run = Driven(DefaultUploadAction(params(source, storage_spec, overwrite=True)))
    assert run.failure is None
    assert storage.read("up/image/b.PNG") == b"b" * 10


def test_what_somebody_changed_meanwhile_stays(source: Path, tmp_path: Path) -> None:
    spec = str(tmp_path / "store")
    run = Driven(DefaultUploadAction(params(source, spec)))
    storage = open_storage(spec)
    storage.write("up/image/a.jpg", b"changed")
    with pytest.raises(OSError, match=r"up/image/a\.jpg was changed by somebody else and is left as it is"):
        UploadFilesStep().rollback(run.context, run.results["upload_files"])
    assert contents(storage) == {"up/image/a.jpg": b"changed"}


def _failing(monkeypatch: pytest.MonkeyPatch, spec: Any, times: int, name: str = "b.PNG") -> list[str]:
    kind = type(open_storage(spec))
    real: Callable[..., str] = kind.upload
    tried: list[str] = []

    def upload(self: Any, source: Any, target: str) -> str:
        if target.endswith(name):
            tried.append(target)
            if len(tried) <= times:
                raise ConnectionResetError("reset")
        return real(self, source, target)

    monkeypatch.setattr(kind, "upload", upload)
    return tried


def test_a_file_is_tried_again(source: Path, storage_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = _failing(monkeypatch, storage_spec, 2)
    assert Driven(DefaultUploadAction(params(source, storage_spec))).failure is None
    assert len(tried) == 3


def test_a_file_that_still_fails(source: Path, storage_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = _failing(monkeypatch, storage_spec, 99)
    run = Driven(DefaultUploadAction(params(source, storage_spec)))
    assert run.failure == "1 of 4 files failed: up/image/b.PNG: reset"
    assert len(tried) == 3
    assert open_storage(storage_spec).list() == []


def test_a_file_that_still_fails_may_be_skipped(
    source: Path, storage_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    _failing(monkeypatch, storage_spec, 99, "label/a.json")
    run = Driven(DefaultUploadAction(params(source, storage_spec, on_error="skip")))
    assert run.failure is None
    assert run.output["failed_files"] == [
        {"key": "a", "specification": "label", "path": str(source / "label/a.json"), "error": "reset"}
    ]
    storage = open_storage(storage_spec)
    assert [unit["key"] for unit in lines(storage)] == ["b", "x/a"]
    assert storage.list() == ["up/data_units/run-1.jsonl", "up/image/b.PNG", "up/image/x/a.jpg"]
    _failing(monkeypatch, storage_spec, 99, "")
    run = Driven(DefaultUploadAction(params(source, storage_spec, on_error="skip", name="other")))
    assert run.failure == "No files were successfully uploaded"


@pytest.mark.parametrize(
    "changes, text",
    [
        ({"storage": None}, "Storage parameter is required"),
        ({"path": None}, "Path parameter is required in single-path mode"),
        ({"use_single_path": False}, "Assets parameter is required in multi-path mode"),
        ({"data_collection": 7}, "Failed to get collection 7: not found in {workspace}/collections"),
        ({"project": 3}, "Failed to get project 3: not found in {workspace}/projects"),
        ({"path": "/nowhere"}, "File validation failed: /nowhere: not found"),
        ({"max_file_size_mb": 0.00001}, "File validation failed: image/x/a.jpg: 0.00 MB is more than 1e-05 MB"),
        ({"on_missing": "error"}, "File validation failed: lonely: required file image is missing"),
        (
            {"data_collection": {"file_specifications": [{"name": "../x"}]}},
            "File validation failed: '../x' cannot be the name of a file specification",
        ),
        (
            {"use_single_path": False, "assets": {"zz": {"path": "{source}/image"}}},
            "File validation failed: asset 'zz' is none of the file specifications image, label",
        ),
    ],
)
def test_what_is_refused_writes_nothing(changes: dict[str, Any], text: str, source: Path, tmp_path: Path) -> None:
    for asset in changes.get("assets", {}).values():
        asset["path"] = str(source / "image")
    run = Driven(DefaultUploadAction(params(source, str(tmp_path / "store"), **changes)))
    assert run.failure == text.format(workspace=tmp_path / "workspace")
    assert not (tmp_path / "store").exists()


def test_a_strange_extension_is_refused(source: Path, tmp_path: Path) -> None:
    (source / "image" / "c.txt").write_text("")
    run = Driven(DefaultUploadAction(params(source, str(tmp_path / "store"))))
    assert run.failure == "File validation failed: image/c.txt: extension 'txt' is not one of jpg, png"


def test_files_without_folders_of_specifications(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    root.mkdir()
    for name in ("a.jpg", "a.json", "b.jpg"):
        (root / name).write_text(name)
    run = Driven(DefaultUploadAction(params(root, str(tmp_path / "store"))))
    assert run.failure is None
    assert open_storage(tmp_path / "store").list()[1:] == ["up/image/a.jpg", "up/image/b.jpg", "up/label/a.json"]
    run = Driven(DefaultUploadAction(params(root, str(tmp_path / "plain"), data_collection=None)))
    assert [unit["key"] for unit in lines(open_storage(tmp_path / "plain"))] == ["a.jpg", "a.json", "b"]


def test_a_folder_for_each_specification(source: Path, tmp_path: Path) -> None:
    assets = {"image": {"path": str(source / "image"), "is_recursive": False}, "label": {"path": str(source / "label")}}
    run = Driven(
        DefaultUploadAction(params(source, str(tmp_path / "s"), path=None, use_single_path=False, assets=assets))
    )
    assert run.failure is None
    assert open_storage(tmp_path / "s").list()[1:] == ["up/image/a.jpg", "up/image/b.PNG", "up/label/a.json"]


def test_a_duplicate_is_left_out(source: Path, tmp_path: Path) -> None:
    (source / "image" / "z.jpg").write_bytes(b"a" * 10)
    run = Driven(DefaultUploadAction(params(source, str(tmp_path / "s"))))
    assert run.output["skipped_duplicates"] == 1
    fact = {"path": str(source / "image/z.jpg"), "same_as": str(source / "image/a.jpg")}
    assert ("duplicate_skipped", fact) in run.link.events
    run = Driven(DefaultUploadAction(params(source, str(tmp_path / "t"), skip_local_duplicates=False)))
    assert run.output["data_units"] == 4


def _sheet(path: Path, rows: list[list[Any]]) -> None:
    if path.suffix == ".csv":
        path.write_text("\ufeff" + "".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
        return
    from openpyxl import Workbook

    book = Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)
    book.close()


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_rows_of_a_sheet_go_into_the_units(source: Path, storage_spec: Any, tmp_path: Path, suffix: str) -> None:
    sheet = tmp_path / f"meta{suffix}"
    _sheet(sheet, [["File_Name", "camera", "n"], ["b.PNG", "left", 7], ["a", "right", 1.5], ["gone.jpg", "", ""]])
    more = {"excel_metadata_path": str(sheet)}
    run = Driven(DefaultUploadAction(params(source, storage_spec, **more)))
    assert run.failure is None
    units = {unit["key"]: unit["meta"] for unit in lines(open_storage(storage_spec))}
    assert units == {"a": {"camera": "right", "n": "1.5"}, "b": {"camera": "left", "n": "7"}, "x/a": units["a"]}
    assert ("metadata_unmatched", {"path": str(sheet), "names": ["gone.jpg"]}) in run.link.events
    run.context.current_step = "process_metadata"
    run.results["process_metadata"].rollback_data["former"]
    from stepwell.pipeline.actions.upload import ProcessMetadataStep

    ProcessMetadataStep().rollback(run.context, run.results["process_metadata"])
    assert [unit["meta"] for unit in lines(open_storage(storage_spec))] == [{}, {}, {}]


@pytest.mark.parametrize("text", ["", "name,x\na,1\n", '"a', "\x00"])
def test_a_sheet_that_cannot_be_used_is_an_event(source: Path, tmp_path: Path, text: str) -> None:
    sheet = tmp_path / "meta.csv"
    sheet.write_text(text)
    run = Driven(DefaultUploadAction(params(source, str(tmp_path / "s"), excel_metadata_path=str(sheet))))
    assert run.failure is None
    assert [event for event, _ in run.link.events if event == "metadata_invalid"] == ["metadata_invalid"]


def test_all_problems_of_parameters_at_once() -> None:
    with pytest.raises(BadArguments) as caught:
        DefaultUploadAction({"name": " ", "zz": 1, "on_error": "x"})
    assert caught.value.problems == (
        "name: must not be blank",
        "on_error: Input should be 'fail' or 'skip'",
        "zz: Extra inputs are not permitted",
    )
    for name in ("../x", "a/b", "..", "/a"):
        with pytest.raises(BadArguments, match=r"name: "):
            DefaultUploadAction({"name": name})


def test_secrets_of_a_configuration_are_not_in_the_recorded_parameters(source: Path) -> None:
    spec = {"provider": "s3", "configuration": {"bucket_name": "b", "secret_key": "canary", "access_key": "${env:KEY}"}}
    context = DefaultUploadAction(params(source, spec)).create_context()
    assert "canary" not in repr(context.params)
    assert context.param("storage") == spec
    context.secrets = {}
    with pytest.raises(BadArguments) as caught:
        context.param("storage")
    assert str(caught.value) == (
        "storage.configuration.secret_key is a secret and was not recorded: give it again, or as ${env:NAME}"
    )


def test_a_target_that_leaves_the_storage_is_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    store, outside = tmp_path / "store", tmp_path / "outside"
    outside.mkdir()
    (store / "up").mkdir(parents=True)
    (store / "up" / "label").symlink_to(outside)
    run = Driven(DefaultUploadAction(params(source, str(store))))
    assert run.failure == "target 'up/label/a.json' leaves the storage"
    assert sorted(path.name for path in (store / "up").iterdir()) == ["label"]
    assert list(outside.iterdir()) == []


def test_a_key_may_look_like_a_path_out_of_the_storage(source: Path, tmp_path: Path) -> None:
    action = DefaultUploadAction(params(source, str(tmp_path / "store")))
    context = action.create_context()
    context.organized_files = {"x": {"files": {"image": str(source / "image/a.jpg")}, "relative": {"image": "../../x"}}}
    from stepwell.pipeline.actions.upload import GenerateDataUnitsStep

    with pytest.raises(BadArguments, match="leaves the storage"):
        GenerateDataUnitsStep().execute(context)


def test_a_rollback_says_when_the_former_content_is_lost(source: Path, tmp_path: Path) -> None:
    store = open_storage(tmp_path / "store")
    store.write("up/image/b.PNG", b"former")
    from stepwell.pipeline.actions._transfer import Patience, make_plan, send, take_back

    files = [(str(source / "image/b.PNG"), "up/image/b.PNG")]
    plan = make_plan(store, files, overwrite=True, aside=tmp_path / "aside")
    send(store, plan["items"][0], Patience())
    assert (tmp_path / "aside" / "0.former").read_bytes() == b"former"
    (tmp_path / "aside" / "0.former").unlink()
    send(store, plan["items"][0], Patience())
    aside = tmp_path / "aside" / "0.former"
    assert take_back(store, plan) == [f"up/image/b.PNG: its former content is not at {aside} any more"]
    assert store.read("up/image/b.PNG") == b"b" * 10
