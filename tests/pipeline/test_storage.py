from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest

from stepwell.errors import BadArguments
from stepwell.pipeline._storage_local import LocalStorage
from stepwell.pipeline.storage import Storage, open_storage


def test_a_file_goes_up_and_comes_down(storage: Storage, tmp_path: Path) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(b"abc" * 1000)
    url = storage.upload(source, "x/y/a.bin")
    assert url == storage.get_url("x/y/a.bin")
    assert storage.exists("x/y/a.bin")
    assert not storage.exists("x/y")
    assert storage.checksum("x/y/a.bin") == hashlib.sha256(b"abc" * 1000).hexdigest()
    assert storage.download("x/y/a.bin", tmp_path / "back" / "a.bin").read_bytes() == b"abc" * 1000
    storage.write("x/b", b"2")
    assert storage.list() == ["x/b", "x/y/a.bin"]
    assert storage.list("x/y") == ["x/y/a.bin"]
    assert storage.list("nothing") == []
    assert storage.below("x").list() == ["b", "y/a.bin"]
    assert storage.delete("x/y/a.bin") is True
    assert storage.delete("x/y/a.bin") is False
    assert storage.list() == ["x/b"]


def test_what_is_written_appears_when_it_is_closed(storage: Storage) -> None:
    with storage.open("a", "wb") as out:
        out.write(b"one")
        assert not storage.exists("a")
    with storage.open("a") as stream:
        assert stream.read() == b"one"
    with pytest.raises(KeyError), storage.open("a", "wb") as out:
        out.write(b"half")
        raise KeyError
    assert storage.read("a") == b"one"
    assert storage.list() == ["a"]
    with pytest.raises(BadArguments, match="mode must be 'rb' or 'wb', got 'r'"):
        storage.open("a", "r")


def test_a_large_stream_is_sent_whole(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stepwell.pipeline._storage_objects.SPOOL", 10)
    storage.put(io.BytesIO(b"0123456789abcdef"), "a")
    assert storage.read("a") == b"0123456789abcdef"


def test_what_is_not_there_is_a_file_not_found(storage: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read("missing")
    with pytest.raises(FileNotFoundError):
        storage.download("missing", tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        storage.upload(tmp_path / "missing", "x")
    assert storage.list() == []


@pytest.mark.parametrize("target", ["../a", "/a", "a/../../b", "a/..", "", ".", "C:/a", "a\\b", "memory://a", "a\0"])
def test_a_target_that_leaves_the_root_is_refused(storage: Storage, target: str, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_bytes(b"1")
    for call in (
        lambda: storage.upload(source, target),
        lambda: storage.open(target),
        lambda: storage.open(target, "wb"),
        lambda: storage.exists(target),
        lambda: storage.delete(target),
        lambda: storage.get_url(target),
    ):
        with pytest.raises(BadArguments, match="leaves the storage"):
            call()
    assert storage.list() == []


def test_a_symbolic_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(outside)
    with pytest.raises(BadArguments, match="target 'link/a' leaves the storage"):
        open_storage(root).write("link/a", b"1")
    assert list(outside.iterdir()) == []


def test_what_a_killed_process_left_is_found_again(tmp_path: Path) -> None:
    from stepwell.pipeline.storage import part_of

    storage = open_storage(tmp_path, token="run7")
    left = part_of(tmp_path / "a", "run7")
    left.write_bytes(b"half")
    assert storage.delete("a") is False
    assert list(tmp_path.iterdir()) == []


def test_folders_that_a_write_makes_are_known_before(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "root")
    assert storage.absent_folders(["a/b/c", "a/d", "e"]) == ["", "a", "a/b"]
    storage.write("a/b/c", b"1")
    assert storage.absent_folders(["a/b/c", "a/x/d"]) == ["a/x"]
    storage.remove_folders(["", "a", "a/b"])
    assert storage.exists("a/b/c")
    storage.delete("a/b/c")
    storage.remove_folders(["", "a", "a/b"])
    assert not (tmp_path / "root").exists()


def test_what_names_a_local_folder(tmp_path: Path) -> None:
    for spec in (
        str(tmp_path),
        tmp_path,
        f"file://{tmp_path}",
        {"provider": "local", "configuration": {"location": str(tmp_path)}},
        {"provider": "file_system", "configuration": {"location": str(tmp_path)}},
    ):
        storage = open_storage(spec)
        assert isinstance(storage, LocalStorage)
        assert storage.root == tmp_path.resolve()
        assert open_storage(storage) is storage


def test_an_id_is_looked_up_in_the_workspace(tmp_path: Path) -> None:
    (tmp_path / "storages.yaml").write_text(
        "7: memory://seven\nmine: {provider: local, configuration: {location: '${env:PLACE}'}}\n"
    )
    env = {"STEPWELL_DATA": str(tmp_path), "PLACE": str(tmp_path / "there")}
    assert open_storage(7, env=env).url == open_storage("7", env=env).url == "memory:///seven"
    assert open_storage("mine", env=env).url == str(tmp_path / "there")
    with pytest.raises(BadArguments, match="the environment variable PLACE is not set"):
        open_storage("mine", env={"STEPWELL_DATA": str(tmp_path)})
    with pytest.raises(BadArguments, match=f"^Failed to get storage 8: not found in {tmp_path}$"):
        open_storage(8, env=env)


@pytest.mark.parametrize(
    "spec, text",
    [
        (
            {"provider": "ftp"},
            "unknown storage provider 'ftp': known are amazon_s3, file_system, local, memory, minio, s3",
        ),
        ({"provider": "local"}, "a storage of provider 'local' needs location"),
        ({"provider": "s3", "configuration": {}}, "a storage of provider 's3' needs bucket_name"),
        (
            {"provider": "s3", "configuration": {"bucket": "b"}},
            "unknown in the configuration of a storage of provider 's3': bucket",
        ),
        ({"provider": "memory", "configuration": 1}, "the configuration of a storage is a mapping, got int"),
        ("", "the storage is empty"),
        (1.5, "a storage is a path, a URL, an id or a configuration, got float"),
    ],
)
def test_bad_specs(spec: Any, text: str) -> None:
    with pytest.raises(BadArguments) as caught:
        open_storage(spec)
    assert str(caught.value) == text


def test_a_folder_is_claimed_once(storage: Storage) -> None:
    assert storage.claim("x/y", "mark", b"1") is True
    assert storage.claim("x/y", "mark", b"2") is False
    assert storage.claim("x", "mark", b"2") is False
    assert storage.claim("z", "mark", b"3") is True
    assert {name: storage.read(name) for name in storage.list()} == {"x/y/mark": b"1", "z/mark": b"3"}
