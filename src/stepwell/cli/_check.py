"""The command that looks ahead: check."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING

import click

from stepwell.cli._errors import say
from stepwell.cli._open import opened
from stepwell.cli._output import stdout_apart, write_array
from stepwell.cli._targets import register_app
from stepwell.client import check_run
from stepwell.client._views import OPEN
from stepwell.journal import RunFilter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.client import Change, Checked, Engine

PAGE = 200
BROKEN = 2
"""Exit code where new code would block a run, as `stepwell run` has it for changed code."""


def check(app: str, *, as_json: bool, store: str | None) -> int:
    """``stepwell check``."""
    told: Counter[str] = Counter()

    def counted() -> Iterator[Checked]:
        for checked in _checked(engine):
            told[checked.verdict] += 1
            yield checked

    with opened(store, write=False) as engine:
        with stdout_apart(apart=True):
            register_app(engine, app)
        if as_json:
            write_array(sys.stdout, counted())
            click.echo()
        else:
            for checked in counted():
                _tell(checked)
    counts = ", ".join(
        f"{told[verdict]} {verdict.lower()}" for verdict in ("SAFE", "CHANGED", "BROKEN") if told[verdict]
    )
    say(f"{told.total()} open runs of {app}: {counts}" if told else f"no open runs of {app}")
    return BROKEN if told["BROKEN"] else 0


def _checked(engine: Engine) -> Iterator[Checked]:
    for name in sorted(engine.functions.names()):
        function = engine.functions.get(name)
        before: int | None = None
        while page := engine.store.run_list(RunFilter(statuses=OPEN, function=name), limit=PAGE, before=before):
            before = page[-1].rid
            for row in page:
                assert function is not None
                with stdout_apart(apart=True):  # the handler prints what it likes
                    checked = check_run(engine, row, function)
                yield checked


def _tell(checked: Checked) -> None:
    about = ""
    if checked.ends is not None:
        about = f"ends: {checked.ends}"
    elif checked.goes_on is not None:
        about = f"goes on at {checked.goes_on}"
    click.echo(f"{checked.verdict:<7}  {checked.run}  {about}".rstrip())
    for change in checked.changes:
        click.echo(f"  {change.change:<7}  {_named(change)}")
    for line in (*([checked.error] if checked.error is not None else []), *checked.notes):
        click.echo(f"  {line}")


def _named(change: Change) -> str:
    what = f"undo of {change.key}" if change.kind == "undo" else f"{change.kind} {change.key}"
    return what if change.to is None else f"{what} to {change.to}"
