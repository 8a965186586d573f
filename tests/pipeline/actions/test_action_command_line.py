"""Action classes by import path: ``stepwell run app.py:MyUploadAction``, and what takes such a run up again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

APP = """
import os, signal
from pathlib import Path
from pydantic import BaseModel, SecretStr
from stepwell.pipeline import BaseStep, StepResult
from stepwell.pipeline.actions import BaseAction, DefaultUploadAction
from stepwell.pipeline.actions.action import ActionContext


class Checked(BaseStep):
    name, progress_weight = "checked", 0.2

    def execute(self, context):
        mark = Path("died")
        if context.param("extra_params").get("dies") and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if context.param("extra_params").get("fails"):
            raise ValueError("not these")
        return StepResult()


class MyUpload(DefaultUploadAction):
    def setup_steps(self, registry):
        super().setup_steps(registry)
        registry.register(Checked())


class Login(BaseModel):
    user: str
    password: SecretStr
    retries: int = 1


class Enter(BaseStep):
    name, progress_weight = "enter", 1

    def execute(self, context):
        password = context.param("password")
        mark = Path("died")
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        Path("entered").write_text(password)
        return StepResult(data={"length": len(password)})


class LoginAction(BaseAction[Login]):
    action_name = "login"

    def setup_steps(self, registry):
        registry.register(Enter())

    def result(self, context):
        return {"user": context.param("user")}


class Empty(BaseAction[Login]):
    pass
"""


class Shell:
    """Commands in a folder of their own, with files to send."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "files").mkdir()
        for name in ("a", "b", "c"):
            (folder / "files" / f"{name}.txt").write_text(f"this is {name}")
        self.params = {"name": "up", "path": str(folder / "files"), "storage": str(folder / "out")}

    def __call__(self, *words: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
        whole = {**os.environ, "STEPWELL_STORE": f"sqlite:///{self.folder}/s.db", **environ}
        return subprocess.run(
            [sys.executable, "-m", "stepwell.cli", *words],
            cwd=cwd or self.folder, env=whole, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip

    def upload(self, **extra: object) -> subprocess.CompletedProcess[str]:
        params = {**self.params, "extra_params": extra}
        return self("run", "app.py:MyUpload", "--id", "r", "--input", json.dumps(params))

    def sent(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "out").rglob("*.txt"))

    def shown(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self("show", run_id, "--json").stdout)
        return found

    def holds(self, text: str) -> list[str]:
        """Files that have the text in them."""
        return [
            path.name for path in self.folder.glob("s.db*") if path.is_file() and text.encode() in path.read_bytes()
        ]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_the_plan_of_an_action(shell: Shell) -> None:
    done = shell("plan", "app.py:MyUpload", "--input", json.dumps(shell.params), "--json")
    names = [(step["name"], step["weight"]) for step in json.loads(done.stdout)]
    assert names == [
        ("initialize", 0.05), ("validate_files", 0.1), ("analyze_collection", 0.05), ("organize_files", 0.15),
        ("generate_data_units", 0.1), ("upload_files", 0.5), ("process_metadata", 0.05), ("checked", 0.2),
    ]  # fmt: skip
    assert not (shell.folder / "s.db").exists()


def test_a_run_prints_what_the_action_gives(shell: Shell, workspace: Path) -> None:
    done = shell.upload()
    found = json.loads(done.stdout)
    assert (done.returncode, found["success"], found["steps_executed"], found["steps_total"]) == (0, True, 7, 8)
    assert (found["uploaded_files"], found["data_units"], found["failed_files"]) == (3, 3, [])
    assert done.stderr.splitlines()[-1] == "100 %  checked  succeeded"
    assert shell.sent() == ["a.txt", "b.txt", "c.txt"]
    assert not (workspace / "runs").exists(), "what was kept for a rollback is gone"
    shown = shell.shown("r")
    assert shown["output"] == found
    assert shown["input"] == {**shell.params, "extra_params": {}}
    assert shown["target"] == f"{shell.folder}/app.py:MyUpload"
    assert shell.upload().stdout == done.stdout, "a second time it is the same run"


@pytest.mark.parametrize("command", [("resume", "r"), ("worker", "--drain")])
def test_a_killed_run_is_taken_up_from_anywhere(shell: Shell, tmp_path: Path, command: tuple[str, ...]) -> None:
    assert shell.upload(dies=True).returncode == -9
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "died").touch()
    done = shell(*command, cwd=elsewhere)
    assert done.returncode == 0, done.stderr
    assert shell.shown("r")["output"]["uploaded_files"] == 3
    assert shell.sent() == ["a.txt", "b.txt", "c.txt"]


