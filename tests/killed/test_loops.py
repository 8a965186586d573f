"""A loop that closes under its run (ENGINE.md §2): a run is kept only while its driver lives, else handed back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.killed.stage import Actor, Ledger, gate_at, lives, looking, succeeded, violations

if TYPE_CHECKING:
    from pathlib import Path

    from stepwell import Engine


def handed_back(engine: Engine) -> None:
    """Wait until nobody holds the run any more."""
    while engine.find("r").owner is not None:
        engine.store.wait(0.05)
    assert engine.get_run("r").status == "interrupted"


@pytest.mark.parametrize("body", ["async", "on a thread"])
def test_a_loop_that_closes_under_its_run(tmp_path: Path, body: str) -> None:
    store, ledger = f"sqlite:///{tmp_path}/well.db", Ledger(tmp_path / "ledger")
    gate = gate_at(tmp_path / "gate")
    event = {} if body == "async" else {"gate": str(gate)}
    command = {"store": store, "ledger": str(ledger.path), "event": event, "id": "r"}
    with looking(store) as engine, Actor(part="closed_loop", **command) as first:
        assert first.line() == "begun"
        if body == "async":
            assert first.line() == "inside"
            first.tell()
            assert first.line() == "closed"
            handed_back(engine)
        else:
            with gate.open("w"):
                first.tell()
                assert first.line() == "closed"
                handed_back(engine)
        with Actor(part="run", function="awaiting", **command) as second:
            assert second.end() == (0, 'result ["first", "middle"]\n', "")
        # The process goes on living: it drives another run on another loop.
        first.tell()
        assert first.line() == f"{first.pid}"
        code, out, errors = first.end()
        assert (code, out) == (0, "")
        assert "Traceback" not in errors
        assert lives(engine, "r") == ["start", "due"]
        assert succeeded(engine, "r") == {"first": 1, "middle": 1}
        assert violations(engine, "r") == violations(engine, "another") == []
    assert ledger.count("end")["first"] == 1
    assert [pid for pid, key, _ in ledger.lines("begin") if key == "middle"] == [first.pid, second.pid]
