"""A step that kills its process: five times in a row, then the run is blocked, and a person goes around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

APP = """
import os
from pathlib import Path

from stepwell import durable_execution

def begin(name):
    with Path("ledger").open("a") as ledger:
        ledger.write(name + "\\n")

def deadly():
    begin("x")
    os._exit(9)

@durable_execution
def handler(event, context):
    context.step(lambda: begin("first"), name="first")
    if event.get("branches"):
        context.parallel([lambda c: c.step(deadly, name="x")], "p")
    else:
        context.step(deadly, name="x")
    context.step(lambda: begin("last"), name="last")
    return "around it"
"""

DEATHS = 6
"""The first one comes before the step's start is on record (it rides), and counts for nobody; from then on it is."""


class Folder:
    """A store and its commands, each a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "app.py").write_text(APP)

    def __call__(self, *args: str, code: int) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "STEPWELL_STORE": "sqlite:///store.db"}
        command = [sys.executable, "-m", "stepwell.cli", *args]
        done = subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        return done

    @property
    def ledger(self) -> list[str]:
        return (self.path / "ledger").read_text().split()

    def records(self, kind: str) -> list[dict[str, object]]:
        document = json.loads(self("export", "r", code=0).stdout)
        return [record for record in document["records"] if record["record"] == kind]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("event", ["{}", '{"branches": true}'])
def test_five_deaths_block_the_run_and_retry_skip_goes_around_the_step(folder: Folder, event: str) -> None:
    for _ in range(DEATHS):
        folder("run", "app.py:handler", "--id", "r", "--input", event, code=9)
    blocked = folder("run", "app.py:handler", "--id", "r", code=1)
    assert "crashes: step 'x' ended the process 5 times" in blocked.stderr
    assert folder.ledger == ["first", *["x"] * DEATHS], "checked before the next life runs anything"
    assert len(folder.records("StepStarted")) == 2, "an attempt has one start, however often its body runs"
    shown = json.loads(folder("show", "r", "--json", code=0).stdout)
    assert (shown["status"], shown["exit_code"]) == ("blocked", 1)
    assert "run r is blocked: crashes: step 'x' ended the process 5 times; stepwell resume r" in (
        folder("doctor", code=1).stdout
    )
    folder("run", "app.py:handler", "--id", "r", code=1)
    assert len(folder.ledger) == 1 + DEATHS, "only resume and retry take it up"
    assert folder("retry", "r", "--skip", "x", code=0).stdout == '"around it"\n'
    assert folder.ledger == ["first", *["x"] * DEATHS, "last"]


@pytest.mark.timeout(180)
def test_resume_tries_again_and_a_step_that_finishes_ends_the_count(folder: Folder) -> None:
    for _ in range(DEATHS):
        folder("run", "app.py:handler", "--id", "r", code=9)
    folder("run", "app.py:handler", "--id", "r", code=1)
    folder("resume", "r", code=9)
    assert folder.ledger.count("x") == DEATHS + 1
    text = (folder.path / "app.py").read_text()
    (folder.path / "app.py").write_text(text.replace("    os._exit(9)", "    return None"))
    assert folder("resume", "r", code=0).stdout == '"around it"\n'
    assert folder.ledger == ["first", *["x"] * (DEATHS + 2), "last"]