def test_a_failed_run_is_rolled_back_and_retried_as_a_new_one(shell: Shell) -> None:
    done = shell.upload(fails=True)
    assert done.returncode == 1
    assert "error: Step 'checked' failed: not these" in done.stderr
    assert shell.sent() == []
    (shell.folder / "app.py").write_text(APP.replace('raise ValueError("not these")', "pass"))
    again = shell("retry", "r")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["uploaded_files"] == 3
    assert shell.sent() == ["a.txt", "b.txt", "c.txt"]


def test_all_problems_of_the_parameters_are_told_and_nothing_is_written(shell: Shell) -> None:
    done = shell("run", "app.py:MyUpload", "--input", '{"name": " ", "zz": 1}')
    assert done.returncode == 2
    assert "name: must not be blank" in done.stderr
    assert "zz: Extra inputs are not permitted" in done.stderr
    assert shell("run", "app.py:MyUpload", "--input", "[1]").returncode == 2
    empty = shell("run", "app.py:Empty", "--input", '{"user": "u", "password": "secret-canary"}')
    assert empty.returncode == 2
    assert "app:Empty: No steps registered. Override setup_steps()" in empty.stderr
    assert json.loads(shell("ls", "--json").stdout) == []


def test_secrets_are_given_again(shell: Shell) -> None:
    given = '{"user": "u", "password": "secret-canary"}'
    assert shell("run", "app.py:LoginAction", "--id", "r", "--input", given).returncode == -9
    assert shell.holds("secret-canary") == []
    assert shell.holds("LoginAction"), "the search finds what is there"
    assert shell.shown("r")["input"] == {"user": "u", "password": "***"}
    refused = shell("resume", "r")
    assert refused.returncode == 2
    assert "run r was given secrets that are not recorded (password); give them again" in refused.stderr
    assert f"stepwell run {shell.folder}/app.py:LoginAction --id r --input" in refused.stderr
    assert shell("worker", "--drain").returncode == 0
    assert shell.shown("r")["status"] == "interrupted", "no worker takes it up"
    done = shell("run", "app.py:LoginAction", "--id", "r", "--input", given)
    assert (done.returncode, json.loads(done.stdout)["user"]) == (0, "u")
    assert (shell.folder / "entered").read_text() == "secret-canary"
    assert shell.holds("secret-canary") == []
    detached = shell("run", "app.py:LoginAction", "--detach", "--input", given)
    assert detached.returncode == 2
    assert "its secrets are not recorded\n  give them as ${env:NAME}" in detached.stderr


def test_a_secret_from_the_environment_need_not_be_given_again(shell: Shell) -> None:
    given = '{"user": "u", "password": "${env:CANARY}"}'
    assert shell("run", "app.py:LoginAction", "--id", "r", "--input", given, CANARY="secret-canary").returncode == -9
    done = shell("worker", "--drain", CANARY="secret-canary")
    assert done.returncode == 0, done.stderr
    assert shell.shown("r")["status"] == "succeeded"
    assert (shell.folder / "entered").read_text() == "secret-canary"
    assert shell.holds("secret-canary") == []


def test_who_takes_a_run_up_without_its_secrets_blocks_it(shell: Shell) -> None:
    """The queue was named by hand, so that a worker gets it all the same."""
    given = '{"user": "u", "password": "secret-canary"}'
    words = ("run", "app.py:LoginAction", "--id", "r", "--queue", "default", "--input", given)
    assert shell(*words).returncode == -9
    shell("worker", "--drain")
    shown = shell.shown("r")
    assert shown["status"] == "blocked"
    assert "password: a secret is not recorded; give it again, or as ${env:NAME}" in shown["reason"]
    assert shown["rollback"] == []
