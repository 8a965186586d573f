"""The bar on a terminal, through a pseudo-terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.terminal import Terminal

if TYPE_CHECKING:
    from pathlib import Path

APP = """
from pathlib import Path

from stepwell import durable_execution

@durable_execution
def handler(event, context):
    for n in range(3):
        context.step(lambda: None, name=f"quick{n}")
    print("half way")
    word = context.step(lambda: Path("gate").read_text(), name="slow", weight=3)
    return word
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    os.mkfifo(tmp_path / "gate")
    return tmp_path


def open_gate(folder: Path) -> None:
    (folder / "gate").write_text("open")


def command(folder: Path, *args: str) -> None:
    env = {**os.environ, "STEPWELL_STORE": "sqlite:///store.db"}
    subprocess.run([sys.executable, "-m", "stepwell.cli", *args], cwd=folder, env=env, check=True, timeout=60)


def test_run_draws_a_weighted_bar_with_what_is_left(folder: Path) -> None:
    terminal = Terminal(folder, "run", "app.py:handler", "--id", "r")
    terminal.until("r  slow", "75 %", "about ", "left", "━")
    open_gate(folder)
    assert terminal.end() == (0, 'half way\n"open"\n'), "stdout is as it is without a terminal"
    assert "\x1b[?25l" not in terminal.seen, "the cursor stays: a killed process could not bring it back"


def test_what_is_printed_stands_above_the_bar(folder: Path) -> None:
    terminal = Terminal(folder, "run", "app.py:handler", "--id", "r", stdout=True)
    terminal.until("75 %", "half way")
    open_gate(folder)
    assert terminal.end()[0] == 0
    last = terminal.seen.rstrip().splitlines()[-1]
    assert last.endswith('"open"'), "and the result is the last thing there"


def test_resume_and_wait_draw_it_too(folder: Path) -> None:
    command(folder, "run", "app.py:handler", "--id", "r", "--detach")
    driver = Terminal(folder, "resume", "r")
    driver.until("r  slow", "75 %")
    watcher = Terminal(folder, "wait", "r")
    watcher.until("r  slow", "75 %")
    open_gate(folder)
    assert driver.end() == (0, 'half way\n"open"\n')
    assert watcher.end() == (0, "succeeded\n")


@pytest.mark.parametrize("args, term", [(["--json"], "xterm"), ([], "dumb")])
def test_programs_and_dumb_terminals_get_none(folder: Path, args: list[str], term: str) -> None:
    terminal = Terminal(folder, "run", "app.py:handler", "--id", "r", *args, term=term)
    open_gate(folder)
    code, _out = terminal.end()
    assert code == 0
    assert "%" not in terminal.seen
    assert "\x1b" not in terminal.seen


def test_an_interruption_ends_the_bar_first(folder: Path) -> None:
    terminal = Terminal(folder, "run", "app.py:handler", "--id", "r")
    terminal.until("75 %")
    terminal.process.terminate()
    assert terminal.end()[0] == 143
    assert terminal.seen.rstrip().endswith("interrupted; continue with: stepwell resume r")
