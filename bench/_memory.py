"""W6: bytes on disk for a step, and peak resident memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench import _work
from bench._rows import Row, at_most
from stepwell import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
DRIVES, LOOKS = 150, 60
"""Most MiB of the process that drives the run, and of one that looks at it."""


def bytes_sqlite(folder: Path) -> Row:
    """Growth of the file by 5,000 steps."""
    path = folder / "w6.db"
    sizes = []
    for count in (20, 5000):
        engine = Engine(f"sqlite:///{path}")
        engine.run(_work.steps, {"n": count})
        engine.stop()
        sizes.append(path.stat().st_size)
    return at_most("W6 on disk", (sizes[1] - sizes[0]) / 5000, "bytes/step", 150)


def bytes_postgres(url: str) -> Row:
    """Growth of all tables and indexes by 5,000 steps."""
    import psycopg

    sql = (
        "select sum(pg_total_relation_size(oid)) from pg_class"
        " where relkind = 'r' and relnamespace = 'stepwell'::regnamespace"
    )
    sizes = []
    for count in (20, 5000):
        engine = Engine(url)
        engine.run(_work.steps, {"n": count})
        engine.stop()
        with psycopg.connect(url) as connection:
            found = connection.execute(sql).fetchone()
            assert found is not None
            sizes.append(int(found[0]))
    return at_most("W6 on disk", (sizes[1] - sizes[0]) / 5000, "bytes/step", 200)


def peak(*arguments: str) -> float:
    """MiB of ``stepwell`` with these arguments, from start to end."""
    launcher = [sys.executable, "-IS", str(Path(__file__).with_name("_peak.py"))]
    command = [*launcher, sys.executable, "-m", "stepwell.cli", *arguments]
    kibibytes, code = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    assert code == "0", (arguments, code)
    return int(kibibytes) / 1024


def peaks(folder: Path, count: int) -> Iterator[Row]:
    """A run of ``count`` named steps with results of 100 bytes, alone and in scopes of 100: who drives, who looks."""
    commands = [["show", "r"], ["show", "r", "--json"], ["export", "r"], ["ls", "--json"], ["doctor"]]
    for name, where in (("named", ""), ("scoped", ", in scopes")):
        store = ("--store", f"sqlite:///{folder}/{name}.db")
        event = json.dumps({"n": count})
        driven = peak("run", f"bench._work:{name}", "--input", event, "--id", "r", *store)
        yield at_most(f"W6 peak memory, `run`{where}", driven, "MiB", DRIVES)
        for command in commands:
            shown = " ".join(command).replace(" r", " RUN")
            yield at_most(f"W6 peak memory, `{shown}`{where}", peak(*command, *store), "MiB", LOOKS)
