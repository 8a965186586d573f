"""Drives a run as the outside suites mean it: each wait ends the invocation, time jumps to the wake time, crashes are real.

A case that crashes is run by processes of its own: ``python -m tests.conformance.driver CASE FILE RUN EVENT``.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepwell import Engine
from stepwell.client import Parked
from stepwell.errors import RunFailed
from stepwell.journal import open_store
from stepwell.testing._clock import START, VirtualClock
from tests.conformance import crash
from tests.conformance.crash import CRASHED
from tests.conformance.requirement import ROOT

if TYPE_CHECKING:
    from stepwell.client import RunHandle
    from stepwell.durable._function import DurableFunction
    from tests.conformance.handlers import Handlers

MOST_LIVES = 20
RUN = "run"


class Lines(logging.Handler):
    """What the run's loggers said, in a file that outlives its process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        with self.path.open("a", encoding="utf-8") as out:
            out.write(f"[{record.levelname}] {record.getMessage()}\n")


def handler_of(case: str) -> DurableFunction:
    """The durable function of ``suite/number``."""
    suite, number = case.split("/")
    handlers: Handlers = import_module(f"tests.conformance.{suite}").HANDLERS
    return handlers[number]


class Played:
    """What became of a case."""

    def __init__(self, history: list[dict[str, Any]], lines: list[str]) -> None:
        self.history = history
        self.lines = lines


def play(case: str, event: Any, folder: Path, *, to_first_park: bool = False) -> Played:
    """Run the case's handler to its end, or to where it first waits."""
    handler, lines = handler_of(case), folder / "lines"
    lines.touch()
    url = f"sqlite:///{folder / 'store.db'}"
    if crash.crashes(handler):
        _processes(case, event, url, lines)
    else:
        clock = VirtualClock()
        engine = _engine(url, clock)
        try:
            handle = engine.enqueue(handler, event, id=RUN)
            with Said(lines):
                until_end(handle, clock, lives=1 if to_first_park else MOST_LIVES)
        finally:
            engine.stop()
    reader = Engine(open_store(url, read_only=True))
    try:
        history = reader.get_run(RUN).history("aws")["Events"]
    finally:
        reader.stop()
    return Played(history, lines.read_text("utf-8").splitlines())


def _engine(url: str, clock: VirtualClock) -> Engine:
    return Engine(url, hold=0, large_child_results="replay", clock=clock)


def until_end(handle: RunHandle, clock: VirtualClock, *, lives: int = MOST_LIVES) -> None:
    """Live after live, each begun when its time has come."""
    for _ in range(lives):
        try:
            handle.resume(no_wait_parked=True)
        except Parked as parked:
            assert parked.wake_at is not None
            clock.advance((parked.wake_at - clock.now()) / 1_000_000)
        except RunFailed:
            return
        else:
            return


class Said:
    """Keep the lines of the run's loggers meanwhile."""

    def __init__(self, path: Path) -> None:
        self._handler = Lines(path)
        self._logger = logging.getLogger("stepwell.run")

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self._handler)

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level)


def _processes(case: str, event: Any, url: str, lines: Path) -> None:
    """One process after the other, until one of them has come to the end of the run."""
    for number in range(MOST_LIVES):
        start = START + number * 1_000_000
        command = [
            sys.executable,
            "-m",
            "tests.conformance.driver",
            case,
            url,
            str(lines),
            str(start),
            json.dumps(event),
        ]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != CRASHED:
            assert done.returncode == 0, done.stderr
            assert number > 0, "no process ended in a body"
            return
    message = f"{case}: {MOST_LIVES} processes ended in a body"
    raise AssertionError(message)


def main(case: str, url: str, lines: str, start: str, event: str) -> None:
    """One process of a case that crashes."""
    clock = VirtualClock(int(start))
    engine = _engine(url, clock)
    crash.engine = engine
    known = engine.store.run_get(RUN) is not None
    handle = engine.get_run(RUN) if known else engine.enqueue(handler_of(case), json.loads(event), id=RUN)
    with Said(Path(lines)):
        until_end(handle, clock)
    engine.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
