"""Plain tables and bars."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from stepwell.core import US

if TYPE_CHECKING:
    from collections.abc import Sequence


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def short_time(at: int | None) -> str:
    """``2013-01-01 12:00:00``, UTC; empty for None."""
    return "" if at is None else datetime.fromtimestamp(at / US, UTC).strftime("%Y-%m-%d %H:%M:%S")


def bar(percent: float, width: int = 24) -> str:
    """A bar of so many characters."""
    full = round(width * percent / 100)
    return "█" * full + "░" * (width - full)
