"""A bar at the foot of the terminal while a run goes on: what has come to pass, and how long the rest may take."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING

from stepwell.cli._tables import BAR, duration
from stepwell.client._follow import Follower
from stepwell.client._views import eta, percent
from stepwell.core import step_name
from stepwell.errors import StepwellError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from stepwell.client import Engine
    from stepwell.core import RunState

EVERY = 0.2
"""Seconds between two looks."""
LONGEST = 40


@contextlib.contextmanager
def live_bar(engine: Engine, run_id: str, *, wanted: bool) -> Iterator[None]:
    """Draw the run's progress on stderr meanwhile; nothing where that is no terminal."""
    if not wanted or not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield
        return
    bar = _progress()
    end = threading.Event()
    drawer = threading.Thread(target=_draw, args=(bar, engine, run_id, end), name="stepwell-bar", daemon=True)
    with bar:
        drawer.start()
        try:
            yield
        finally:
            end.set()
            drawer.join()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    class Terminal(Console):
        def show_cursor(self, show: bool = True) -> bool:
            return False  # a killed process would leave it hidden

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=BAR),
        TextColumn("{task.fields[percent]:g} %"),
        TextColumn("{task.fields[left]}"),
        console=Terminal(stderr=True),
        transient=True,
        auto_refresh=False,
        # What is printed goes above the bar. A stdout that is no terminal is nobody's business here.
        redirect_stdout=sys.stdout.isatty(),
    )


def _draw(bar: Progress, engine: Engine, run_id: str, end: threading.Event) -> None:
    follower: Follower | None = None
    task = bar.add_task(run_id, total=100, percent=0.0, left="", visible=False)
    while not end.wait(EVERY):
        with contextlib.suppress(StepwellError):  # who drives the run meets it, too, and says so
            if follower is None:
                row = engine.store.run_get(run_id)
                if row is None:
                    continue  # its start is on its way
                follower = Follower(engine.store, run_id, row.rid)
            run = follower.look()
            left, done = eta(run, engine.store.now()), percent(run)
            bar.update(
                task, description=_doing(run), completed=done, percent=done, visible=True,
                left=f"about {duration(left)} left" if left else "",
            )  # fmt: skip
            bar.refresh()


def _doing(run: RunState) -> str:
    """The run, and what is under way in it."""
    under_way = sorted(run.executing)
    waiting = list(run.parked.waiting_for) if run.parked is not None and not under_way else []
    names = [step_name(run, key) for key in (under_way or waiting)]
    text = f"{run.id}  {', '.join(names[:3])}" if names else run.id
    text = "".join(character for character in text if character.isprintable())
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
