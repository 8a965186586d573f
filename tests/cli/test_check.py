"""``stepwell check`` as a program: old code makes runs, new code is checked against them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden" / "check.txt"
HEAD = "from stepwell import durable_execution\n\n"
OLD = """
@durable_execution
def order(event, context):
    context.step(lambda _: 1, name="reserve")
    context.step(lambda _: 2, name="charge")
    context.wait(9000, "delivery")

@durable_execution
async def mail(event, context):
    await context.step(lambda _: 1, name="write")
    await context.wait(9000, "monday")

@durable_execution
def report(event, context):
    context.step(lambda _: 1, name="load")
    context.wait(9000, "tomorrow")
"""
NEW = """
@durable_execution
def order(event, context):
    print("a handler prints what it likes")
    context.step(lambda _: 1 / 0, name="charge_card")
    context.wait(9000, "delivery")
    context.step(lambda _: 1 / 0, name="thank")

@durable_execution
async def mail(event, context):
    await context.step(lambda _: 1, name="write")
    await context.wait(9000, "monday")

@durable_execution
def report(event, context):
    context.wait(9000, "load")
"""


def call(folder: Path, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "100", "STEPWELL_STORE": "sqlite:///store.db"}
    command = [sys.executable, "-m", "stepwell.cli", *args]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of old code that wait, and the new code."""
    made = tmp_path_factory.mktemp("check")
    app = made / "app.py"
    app.write_text(HEAD + OLD)
    for name in ("order", "mail", "report"):
        call(made, "run", f"app.py:{name}", "--id", f"{name}-1", "--no-wait", code=5)
    app.write_text(HEAD + NEW)
    (made / "other.py").write_text(HEAD + "@durable_execution\ndef alone(context):\n    pass\n")
    return made


def test_what_it_prints(folder: Path) -> None:
    done = call(folder, "check", "app.py", code=2)
    text = f"{done.stdout}--- stderr\n{done.stderr}"
    if os.environ.get("STEPWELL_GOLDEN") == "write":
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8")


def test_for_programs(folder: Path) -> None:
    found = {run["run"]: run for run in json.loads(call(folder, "check", "app.py", "--json", code=2).stdout)}
    assert {name: run["verdict"] for name, run in found.items()} == {
        "order-1": "CHANGED",
        "mail-1": "SAFE",
        "report-1": "BROKEN",
    }
    assert found["order-1"]["changes"] == [
        {"change": "renamed", "key": "charge", "kind": "step", "name": "charge", "to": "charge_card"},
        {"change": "removed", "key": "reserve", "kind": "step", "name": "reserve"},
    ]
    assert found["mail-1"]["goes_on"] == "monday"
    assert "was recorded as step" in found["report-1"]["error"]


def test_nothing_is_written(folder: Path) -> None:
    def stored() -> list[Any]:
        """All of each run but what is worked out when it is looked at (the time that is left)."""
        texts = [call(folder, "export", f"{name}-1").stdout for name in ("order", "mail", "report")]
        return [{**json.loads(text), "run": None} for text in texts]

    before = stored()
    call(folder, "check", "app.py", code=2)
    assert stored() == before


def test_only_runs_of_the_app(folder: Path) -> None:
    done = call(folder, "check", "other.py")
    assert (done.stdout, done.stderr) == ("", "no open runs of other.py\n")
    assert json.loads(call(folder, "check", "other.py", "--json").stdout) == []


def test_what_cannot_be_checked(folder: Path) -> None:
    assert "no such file" in call(folder, "check", "gone.py", code=2).stderr
    assert not list(folder.glob("gone*"))
