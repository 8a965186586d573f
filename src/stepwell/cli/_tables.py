"""Tables and bars."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from stepwell.cli._output import visible
from stepwell.core import US

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

COLOURS = {
    "succeeded": "green", "failed": "red", "blocked": "red", "timed_out": "red", "cancelled": "yellow",
    "interrupted": "yellow", "running": "cyan", "started": "cyan",
}  # fmt: skip
BAR = 24


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> int:
    """Columns as wide as the widest cell of a page of 200 rows. Returns how many rows there were."""
    page: list[Sequence[str]] = [head]
    widths = [0] * len(head)
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007 - counted for the caller
        page.append([visible(cell) for cell in row])
        if len(page) == 200:
            widths = _print_page(page, widths)
            page = []
    _print_page(page, widths)
    return count


def _print_page(page: Sequence[Sequence[str]], widths: Sequence[int]) -> list[int]:
    wide = [max([least, *(len(row[i]) for row in page)]) for i, least in enumerate(widths)]
    for row in page:
        cells = [painted(cell.ljust(width), cell) for cell, width in zip(row, wide, strict=True)]
        click.echo("  ".join(cells).rstrip())
    return wide


def painted(text: str, status: str) -> str:
    """The text in the colour of a status; click drops it where stdout is no terminal."""
    colour = COLOURS.get(status)
    return click.style(text, fg=colour) if colour and sys.stdout.isatty() else text


def short_time(at: int | None) -> str:
    """``2013-01-01 12:00:00``, UTC; empty for None."""
    return "" if at is None else datetime.fromtimestamp(at / US, UTC).strftime("%Y-%m-%d %H:%M:%S")


def print_bar(percent: float, eta: float | None) -> None:
    """A bar, the percentage, and how long it may take; drawn by rich on a terminal."""
    left = f"about {duration(eta)} left" if eta else ""
    if not sys.stdout.isatty():
        full = round(BAR * percent / 100)
        click.echo(f"  {'█' * full}{'░' * (BAR - full)} {percent:g} % {left}".rstrip())
        return
    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    grid.add_row("", ProgressBar(total=100, completed=percent, width=BAR), f"{percent:g} %", left)
    Console().print(grid)


def duration(seconds: float) -> str:
    """``42 s``, ``3 min``, ``2.5 h``."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
