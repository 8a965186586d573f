"""Values as files: what the record says, that a file is whole and stays what was recorded, and what a crash leaves."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, Retry, RunFailed, Secret, StepConfig, durable_execution
from stepwell.durable import filesystem_serdes
from stepwell.durable.filesystem_serdes import (
    FileSystemPathEncoding,
    FileSystemSerDes,
    FileSystemSerDesConfig,
    FileSystemSerDesMode,
)
from stepwell.durable.preview import PreviewConfig, PreviewMode
from stepwell.durable.serdes import JsonSerDes, PassThroughSerDes, SerDesContext
from stepwell.errors import PayloadError, SerDesError, ValidationError

if TYPE_CHECKING:
    from tests.durable.conftest import Run

ABOUT = SerDesContext("op1", "arn:stepwell:lambda:local:000000000000:function:app.f:$LATEST/durable-execution/r/r")


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_the_record_says_where_the_text_lies(tmp_path: Path) -> None:
    serdes: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path)
    text = serdes.serialize({"a": (1, 2)}, ABOUT)
    assert text is not None
    [file] = files(tmp_path)
    assert json.loads(text) == {"file": str(file)}
    assert file.read_text() == '{"a":{"$":"tuple","v":[1,2]}}'
    assert (
        file.parent.name
        == "arn%3Astepwell%3Alambda%3Alocal%3A000000000000%3Afunction%3Aapp.f%3A%24LATEST%2Fdurable-execution%2Fr%2Fr"
    )
    assert serdes.deserialize(text, ABOUT) == {"a": (1, 2)}


def test_hashed_names_and_long_ones(tmp_path: Path) -> None:
    hashed: FileSystemSerDes[Any] = FileSystemSerDes(
        tmp_path, FileSystemSerDesConfig(path_encoding=FileSystemPathEncoding.HASH)
    )
    text = hashed.serialize(1, ABOUT)
    assert text is not None
    assert len(Path(json.loads(text)["file"]).parent.name) == 32
    long = SerDesContext("o" * 500, "é" * 500)
    other: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path)
    text = other.serialize(2, long)
    assert text is not None
    assert other.deserialize(text, long) == 2
    also = other.serialize(2, SerDesContext("o" * 500, "é" * 501))
    assert also is not None
    assert Path(json.loads(also)["file"]).parent != Path(json.loads(text)["file"]).parent


def test_overflow_writes_a_file_only_above_255_kib(tmp_path: Path) -> None:
    config = FileSystemSerDesConfig(FileSystemSerDesMode.OVERFLOW, serdes=PassThroughSerDes())
    serdes: FileSystemSerDes[str] = FileSystemSerDes(tmp_path, config)
    fits, large = "é" * (255 * 512), "é" * (255 * 512) + "x"
    text = serdes.serialize(fits, ABOUT)
    assert text is not None
    assert json.loads(text) == {"data": fits}
    assert (serdes.deserialize(text, ABOUT), files(tmp_path)) == (fits, [])
    text = serdes.serialize(large, ABOUT)
    assert text is not None
    assert (serdes.deserialize(text, ABOUT), len(files(tmp_path))) == (large, 1)


def test_the_inner_serdes_decides_about_nothing(tmp_path: Path) -> None:
    serdes: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path, FileSystemSerDesConfig(serdes=PassThroughSerDes()))
    assert serdes.serialize(None, ABOUT) is None
    with pytest.raises(SerDesError, match="is no text"):
        serdes.serialize(3, ABOUT)
    assert files(tmp_path) == []


def test_previews(tmp_path: Path) -> None:
    def preview(make: Any) -> Any:
        serdes: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path, FileSystemSerDesConfig(generate_preview=make))
        text = serdes.serialize({"name": "Ada", "card": "4111"}, ABOUT)
        assert text is not None
        assert serdes.deserialize(text, ABOUT) == {"name": "Ada", "card": "4111"}
        return json.loads(text)["preview"]

    assert preview(PreviewConfig(mask=["card"])) == {"name": "Ada", "card": "***"}
    assert preview(PreviewConfig(PreviewMode.EXCLUDE_ALL, include=["name"])) == {"name": "Ada"}
    assert preview(lambda value: {"fields": len(value)}) == {"fields": 2}


def test_a_missing_file_is_named_with_its_key(run: Run, tmp_path: Path) -> None:
    lost = [False]

    @durable_execution(name="lost")
    def handler(event: Any, context: Any) -> Any:
        value = context.step(lambda _: "kept", name="load", config=StepConfig(serdes=FileSystemSerDes(tmp_path)))
        context.wait(0.01)
        return value

    def lose() -> None:
        for file in files(tmp_path):
            file.unlink()

    class Loses:
        def on_invocation_end(self, info: Any) -> None:
            if not lost[0]:
                lost[0] = True
                lose()

    with pytest.raises(RunFailed) as caught:
        run(handler, plugins=[Loses()])
    assert isinstance(caught.value, PayloadError)
    assert "load: the file of operation" in str(caught.value)
    assert "is missing" in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_is_not_what_was_recorded_is_refused(tmp_path: Path) -> None:
    serdes: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path)
    text = serdes.serialize([1], ABOUT)
    assert text is not None
    files(tmp_path)[0].write_text("[2]")
    with pytest.raises(PayloadError, match="not what was recorded"):
        serdes.deserialize(text, ABOUT)


@pytest.mark.parametrize("recorded", ["[]", '{"file": 3}', "no json", '{"other": 1}'])
def test_text_of_another_serdes_is_refused(tmp_path: Path, recorded: str) -> None:
    with pytest.raises(PayloadError, match="not written by FileSystemSerDes"):
        FileSystemSerDes(tmp_path).deserialize(recorded, ABOUT)


def test_nothing_outside_of_the_folder_is_read(tmp_path: Path) -> None:
    outside = tmp_path / "secret-0.json"
    outside.write_text("1")
    inner: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path / "base")
    with pytest.raises(PayloadError, match="is missing"):
        inner.deserialize(json.dumps({"file": str(outside)}), ABOUT)
    with pytest.raises(PayloadError):
        inner.deserialize(json.dumps({"file": "../secret-0.json"}), ABOUT)


def test_the_folder_may_be_moved(tmp_path: Path) -> None:
    text = FileSystemSerDes(tmp_path / "here").serialize([1], ABOUT)
    assert text is not None
    (tmp_path / "here").rename(tmp_path / "there")
    assert FileSystemSerDes(tmp_path / "there").deserialize(text, ABOUT) == [1]


def test_a_folder_that_cannot_be_written_fails_the_step(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    config: StepConfig = StepConfig(serdes=FileSystemSerDes(tmp_path / "file" / "below"))
    with pytest.raises(RunFailed, match="cannot be written") as caught:
        run(lambda event, context: context.step(lambda _: 1, name="s", config=config))
    assert isinstance(caught.value, SerDesError)


class Pulled(BaseException):
    """The plug, pulled between the file and its record."""


def test_a_crash_between_file_and_record(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = filesystem_serdes._write
    bodies: list[int] = []

    def write(path: Path, data: bytes) -> None:
        real(path, data)
        if len(bodies) == 1:
            raise Pulled

    monkeypatch.setattr(filesystem_serdes, "_write", write)
    serdes: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path)

    def body() -> str:
        bodies.append(1)
        return f"attempt of life {len(bodies)}"

    handler = durable_execution(name="crash")(
        lambda event, context: context.step(body, name="s", config=StepConfig(serdes=serdes))
    )
    with pytest.raises(Pulled):
        run(handler, id="crash")
    assert len(files(tmp_path)) == 1
    assert run(handler, id="crash") == "attempt of life 2"
    assert run(handler, id="crash") == "attempt of life 2"
    assert len(files(tmp_path)) == 2  # the first one is nobody's, and nobody overwrote it


def test_a_crash_inside_the_writing_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serdes: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path)

    def fsync(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(SerDesError, match="No space left"):
        serdes.serialize("x", ABOUT)
    assert files(tmp_path) == []


def test_many_writers_of_one_place(tmp_path: Path) -> None:
    """Each reads what it has written, whoever else writes: also one whose time was up long ago."""
    serdes: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path)
    start, wrong = threading.Barrier(8), []

    def work(number: int) -> None:
        start.wait(60)
        for turn in range(20):
            value = ["same"] * 1000 if turn % 2 else [number, turn] * 1000
            text = serdes.serialize(value, ABOUT)
            assert text is not None
            if serdes.deserialize(text, ABOUT) != value:
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert [file for file in files(tmp_path) if file.suffix == ".part"] == []


@pytest.mark.filterwarnings("ignore:a secret in:RuntimeWarning")
def test_no_secret_gets_into_files_or_previews(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    engine = Engine(f"sqlite:///{tmp_path}/store.db")
    for name, inner in (("tagged", None), ("json", JsonSerDes[Any]()), ("text", PassThroughSerDes[Any]())):
        settings: Any = FileSystemSerDesConfig(generate_preview=lambda value: value, serdes=inner)
        config: StepConfig = StepConfig(serdes=FileSystemSerDes(tmp_path / "files", settings))

        def body(_: Any, name: str = name) -> Any:
            text = f"token {Secret.env('TOKEN').reveal()} of {name}"
            return text if name == "text" else {"leak": text}

        run = durable_execution(name=name)(
            lambda event, context, config=config, body=body: context.step(body, name="s", retry=Retry(1), config=config)
        )
        value = engine.run(run)
        assert "token *** of" in str(value)
    engine.stop()
    assert len(files(tmp_path / "files")) == 3
    for file in files(tmp_path):
        assert b"hunter2" not in file.read_bytes()


def test_a_reference_to_a_secret_stays_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    serdes: FileSystemSerDes[Any] = FileSystemSerDes(tmp_path, FileSystemSerDesConfig(generate_preview=PreviewConfig()))
    text = serdes.serialize({"token": Secret.env("TOKEN")}, ABOUT)
    assert text is not None
    assert json.loads(text)["preview"] == {"token": "***"}
    assert serdes.deserialize(text, ABOUT)["token"].reveal() == "hunter2hunter2"
    assert "hunter2" not in files(tmp_path)[0].read_text()


def test_bad_config(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="FileSystemSerDesConfig"):
        FileSystemSerDes(tmp_path, {"storage_mode": "ALWAYS"})  # type: ignore[arg-type]
    configs: tuple[dict[str, Any], ...] = (
        {"storage_mode": "OVERFLOW"},
        {"path_encoding": 3},
        {"generate_preview": 3},
        {"serdes": 3},
    )
    for bad in configs:
        with pytest.raises(ValidationError, match=next(iter(bad))):
            FileSystemSerDesConfig(**bad)
    folders: tuple[Any, ...] = (3, "", None)
    for folder in folders:
        with pytest.raises(ValidationError, match="base_path"):
            FileSystemSerDes(folder)
