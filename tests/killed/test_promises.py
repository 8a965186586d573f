"""What durable.md §19 asks to see of processes that are killed, point by point; the others of this ring show the rest."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.killed.stage import Actor, Ledger, gate_at, lives, looking, succeeded, violations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STEPS, KILLS = 10_000, 20


def test_ten_thousand_steps_killed_twenty_times(tmp_path: Path, found: Callable[[str], None]) -> None:
    """durable.md §19.3."""
    store, ledger = f"sqlite:///{tmp_path}/well.db", Ledger(tmp_path / "ledger")
    command: dict[str, Any] = {"part": "run", "store": store, "ledger": str(ledger.path), "function": "counted"}
    command |= {"event": {"key": "k", "n": STEPS}, "id": "long"}
    dice = random.Random(19_3)
    for kill in range(KILLS):
        with Actor(**command) as process:
            if kill == 0:
                process.tell()
            for _ in range(dice.randrange(1, 2 * STEPS // KILLS - 100)):
                process.line()
    with Actor(**command) as process:
        code, out, errors = process.end()
    assert (code, errors) == (0, "")
    assert out.endswith(f"result {sum(range(STEPS))}\n")
    with looking(store) as engine:
        assert len(lives(engine, "long")) == 1 + 2 * KILLS
        assert violations(engine, "long") == []
        assert succeeded(engine, "long") == {f"s{i}": 1 for i in range(STEPS)}
    begun, ended = ledger.count("begin"), ledger.count("end")
    twice = begun.total() - STEPS
    found(f"{twice} bodies of {STEPS} began again after {KILLS} kills")
    assert min(ended.values()) == 1
    assert len(ended) == STEPS
    assert twice <= KILLS


def test_a_body_that_must_not_run_twice_is_killed(tmp_path: Path) -> None:
    """durable.md §19.4."""
    store, ledger, gate = f"sqlite:///{tmp_path}/well.db", Ledger(tmp_path / "ledger"), gate_at(tmp_path / "gate")
    command: dict[str, Any] = {"part": "run", "store": store, "ledger": str(ledger.path), "function": "charging"}
    command |= {"event": {"gate": str(gate)}, "id": "r"}
    with Actor(**command) as process, gate.open("w"):
        process.process.kill()
        process.process.wait()
    said = "step 'charge' was interrupted in attempt 1; it may or may not have run"
    for _ in range(2):
        with Actor(**command) as process:
            assert process.end() == (0, f'result ["{said}", "a person"]\n', "")
    assert ledger.count("begin") == {"charge": 1, "ask": 1}
    assert ledger.count("end") == {"ask": 1}


@pytest.mark.parametrize("hold", [0, 60], ids=["frames dropped", "kept"])
def test_a_wait_survives_its_process(hold: int, tmp_path: Path) -> None:
    """durable.md §19.5: the deadline is the first one, whoever looks at it."""
    store, ledger = f"sqlite:///{tmp_path}/well.db", Ledger(tmp_path / "ledger")
    command = {
        "part": "run",
        "store": store,
        "ledger": str(ledger.path),
        "function": "sleeper",
        "id": "r",
        "hold": hold,
    }
    command |= {"event": {"key": "k", "seconds": 3}}
    with looking(store) as engine:
        with Actor(**command):
            while True:
                row = engine.store.run_get("r")
                if row is not None and row.status == "waiting":
                    break
                engine.store.wait(0.05)
        with Actor(**command) as heir:
            assert heir.end() == (0, 'result "k"\n', "")
        history = engine.get_run("r").history()
        (started,) = [r for r in history if r["record"] == "WaitStarted"]
        (ended,) = [r for r in history if r["record"] == "WaitEnded"]
        assert started["until"] == started["at"] + 3_000_000
        assert {r["until"] for r in history if r["record"] == "Parked"} == {started["until"]}
        assert ended["at"] >= started["until"]
        assert lives(engine, "r") == (["start", "dead", "takeover"] if hold else ["start", "due"])


@pytest.mark.parametrize("place", ["own", "other"])
def test_rows_are_as_many_as_successes_wherever_the_process_ends(
    place: str, tmp_path: Path, found: Callable[[str], None]
) -> None:
    """durable.md §19.11."""
    well, other = tmp_path / "well.db", tmp_path / "other.db"
    with looking(f"sqlite:///{well}") as engine:
        engine.store.now()
    database = well if place == "own" else other
    connection = sqlite3.connect(database)
    connection.execute("create table rows (run text, n text)")
    connection.commit()
    event = {"n": 2, "into": True if place == "own" else f"sqlite:///{other}"}
    ledger = tmp_path / "ledger"
    with Actor(part="statements", store=f"sqlite:///{well}", ledger=str(ledger), event=event) as process:
        code, out, errors = process.end()
    assert (code, errors) == (0, "")
    cuts = int(out)
    found(f"{place} database: ended at each of {cuts} statements")
    assert cuts > 20
    rows = dict(connection.execute("select run, count(*) from rows group by run"))
    distinct = connection.execute("select count(*) from (select distinct run, n from rows)").fetchone()[0]
    connection.close()
    assert rows == {f"{n}": 4 for n in range(1, cuts + 2)}
    assert distinct == 4 * len(rows)
    with looking(f"sqlite:///{well}") as engine:
        for run in rows:
            assert succeeded(engine, run) == {"load 0": 1, "load 1": 1}
