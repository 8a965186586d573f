"""Processes that are stopped, that hold the interpreter's lock, or whose clocks are wrong (ENGINE.md §1, §2)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from stepwell.core import US
from tests.killed.stage import Actor, Ledger, gate_at, lives, looking, succeeded, violations

if TYPE_CHECKING:
    from pathlib import Path

    from stepwell import Engine

HOUR = 3600.0


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_database"))
    return f"sqlite:///{tmp_path}/well.db"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def stands_still(engine: Engine, run_id: str) -> None:
    """The silence of the run's stopped holder counts whole, from the first look at it on."""
    owner = engine.find(run_id).owner
    assert owner is not None
    engine.store.worker_silence()
    seen = time.monotonic()
    for _ in range(5):
        engine.store.wait(0.02)
        passed = time.monotonic() - seen
        assert engine.store.worker_silence()[owner] >= passed > 0


def test_a_stopped_process_loses_its_run_and_cannot_write_afterwards(
    store: str, ledger: Ledger, tmp_path: Path
) -> None:
    """ENGINE.md §2: a process in state T is a lapse after the ttl, `expired`. P3: what it computed is not written."""
    gate = gate_at(tmp_path / "gate")
    command = {"part": "worker", "store": store, "ledger": str(ledger.path), "lease": 0.6}
    with looking(store) as engine, Actor(**command, queues=["default", "own"]) as first:
        run = engine.enqueue("gated", {"gate": str(gate)}, id="r")
        with gate.open("w"):
            first.freeze()
            stands_still(engine, "r")
            with Actor(**command) as second:
                assert run.result(60) == [1, "gated", 3]
                assert second.end()[::2] == (0, "")
        first.thaw()
        zombie = engine.enqueue("whose", {}, id="next", queue="own")
        assert zombie.result(60) == first.pid
        code, _, errors = first.end()
        assert (code, errors) == (0, "")
        assert lives(engine, "r") == ["due", "expired", "takeover"]
        assert set(succeeded(engine, "r").values()) == {1}
        assert violations(engine, "r") == violations(engine, "next") == []
    assert [pid for pid, key, _ in ledger.lines("end") if key == "gated"] == [second.pid, first.pid]
    assert ledger.count("end") == {"first": 1, "gated": 2, "last": 1, "whose-0": 1}


def test_a_killed_process_is_known_at_once(store: str, ledger: Ledger, tmp_path: Path) -> None:
    """durable.md §3.5: a holder that died on this host is known at once, whatever its lease, also to who only looks."""
    gate = gate_at(tmp_path / "gate")
    command = {"part": "run", "store": store, "ledger": str(ledger.path), "lease": HOUR}
    command |= {"function": "gated", "event": {"gate": str(gate)}, "id": "r"}
    with looking(store) as engine:
        with Actor(**command) as first, gate.open("w"):
            assert engine.get_run("r").status == "running"
            first.process.kill()
            first.process.wait()
        assert engine.get_run("r").status == "interrupted"
        with Actor(**command) as second:
            assert second.end() == (0, 'result [1, "gated", 3]\n', "")
        assert lives(engine, "r") == ["start", "dead", "takeover"]
        assert violations(engine, "r") == []
    assert ledger.count("begin") == {"first": 1, "gated": 2, "last": 1}
    assert set(ledger.count("end").values()) == {1}


