"""Rows and sections of the report."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

HEAD = ("workload", "measured", "one-row limit", "ratio", "goal", "reached")


class Row(NamedTuple):
    """One workload on one store. ``ratio``: to the one-row limit right before and after it."""

    workload: str
    measured: str
    limit: str = ""
    ratio: float | None = None
    goal: str = ""
    reached: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        """As in the table."""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.workload, self.measured, self.limit, ratio, self.goal, mark(self.reached)


def rated(workload: str, rate: float, most: float, goal: float | None) -> Row:
    """So many a second beside the limit; the goal is a ratio to it."""
    ratio = rate / most
    reached = None if goal is None else ratio >= goal
    return Row(workload, f"{rate:,.0f}/s", f"{most:,.0f}/s", ratio, "" if goal is None else f"≥ {goal:g}", reached)


def at_most(workload: str, value: float, unit: str, goal: float | None, digits: int = 0) -> Row:
    """A measure that should be small."""
    reached = None if goal is None else value <= goal
    return Row(
        workload, f"{value:,.{digits}f} {unit}", goal="" if goal is None else f"≤ {goal:g} {unit}", reached=reached
    )


def mark(reached: bool | None) -> str:
    """How it stands in the table."""
    return {True: "yes", False: "**no**", None: ""}[reached]


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in body)]
    return "\n".join(lines) + "\n"


def rows_table(body: Iterable[Row]) -> str:
    """Markdown, without the columns that are empty in all rows."""
    cells = [row.cells for row in body]
    used = [i for i in range(len(HEAD)) if any(row[i] for row in cells)]
    return table([HEAD[i] for i in used], [[row[i] for i in used] for row in cells])


def sections(text: str) -> dict[str, str]:
    """The parts of a report by their title."""
    _, *parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[::2], parts[1::2], strict=True)}


def report(head: str, parts: Mapping[str, str]) -> str:
    """The whole."""
    return head + "".join(f"\n## {title}\n\n{body.strip()}\n" for title, body in parts.items())
