"""The nearest peer, dbos, with the same workloads on the same disk, in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench._rows import table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench._rows import Row

PACKAGES = ("dbos", "psycopg[binary]")
SCRIPT = Path(__file__).with_name("_peer_dbos.py")


class Peer:
    """dbos in a virtual environment below ``folder``, made here."""

    def __init__(self, folder: Path) -> None:
        place = folder / "dbos"
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        self._python = str(place / "bin" / "python")
        subprocess.run([self._python, "-m", "pip", "-qq", "install", *PACKAGES], check=True)
        code = "import importlib.metadata as m; print(m.version('dbos'))"
        self.version = subprocess.run(
            [self._python, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()

    def run(self, url: str, workload: str) -> list[float]:
        """The numbers of one workload, in a process of its own."""
        command = [self._python, str(SCRIPT), url, workload]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        return [float(number) for number in done.stdout.split()]

    def rows(
        self, store: str, url: Callable[[str], str], limit: Callable[[], float], ours: Mapping[str, Row]
    ) -> Iterator[tuple[str, ...]]:
        """Beside our rows of the same session: as often as many, each measured by the limit right beside it."""
        for name, workload in (("W1", "w1"), ("W2", "w2"), ("W4 async", "w4")):
            most = limit()
            (rate,) = self.run(url(f"dbos_{workload}"), workload)
            ratio = rate / ((most + limit()) / 2)
            our = ours[name]
            assert our.ratio is not None
            yield (
                store,
                name,
                our.measured,
                f"{our.ratio:.2f}",
                f"{rate:,.0f}/s",
                f"{ratio:.2f}",
                f"{our.ratio / ratio:.1f}",
            )
        again = url("dbos_w3")
        self.run(again, "w3-begin")
        (taken,) = self.run(again, "w3-again")
        yield store, "W3", ours["W3"].measured, "", f"{taken:,.0f} µs/step", "", _times(ours["W3"], taken)
        for workload, how in (("w2q", ""), ("w2q-fast", ", its polls set to 10 ms")):
            rate, single = self.run(url(f"dbos_{workload.replace('-', '_')}"), workload)
            many, alone = ours["W2q"], ours["W2q single, p50"]
            yield store, f"W2q{how}", many.measured, "", f"{rate:,.0f}/s", "", f"{_number(many) / rate:.1f}"
            yield store, f"W2q single, p50{how}", alone.measured, "", f"{single:,.1f} ms", "", _times(alone, single)


def _number(row: Row) -> float:
    return float(row.measured.split("/")[0].split()[0].replace(",", ""))


def _times(our: Row, theirs: float) -> str:
    return f"{theirs / _number(our):.1f}"


def peer_table(version: str, body: list[tuple[str, ...]]) -> str:
    """Markdown."""
    head = ("store", "workload", "Stepwell", "to the limit", f"dbos {version}", "to the limit", "times better")
    return table(head, body)
