"""Bars at the foot of the terminal while a run goes on: what has come to pass, and how long the rest may take."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol

from stepwell.cli._tables import BAR, duration
from stepwell.client._follow import Follower
from stepwell.client._views import eta, percent
from stepwell.core import step_name
from stepwell.errors import StepwellError
from stepwell.runtime._hooks import of_door

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

    from stepwell.client import Engine
    from stepwell.core import RunState
    from stepwell.journal import RunRow, Store

EVERY = 0.2
"""Seconds between two looks."""
LONGEST = 40


def is_drawn() -> bool:
    """Whether there is a terminal that can show bars."""
    return sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextlib.contextmanager
def live_bar(engine: Engine, run_id: str, *, wanted: bool) -> Iterator[None]:
    """Draw the run's progress on stderr meanwhile; nothing where that is no terminal."""
    if not wanted or not is_drawn():
        yield
        return
    bar = _progress()
    end, since = threading.Event(), engine.store.now()
    drawer = threading.Thread(target=_draw, args=(bar, engine, run_id, end, since), name="stepwell-bar", daemon=True)
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


class Drawing(Protocol):
    """The bars of one run."""

    def look(self) -> None:
        """Bring them up to date."""


def _draw(bar: Progress, engine: Engine, run_id: str, end: threading.Event, since: int) -> None:
    drawing: Drawing | None = None
    over = False
    while not over:
        over = end.wait(EVERY)  # and a last look: what was said at the end is still to be told
        with contextlib.suppress(StepwellError):  # who drives the run meets it, too, and says so
            if drawing is None:
                row = engine.store.run_get(run_id)
                if row is None:
                    continue  # its start is on its way
                sight = of_door(row.door, "sight")
                if sight is None:
                    drawing = _OneBar(bar, engine.store, row)
                else:
                    drawing = _TwoBars(bar, sight(engine.store, row, since))
            drawing.look()


class _OneBar:
    """How far the run is, and what is under way in it."""

    def __init__(self, bar: Progress, store: Store, row: RunRow) -> None:
        self._bar = bar
        self._store = store
        self._follower = Follower(store, row.id, row.rid)
        self._task = bar.add_task(row.id, total=100, percent=0.0, left="")

    def look(self) -> None:
        """See `Drawing`."""
        run = self._follower.look()
        left, done = eta(run, self._store.now()), percent(run)
        self._bar.update(
            self._task, description=_doing(run), completed=done, percent=done,
            left=f"about {duration(left)} left" if left else "",
        )  # fmt: skip
        self._bar.refresh()


class _TwoBars:
    """The whole run, and the step under way; what the steps say stands above them."""

    def __init__(self, bar: Progress, sight: Any) -> None:
        self._bar = bar
        self._sight = sight
        self._whole, self._step = (bar.add_task("", total=100, percent=0.0, left="", visible=False) for _ in range(2))

    def look(self) -> None:
        """See `Drawing`."""
        seen = self._sight.look()
        for line in self._sight.events():
            self._bar.console.print(_printable(line), markup=False, highlight=False, soft_wrap=True)
        left = f"about {duration(seen.seconds_left)} left" if seen.seconds_left else ""
        self._show(self._whole, seen.name, seen.percent, left)
        if seen.step:
            self._show(self._step, f"rollback of {seen.step}" if seen.undoing else seen.step, seen.step_percent)
        self._bar.refresh()

    def _show(self, task: Any, name: str, done: float, left: str = "") -> None:
        self._bar.update(task, description=_short(name), completed=done, percent=done, left=left, visible=True)


def _doing(run: RunState) -> str:
    """The run, and what is under way in it."""
    under_way = sorted(run.executing)
    waiting = list(run.parked.waiting_for) if run.parked is not None and not under_way else []
    names = [step_name(run, key) for key in (under_way or waiting)]
    return _short(f"{run.id}  {', '.join(names[:3])}" if names else run.id)


def _short(text: str) -> str:
    text = _printable(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())
