"""Pipelines by import path: run, plan, show, logs, resume and retry on the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

APP = """
from dataclasses import dataclass, field
from pathlib import Path
import os, signal
from stepwell.pipeline import BaseStep, BaseStepContext, Orchestrator, StepRegistry, StepResult, pipeline


@dataclass
class Work(BaseStepContext):
    folder: str = ""
    fails: bool = False
    dies: bool = False
    seen: list = field(default_factory=list)


class One(BaseStep):
    progress_weight = 1
    name = "one"

    def execute(self, context):
        (Path(context.folder) / "one").open("a").write("x")
        context.log("made", {"what": "one"}, "one")
        context.set_metrics({"made": 1})
        context.seen.append("one")
        return StepResult(data={"n": 1})

    def rollback(self, context, result):
        (Path(context.folder) / "one").unlink()


class Two(BaseStep):
    progress_weight = 3
    name = "two"

    def execute(self, context):
        mark = Path(context.folder) / "died"
        if context.dies and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if context.fails:
            raise ValueError("no two")
        return StepResult()


def build(folder, fails=False, dies=False, runtime_ctx=None):
    registry = StepRegistry()
    registry.register(One())
    registry.register_group("g", [Two()])
    return registry, Work(runtime_ctx, folder=folder, fails=fails, dies=dies)


@pipeline
def marked(runtime_ctx):
    return Orchestrator(*build("/tmp", runtime_ctx=runtime_ctx), name="marked")


def wrong():
    return 3


three = 3
"""


class Shell:
    """Commands in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "out").mkdir()

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "STEPWELL_STORE": f"sqlite:///{self.folder}/s.db"}
        return subprocess.run(
            [sys.executable, "-m", "stepwell.cli", *words],
            cwd=self.folder, env=environ, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip

    def run(self, **given: object) -> subprocess.CompletedProcess[str]:
        return self(
            "run", "app.py:build", "--id", "r", "--input", json.dumps({"folder": f"{self.folder}/out", **given})
        )


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_plan_runs_nothing(shell: Shell) -> None:
    done = shell("plan", "app.py:build", "--input", '{"folder": "x"}', "--json")
    assert json.loads(done.stdout) == [
        {"name": "one", "weight": 1, "group": None},
        {"name": "two", "weight": 3, "group": "g"},
    ]
    assert not (shell.folder / "s.db").exists()


def test_a_run_and_what_is_shown_of_it(shell: Shell) -> None:
    done = shell.run()
    assert (done.returncode, json.loads(done.stdout)) == (0, {"success": True, "steps_executed": 2, "steps_total": 2})
    assert done.stderr == " 25 %  one  succeeded\n100 %  two  succeeded\n"
    shown = json.loads(shell("show", "r", "--json").stdout)
    assert (shown["door"], shown["status"], shown["input"]) == (
        "pipeline",
        "succeeded",
        {"folder": f"{shell.folder}/out"},
    )
    assert shown["steps"] == [
        {"name": "one", "status": "succeeded", "weight": 1, "attempts": 1, "data": {"n": 1}, "error": None},
        {"name": "two", "status": "succeeded", "weight": 3, "attempts": 1, "data": {}, "error": None},
    ]
    assert shown["rollback"] == []
    assert shown["metrics"] == {"one": {"made": 1}}
    (line,) = shell("logs", "r", "--json").stdout.splitlines()
    entry = json.loads(line)
    assert entry.pop("time").endswith("Z")
    assert entry == {"step": "one", "event": "made", "data": {"what": "one"}, "file": "one"}
    assert shell.run().stdout == done.stdout
    assert (shell.folder / "out" / "one").read_text() == "x"


def test_a_failed_run_says_what_was_undone_and_what_comes_next(shell: Shell) -> None:
    done = shell.run(fails=True)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        " 25 %  one  succeeded",
        " 25 %  two  failed",
        "rollback of one: done",
        "error: Step 'two' failed: no two",
        "  stepwell show r",
        "  stepwell retry r",
    ]
    assert not (shell.folder / "out" / "one").exists()
    shown = json.loads(shell("show", "r", "--json").stdout)
    assert [step["status"] for step in shown["steps"]] == ["succeeded", "failed"]
    assert shown["rollback"] == [{"step": "one", "status": "done", "error": None}]
    again = shell("retry", "r")
    assert again.returncode == 1
    assert "run r was rolled back; its work is done anew by run" in again.stderr


def test_a_killed_run_is_resumed_by_its_id(shell: Shell) -> None:
    assert shell.run(dies=True).returncode == -9
    done = shell("resume", "r")
    assert (done.returncode, json.loads(done.stdout)["steps_executed"]) == (0, 2)
    assert (shell.folder / "out" / "one").read_text() == "x"


def test_a_worker_takes_up_what_a_killed_process_left(shell: Shell) -> None:
    assert shell.run(dies=True).returncode == -9
    assert shell("worker", "--drain").returncode == 0
    assert json.loads(shell("show", "r", "--json").stdout)["status"] == "succeeded"


@pytest.mark.parametrize(
    "target, text",
    [
        ("app.py:wrong", "app:wrong must return an Orchestrator or (registry, context), got int"),
        (
            "app.py:three",
            "app.py:three is a int, no durable function, no action and no function that builds a pipeline",
        ),
        ("app.py:build", "missing a required argument: 'folder'"),
    ],
)
def test_what_is_no_pipeline(shell: Shell, target: str, text: str) -> None:
    done = shell("run", target)
    assert done.returncode == 2
    assert text in done.stderr


def test_a_scripts_run_is_continued_by_the_script_alone(shell: Shell) -> None:
    script = shell.folder / "script.py"
    script.write_text(
        "from app import *\nimport sys\nregistry, context = build(sys.argv[1], dies=True)\n"
        "print(Orchestrator(registry, context, run_id='s').execute())\n"
    )
    environ = {**os.environ, "STEPWELL_STORE": f"sqlite:///{shell.folder}/s.db"}
    command = [sys.executable, str(script), str(shell.folder / "out")]
    first = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=100)
    assert first.returncode == -9
    assert json.loads(shell("ls", "--json").stdout)[0]["status"] == "interrupted"
    refused = shell("resume", "s")
    assert refused.returncode == 2
    assert f"run s goes on when the script {script} is run again with the same run_id" in refused.stderr
    assert shell("worker", "--drain").returncode == 0
    assert json.loads(shell("show", "s", "--json").stdout)["status"] == "interrupted"
    second = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=100)
    assert second.stdout == "{'success': True, 'steps_executed': 2, 'steps_total': 2}\n"
