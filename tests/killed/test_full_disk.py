"""A disk that fills in the middle of a run (ENGINE.md §3): an append that fails is never an operation's error."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.killed.stage import looking, succeeded, violations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEPS = 400
APP = """
from pathlib import Path

from stepwell import durable_execution

def note(tag, i):
    with Path(__file__).with_name("ledger").open("a") as ledger:
        ledger.write(f"{tag} {i}\\n")

def body(i):
    note("end", i)
    return "x" * 4000

@durable_execution
def handler(event, context):
    for i in range(event["n"]):
        try:
            context.step(lambda: body(i), name=f"s{i}")
        except Exception:
            note("refund", i)
    return "done"

@durable_execution
async def handler_async(event, context):
    for i in range(event["n"]):
        try:
            await context.step(lambda: body(i), name=f"s{i}")
        except Exception:
            note("refund", i)
    return "done"

@durable_execution
def handler_map(event, context):
    def one(ctx, i):
        try:
            return ctx.step(lambda: body(i), name=f"s{i}")
        except Exception:
            note("refund", i)
    context.map(range(event["n"]), one, name="all").get_results()
    return "done"
"""

LIMITED = """
import os, resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Disk:
    """A folder on a disk that is full, until it is given room."""

    def __init__(self, folder: Path, *, mount: bool) -> None:
        self.folder = folder
        folder.mkdir()
        self.mounted = mount and self._mount()
        self.is_full = True

    def _mount(self) -> bool:
        """Whether a file system of its own can be had here."""
        if os.geteuid() != 0:
            return False
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def make_room(self) -> None:
        """From here on there is space."""
        self.is_full = False
        if self.mounted:
            subprocess.run(["mount", "-o", "remount,size=64m", str(self.folder)], check=True)

    def close(self) -> None:
        """Take it away."""
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        """A command with its store on this disk. Where it could not be mounted, no file of it may grow too large."""
        limited = [sys.executable, "-c", LIMITED] if self.is_full and not self.mounted else [sys.executable]
        command = [*limited, "-m", "stepwell.cli", *args, "--store", f"sqlite:///{self.folder}/well.db"]
        return subprocess.run(command, cwd=self.folder.parent, capture_output=True, text=True, check=False)


@contextmanager
def disk_at(folder: Path, *, mount: bool) -> Iterator[Disk]:
    disk = Disk(folder, mount=mount)
    try:
        yield disk
    finally:
        disk.close()


@pytest.mark.parametrize(
    "handler, mount", [("handler", True), ("handler", False), ("handler_async", True), ("handler_map", True)]
)
def test_the_disk_is_full_in_the_middle_of_a_run(tmp_path: Path, handler: str, mount: bool) -> None:
    """Exit code 7 and one clear line, no `except Exception` sees it; with room, `resume` repeats no finished step."""
    (tmp_path / "app.py").write_text(APP)
    event = f'{{"n": {STEPS}}}'
    with disk_at(tmp_path / "small", mount=mount) as disk:
        full = disk.cli("run", f"app.py:{handler}", "--input", event, "--id", "r")
        assert full.returncode == 7, full.stderr
        assert full.stdout == ""
        line, hint = full.stderr.splitlines()
        assert line.startswith(f"error: {disk.folder}/well.db cannot be ")
        assert "resume the run" in hint
        with looking(f"sqlite:///{disk.folder}/well.db") as engine:
            finished = [key.rpartition("s")[2] for key in succeeded(engine, "r")]
            assert 0 < len(finished) < STEPS
            assert engine.get_run("r").status == "interrupted"
        again = disk.cli("resume", "r")
        assert again.returncode == 7, again.stderr
        assert len(again.stderr.splitlines()) == 2
        disk.make_room()
        done = disk.cli("resume", "r")
        assert (done.returncode, done.stdout, done.stderr) == (0, '"done"\n', "")
        with looking(f"sqlite:///{disk.folder}/well.db") as engine:
            assert len(succeeded(engine, "r")) == STEPS
            assert set(succeeded(engine, "r").values()) == {1}
            assert not {"StepFailed", "StepRetryPlanned"} & {r["record"] for r in engine.get_run("r").history()}
            assert violations(engine, "r") == []
    ledger = Counter((tmp_path / "ledger").read_text().splitlines())
    assert set(ledger) == {f"end {i}" for i in range(STEPS)}
    assert {ledger[f"end {i}"] for i in finished} == {1}
