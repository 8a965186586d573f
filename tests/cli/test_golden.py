"""What the commands print, held against files. ``STEPWELL_GOLDEN=write`` writes them anew."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from stepwell.cli._commands import stepwell

GOLDEN = Path(__file__).parent / "golden"
APP = """
from stepwell import Retry, durable_execution
from stepwell.durable.config import MapConfig

@durable_execution
def handler(event, context):
    context.step(lambda _: 1, name="load")
    one = lambda item_context, item, *_: item_context.step(lambda _: item, name="one")
    context.map([1, 2], one, name="each", config=MapConfig(max_concurrency=1))
    if event.get("boom"):
        context.step(lambda _: 1 / 0, name="boom", retry=Retry(2, delay=0.001))
    context.wait(event.get("wait", 0))
    return {"done": True}
"""


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("STEPWELL_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


@pytest.mark.parametrize("name", ["", *sorted(stepwell.commands)])
def test_help(name: str) -> None:
    command: click.Command = stepwell.commands[name] if name else stepwell
    info = f"stepwell {name}".rstrip()
    context = click.Context(command, info_name=info, max_content_width=100, terminal_width=100)
    compare(f"help-{name or 'stepwell'}.txt", command.get_help(context) + "\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("golden")
    (made / "app.py").write_text(APP)
    for event, name, code in (("{}", "fine", 0), ('{"boom": true}', "bad", 1), ('{"wait": 9000}', "later", 5)):
        assert call(made, "run", "app.py:handler", "--input", event, "--id", name, "--no-wait").returncode == code
    return made


def call(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "100", "STEPWELL_STORE": "sqlite:///store.db"}
    command = [sys.executable, "-m", "stepwell.cli", *args]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


OUTPUTS = [
    "ls", "ls --text fine --since 1d", "ls --tag none", "show fine", "show bad", "show later", "trace fine",
    "fork bad --at boom --id copy --dry-run", "fork bad --at each --dry-run --json",
]  # fmt: skip


@pytest.mark.parametrize("args", OUTPUTS)
def test_output(folder: Path, args: str) -> None:
    done = call(folder, *args.split())
    assert done.returncode == 0
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?", "TIME", f"{done.stdout}--- stderr\n{done.stderr}")
    text = re.sub(r"about [\d.]+ (s|min|h) left", "about T left", text)
    if args.startswith("trace"):
        text = re.sub(r"\+\d+\.\d+ +", "+TIME  ", re.sub(r"(LifeStarted|RunStarted|RunSucceeded) .*", r"\1 …", text))
        text = re.sub(r"^\d+ +", "N  ", text, flags=re.MULTILINE)  # which records share a row is a matter of time
        text = re.sub(r"(\w+=)\d{10,}", r"\1N", text)
    compare(f"{args.replace(' ', '-')}.txt", text)
