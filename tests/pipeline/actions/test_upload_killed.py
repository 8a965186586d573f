from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stepwell.pipeline.storage import open_storage

PROGRAM = Path(__file__).with_name("upload_process.py")
FILES = 3
MOMENTS = [f"{moment}:{number}" for number in range(1, FILES + 1) for moment in ("before", "after")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(FILES):
        (folder / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    return folder


def start(tmp_path: Path, kill: str, *more: str, target: str | None = None) -> subprocess.CompletedProcess[str]:
    store, source, folder, ledger = (str(tmp_path / name) for name in ("runs.db", "source", "target", "ledger"))
    command = [sys.executable, str(PROGRAM), store, source, target or folder, ledger, kill, *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)


def sent(tmp_path: Path) -> Counter[str]:
    ledger = tmp_path / "ledger"
    return Counter(ledger.read_text().split()) if ledger.exists() else Counter()


@pytest.mark.parametrize("kill", MOMENTS)
def test_point_7_a_killed_upload_goes_on(kill: str, source: Path, tmp_path: Path) -> None:
    """§11.7, with a real process: what is on record is not sent again; what was cut off is, and only that."""
    moment, number = kill.split(":")
    assert start(tmp_path, kill).returncode == -signal.SIGKILL
    recorded = int(number) - 1
    before = sent(tmp_path)
    again = start(tmp_path, "-")
    assert (again.returncode, again.stdout) == (0, f"{FILES}\n"), again.stderr
    counts = sent(tmp_path)
    first = [f"up/file/{n}.bin" for n in range(recorded)]
    assert {name: counts[name] for name in first} == dict.fromkeys(first, 1)
    assert sum(counts.values()) == FILES + (moment == "after")
    assert len(before) == recorded + (moment == "after")
    names = sorted(path.relative_to(tmp_path / "target").as_posix() for path in (tmp_path / "target").rglob("*.*"))
    assert names == ["up/data_units/killed.jsonl", *(f"up/file/{n}.bin" for n in range(FILES))]


@pytest.mark.parametrize("kill", MOMENTS)
def test_a_killed_upload_that_fails_later_leaves_nothing(kill: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "target" / "up").mkdir(parents=True)
    (tmp_path / "target" / "up" / "mine").write_text("1")
    assert start(tmp_path, kill, "fail").returncode == -signal.SIGKILL
    again = start(tmp_path, "-", "fail")
    assert again.stdout == "StepFailed Step 'last' failed: no\n", again.stderr
    assert [path.relative_to(tmp_path / "target").as_posix() for path in (tmp_path / "target").rglob("*")] == [
        "up",
        "up/mine",
    ]


@pytest.mark.parametrize("kill", MOMENTS)
def test_a_killed_upload_that_is_cancelled_leaves_nothing(kill: str, source: Path, tmp_path: Path) -> None:
    """The step that was cut off has no result of its own; what it made goes all the same."""
    assert start(tmp_path, kill).returncode == -signal.SIGKILL
    again = start(tmp_path, "-", "cancel")
    assert again.stdout.startswith("RunCancelled"), again.stderr
    assert not (tmp_path / "target").exists()
    assert not (tmp_path / "workspace" / "runs").exists()


@pytest.mark.parametrize("fails", [False, True])
def test_an_upload_to_s3_is_killed(fails: bool, source: Path, tmp_path: Path, s3_config: Any) -> None:
    config = s3_config()
    target = json.dumps(config)
    assert start(tmp_path, "after:2", target=target).returncode == -signal.SIGKILL
    again = start(tmp_path, "-", *(["fail"] if fails else []), target=target)
    assert again.stdout == ("StepFailed Step 'last' failed: no\n" if fails else f"{FILES}\n"), again.stderr
    # The file behind which it was killed had arrived, but that was not on record yet.
    assert sent(tmp_path) == {"up/file/0.bin": 1, "up/file/1.bin": 2, "up/file/2.bin": 1}
    names = ["up/data_units/killed.jsonl", *(f"up/file/{number}.bin" for number in range(FILES))]
    assert open_storage(config).list() == ([] if fails else names)
