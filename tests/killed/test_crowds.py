"""More work than threads, and more writers than processors."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tests.killed.stage import Actor, Ledger, gate_at, lives, looking, succeeded, violations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROCESSES = 16
QUOTA = 60


def test_nested_maps_wider_than_the_pool_end_also_after_a_kill(tmp_path: Path) -> None:
    """ENGINE.md §9: 64 branches that each call a map advance on three threads. durable.md §3.5: what finished in a
    branch is not run again.
    """
    store, ledger, gate = f"sqlite:///{tmp_path}/well.db", Ledger(tmp_path / "ledger"), gate_at(tmp_path / "gate")
    outer, inner = 64, 5
    event = {"outer": outer, "inner": inner, "gate": str(gate), "stop": "40-3"}
    command = {"part": "run", "store": store, "ledger": str(ledger.path), "max_threads": 3}
    command |= {"function": "nested", "event": event, "id": "r"}
    with looking(store) as engine:
        with Actor(**command) as first, gate.open("w"):
            first.process.kill()
            first.process.wait()
            finished = {key.replace("/s", "") for key in succeeded(engine, "r")}
        with Actor(**command) as second:
            assert second.end() == (0, f"result {outer * inner}\n", "")
        assert lives(engine, "r")[-2:] == ["dead", "takeover"]
        assert len(succeeded(engine, "r")) == outer * inner
        assert violations(engine, "r") == []
    keys = {f"{item}-{i}": f"outer[{item}]/inner[{i}]" for item in range(outer) for i in range(inner)}
    ended = ledger.count("end")
    assert set(ended) == set(keys)
    assert finished
    assert {ended[key] for key, place in keys.items() if place in finished} == {1}
    # At most the bodies that were on the way when it was killed ran twice: one a thread.
    assert sum(ledger.count("begin").values()) <= outer * inner + 4


def test_sixteen_processes_get_their_turns_on_one_file(tmp_path: Path, found: Callable[[str], None]) -> None:
    """ENGINE.md §6: when the first of them has made its quota, the slowest has made a quarter of the mean."""
    store, ledger = f"sqlite:///{tmp_path}/well.db", Ledger(tmp_path / "ledger")
    with Actor(part="writers", store=store, ledger=str(ledger.path), processes=PROCESSES, steps=QUOTA) as writers:
        for _ in range(PROCESSES):
            assert writers.line() == "ready"
        assert writers.end() == (0, "ended [0]\n", "")
    made: Counter[str] = Counter()
    for _, key, _ in ledger.lines("done"):
        made[key] += 1
        if made[key] == QUOTA:
            break
    mean = made.total() / PROCESSES
    slowest = min(made[f"{n}"] for n in range(PROCESSES))
    found(f"commits of the slowest {slowest}, mean {mean:.1f}, of the first {QUOTA}")
    assert slowest >= mean / 4
    with looking(store) as engine:
        for n in range(PROCESSES):
            assert sum(succeeded(engine, f"writer-{n}").values()) == QUOTA
            assert violations(engine, f"writer-{n}") == []
