"""A pipeline's bars on a terminal, through a pseudo-terminal: the whole by weight, the step, and both down again."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.cli.terminal import Terminal

APP = """
from dataclasses import dataclass
from pathlib import Path

from stepwell.pipeline import BaseStep, BaseStepContext, Orchestrator, StepRegistry, StepResult


@dataclass
class Work(BaseStepContext):
    fails: bool = False


class Step(BaseStep):
    name = ""
    progress_weight = 0.0

    def __init__(self, name, weight):
        self.name, self.progress_weight = name, weight

    def can_skip(self, context):
        return self.name == "none"

    def execute(self, context):
        context.log("begun", {"step": self.name}, "a\\x1b[2Jfile")
        context.set_progress(1, 4)
        Path(self.name).read_text()
        if context.fails and self.name == "last":
            raise ValueError("no")
        return StepResult()


class Reversible(Step):
    def rollback(self, context, result):
        context.log("going", {"step": self.name})
        context.set_progress(1, 2)
        Path("undo-" + self.name).read_text()


def build(fails=False, runtime_ctx=None):
    registry = StepRegistry()
    registry.register(Reversible("first", 0.2))
    registry.register(Step("none", 0.2))
    registry.register_group("both", [Reversible("left", 0.1), Step("right", 0.1)], max_workers=1)
    registry.register(Step("last", 0.4))
    return Orchestrator(registry, Work(runtime_ctx, fails=fails), name="shown")
"""
GATES = ("first", "left", "right", "last", "undo-left", "undo-first")
BAR = re.compile(r"(\S[^\n\r━╸╺]*?) +[━╸╺]+ +([\d.]+) %")


class Bars(Terminal):
    """A terminal on which two bars are read, and a pipeline that waits in each step."""

    def both(self, whole: float, name: str, step: float) -> None:
        """Read on until the bars stand so."""
        while self.standing() != [("r", whole), (name, step)]:
            self.read()

    def standing(self) -> list[tuple[str, float]]:
        """The two bars that were drawn last."""
        return [(name, float(percent)) for name, percent in BAR.findall(plain(self.seen))[-2:]]


def plain(text: str) -> str:
    """Without colours and the moves of the cursor."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    for name in GATES:
        os.mkfifo(tmp_path / name)
    return tmp_path


def test_the_whole_and_the_step_are_drawn_by_weight(folder: Path) -> None:
    terminal = Bars(folder, "run", "app.py:build", "--id", "r")
    for name, shown, whole, step in (
        ("first", "first", 5, 25),
        ("left", "both", 42.5, 12.5),
        ("right", "both", 52.5, 62.5),
        ("last", "last", 70, 25),
    ):
        terminal.both(whole, shown, step)
        (folder / name).write_text("go")
    assert terminal.end() == (0, '{"success":true,"steps_executed":4,"steps_total":5}\n')


def test_both_go_down_again_in_rollback_and_events_stand_above_them(folder: Path) -> None:
    terminal = Bars(folder, "run", "app.py:build", "--id", "r", "--input", '{"fails": true}', stdout=True)
    for name in ("first", "left", "right"):
        (folder / name).write_text("go")
    terminal.both(70, "last", 25)
    (folder / "last").write_text("go")
    terminal.both(45, "rollback of left", 50)
    (folder / "undo-left").write_text("go")
    terminal.both(10, "rollback of first", 50)
    (folder / "undo-first").write_text("go")
    code, _ = terminal.end()
    assert code == 1
    text = plain(terminal.seen).replace("\r", "\n")
    said = re.findall(r"^(\w+: (?:begun|going) .*?)\s*$", text, re.MULTILINE)
    assert said == [
        *(f'{name}: begun {{"step":"{name}"}} (a[2Jfile)' for name in ("first", "left", "right", "last")),
        *(f'{name}: going {{"step":"{name}"}}' for name in ("left", "first")),
    ], "each once, in order, and without what would move the cursor"
    assert [line for line in text.splitlines() if line][-5:] == [
        "rollback of left: done",
        "rollback of first: done",
        "error: Step 'last' failed: no",
        "  stepwell show r",
        "  stepwell retry r",
    ]
    assert "  last  failed" not in text, "no plain lines beside the bars"


def test_who_waits_sees_the_same(folder: Path) -> None:
    driver = Bars(folder, "run", "app.py:build", "--id", "r")
    driver.both(5, "first", 25)
    watcher = Bars(folder, "wait", "r")
    watcher.both(5, "first", 25)
    for name in ("first", "left", "right", "last"):
        (folder / name).write_text("go")
    assert driver.end()[0] == 0
    assert watcher.end() == (0, "succeeded\n")


def test_a_dumb_terminal_gets_plain_lines(folder: Path) -> None:
    terminal = Terminal(folder, "run", "app.py:build", "--id", "r", term="dumb")
    for name in ("first", "left", "right", "last"):
        (folder / name).write_text("go")
    assert terminal.end()[0] == 0
    assert [line.strip() for line in terminal.seen.splitlines()] == [
        "20 %  first  succeeded",
        "40 %  none  skipped",
        "50 %  left  succeeded",
        "60 %  right  succeeded",
        "100 %  last  succeeded",
    ]


def test_a_run_that_is_taken_up_tells_no_event_again(folder: Path) -> None:
    first = Bars(folder, "run", "app.py:build", "--id", "r")
    (folder / "first").write_text("go")
    first.both(42.5, "both", 12.5)
    first.process.terminate()
    assert first.end()[0] == 143
    assert "first: begun" in plain(first.seen)
    second = Bars(folder, "resume", "r")
    second.both(42.5, "both", 12.5)
    for name in ("left", "right", "last"):
        (folder / name).write_text("go")
    assert second.end()[0] == 0
    assert "first: begun" not in plain(second.seen)
    assert "last: begun" in plain(second.seen)
