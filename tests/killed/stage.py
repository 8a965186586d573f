"""Real processes for the tests of this ring, and what they left behind: their ledger and their journals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from stepwell import Engine
from stepwell.core import decode_records
from stepwell.testing._invariants import check_run
from tests.killed import actor

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class Actor:
    """One process that plays a part of `actor`. ``with`` ends it for certain."""

    def __init__(self, **command: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.killed.actor", json.dumps(command)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self) -> str:
        """The next line that it says. Blocks."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"it has ended: {self.process.communicate()[1]}"
        return line.rstrip("\n")

    def tell(self) -> None:
        """Give it the line that it waits for."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def freeze(self) -> None:
        """Stop it with SIGSTOP; returns when it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)

    def thaw(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> tuple[int, str, str]:
        """Close its stdin and wait for its end: exit code, what it said since, what it complained of."""
        out, errors = self.process.communicate()
        return self.process.returncode, out, errors


class Ledger:
    """The file to which bodies append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self, tag: str) -> list[tuple[int, str, int]]:
        """``(pid, key, nanoseconds)`` of all lines with this tag, in order."""
        split = [line.split(" ") for line in self.path.read_text().splitlines()]
        return [(int(pid), key, int(at)) for pid, found, key, at in split if found == tag]

    def count(self, tag: str) -> Counter[str]:
        """How often each key has a line with this tag."""
        return Counter(key for _, key, _ in self.lines(tag))

    def at(self, tag: str, key: str) -> int:
        """When the one line was written, in nanoseconds."""
        (found,) = [at for _, found, at in self.lines(tag) if found == key]
        return found


@contextmanager
def looking(store: str, **options: Any) -> Iterator[Engine]:
    """An engine of the test's own process."""
    engine = Engine(
        store,
        functions=[actor.gated, actor.whose, actor.sleeper, actor.counted, actor.charging, actor.awaiting],
        **options,
    )
    try:
        yield engine
    finally:
        engine.stop()


def gate_at(path: Path) -> Path:
    """A gate for bodies: opening it to write waits until a body stands there, closing it lets the body go on."""
    os.mkfifo(path)
    return path


def succeeded(engine: Engine, run_id: str) -> Counter[str]:
    """How often the success of each step is on record."""
    return Counter(str(r["key"]) for r in engine.get_run(run_id).history() if r["record"] == "StepSucceeded")


def lives(engine: Engine, run_id: str) -> list[str]:
    """How the run changed hands, in order: ``start``, ``dead``, ``expired``, ``takeover``…"""
    field = {"LifeStarted": "why", "LifeLost": "how"}
    return [str(r[field[r["record"]]]) for r in engine.get_run(run_id).history() if r["record"] in field]


def violations(engine: Engine, run_id: str) -> list[str]:
    """What the run's journal breaks of P1, P3, P5, P6 and P7."""
    row = engine.find(run_id)
    rows = [(entry.seq, entry.epoch, decode_records(entry.data)) for entry in engine.store.record_load(row.rid)]
    return [str(one) for one in check_run(rows, open=row.ended_at is None, hot=engine.store.hot_get(run_id))]
