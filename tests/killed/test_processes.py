"""Several processes on one SQLite file."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

APP = """
from stepwell import durable_execution

def mark(i):
    with open("marks", "a") as file:
        file.write(f"{i}\\n")
    return i

@durable_execution
def handler(event, context):
    for i in range(event["n"]):
        context.step(lambda: mark(i), name=f"s{i}")
    context.wait(0.05)
    return "done"
"""


def start(folder: Path, *args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stepwell.cli", "run", "app.py:handler", "--store", "sqlite:///one.db", *args]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_with_one_id_run_each_body_once(tmp_path: Path) -> None:
    """durable.md §19.10."""
    (tmp_path / "app.py").write_text(APP)
    processes = [start(tmp_path, "--id", "same", "--input", '{"n": 20}') for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in processes] == ['"done"\n'] * 3
    assert set(Counter((tmp_path / "marks").read_text().split()).values()) == {1}
    other = start(tmp_path, "--id", "same", "--input", '{"n": 21}')
    assert "another input" in other.communicate(timeout=60)[1]
    assert other.returncode == 2


def test_sixteen_processes_write_one_file(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    processes = [start(tmp_path, "--input", '{"n": 20}') for _ in range(16)]
    for process in processes:
        out, errors = process.communicate(timeout=100)
        assert (process.returncode, out, errors) == (0, '"done"\n', "")
    assert set(Counter((tmp_path / "marks").read_text().split()).values()) == {16}