def test_a_body_that_keeps_the_interpreter_for_itself_keeps_its_run(store: str, ledger: Ledger, tmp_path: Path) -> None:
    """ENGINE.md §2: a beat that stops while the process exists and is not stopped is no lapse before 10 times the ttl."""
    gate, ttl = gate_at(tmp_path / "gate"), 0.6
    command = {"part": "worker", "store": store, "ledger": str(ledger.path), "lease": ttl}
    with looking(store, lease=ttl) as engine, Actor(**command) as holder:
        run = engine.enqueue("gated", {"gate": str(gate), "lock": True}, id="r")
        with gate.open("w"), engine:  # from here on this process is a worker that would take it
            owner = engine.find("r").owner
            assert owner is not None
            engine.store.worker_silence()
            seen = time.monotonic()
            while (passed := time.monotonic() - seen) < 2.5 * ttl:
                # Not one beat came meanwhile: of such a silence a tenth counts.
                assert engine.store.worker_silence()[owner] >= passed / 10
                engine.store.wait(0.05)
            assert engine.find("r").owner == owner
        assert run.result(60) == [1, "gated", 3]
        assert lives(engine, "r") == ["due"]
        assert set(succeeded(engine, "r").values()) == {1}
        assert violations(engine, "r") == []
        assert holder.end()[::2] == (0, "")
    assert {pid for pid, _, _ in ledger.lines("end")} == {holder.pid}
    assert set(ledger.count("end").values()) == {1}


def test_workers_whose_clocks_are_an_hour_apart(postgres_database: str, ledger: Ledger, tmp_path: Path) -> None:
    """ENGINE.md §1: clocks of hosts are never compared: no takeover, no early timer, records tell the server's time."""
    gate, ttl, wait = gate_at(tmp_path / "gate"), 0.5, 1.2
    command = {"part": "worker", "store": postgres_database, "ledger": str(ledger.path), "lease": ttl, "hold": 0}
    server = psycopg.connect(postgres_database, autocommit=True)

    def server_time() -> float:
        (at,) = server.execute("select extract(epoch from clock_timestamp())").fetchone() or (0,)
        return float(at)

    begun = server_time()
    with (
        server,
        looking(postgres_database) as engine,
        Actor(**command, clock=HOUR, queues=["default", "ahead"]) as ahead,
        Actor(**command, clock=-HOUR, queues=["default", "behind"]) as behind,
    ):
        clocks = [float(worker.line().split()[-1]) for worker in (ahead, behind)]
        assert clocks[0] - clocks[1] > HOUR
        held = engine.enqueue("gated", {"gate": str(gate)}, id="held")
        with gate.open("w"):
            # While one of them holds that run, both wait out more than two of its leases in runs of their own.
            runs = [
                engine.enqueue("sleeper", {"key": queue, "seconds": wait}, id=queue, queue=queue)
                for queue in ("ahead", "behind")
            ]
            shared = engine.enqueue("sleeper", {"key": "shared", "seconds": wait}, id="shared")
            assert [run.result(60) for run in (*runs, shared)] == ["ahead", "behind", "shared"]
        assert held.result(60) == [1, "gated", 3]
        assert ahead.end()[::2] == behind.end()[::2] == (0, "")
        ended = server_time()
        assert lives(engine, "held") == ["due"]
        for run_id in ("ahead", "behind", "shared"):
            assert "expired" not in lives(engine, run_id)
            assert "dead" not in lives(engine, run_id)
            assert violations(engine, run_id) == []
            times = [r["at"] / US for r in engine.get_run(run_id).history() if "at" in r]
            assert begun - 1 < min(times) <= max(times) < ended + 1
            waited = ledger.at("begin", f"{run_id}-after") - ledger.at("end", f"{run_id}-before")
            assert waited >= wait * 1e9
    assert set(ledger.count("end").values()) == {1}


def test_a_clock_that_steps_back_under_a_run(tmp_path: Path, ledger: Ledger) -> None:
    """ENGINE.md §1: SQLite has the host's clock, held still when it steps back: time never decreases, waits end."""
    store, wait = f"sqlite:///{tmp_path}/well.db", 0.1
    event = {"back": 0.4, "seconds": wait}
    with Actor(part="run", store=store, ledger=str(ledger.path), function="stepping", event=event, id="r") as process:
        assert process.end() == (0, 'result "done"\n', "")
    with looking(store) as engine:
        times = [r["at"] for r in engine.get_run("r").history() if "at" in r]
        assert times == sorted(times)
        assert violations(engine, "r") == []
    assert ledger.at("begin", "after") - ledger.at("end", "before") >= wait * 1e9
