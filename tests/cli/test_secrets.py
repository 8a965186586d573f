"""A secret is in no file of the store, and in nothing that a command says (durable.md §19.15, P7)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "canary-4711-xyzzy"
APP = """
from stepwell import Retry, durable_execution, run
from stepwell.serde import Secret

@durable_execution
def handler(event, context):
    text = event["password"].reveal()
    context.logger.info("with %s in hand", text)
    print("printed", text)

    def login(step):
        step.logger.warning("logging in with %s", text)
        if event["fails"]:
            raise PermissionError(f"{text} was refused")
        return {"as": f"somebody with {text}"}

    context.publish("seen", {"text": text})
    return context.step(login, name="login", retry=Retry(2, delay=0.001))

if __name__ == "__main__":
    import sys
    value = {"password": Secret.env("STEPWELL_TEST_CANARY"), "fails": "fails" in sys.argv}
    print(run(handler, value, id="r"))
"""


@pytest.mark.parametrize("how", ["succeeds", "fails"])
def test_a_canary_is_nowhere(how: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    env = {**os.environ, "STEPWELL_STORE": "sqlite:///store.db", "STEPWELL_TEST_CANARY": CANARY}

    def call(*args: str) -> str:
        done = subprocess.run(
            [sys.executable, *args], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    said = call("app.py", how)
    # What user code prints itself is its own affair: everything else of the process is ours.
    said = said.replace(f"printed {CANARY}", "")
    assert ("PermissionError" in said) == (how == "fails")
    commands = [
        ["show", "r"], ["show", "r", "--json"], ["logs", "r"], ["logs", "r", "--json"], ["trace", "r"],
        ["trace", "r", "--json"], ["ls"], ["ls", "--json"], ["export", "r"], ["export", "r", "--format", "aws"],
        ["doctor"], ["wait", "r"], ["--debug", "wait", "r"], ["retry", "r", "--dry-run"], ["check", "app.py"],
    ]  # fmt: skip
    texts = {" ".join(command): call("-m", "stepwell.cli", *command) for command in commands}
    assert "***" in texts["logs r"]
    assert "logging in with" in texts["logs r"]
    texts["the run itself"] = said
    assert [name for name, text in texts.items() if CANARY in text] == []
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "app.py"]
    assert any(path.name == "store.db" for path in files)
    assert [path.name for path in files if CANARY.encode() in path.read_bytes()] == []
