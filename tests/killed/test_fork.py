"""`os.fork` in the middle of a run (ENGINE.md §2): in the child every engine is dead, and the parent notices nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.killed.stage import Actor, Ledger, lives, looking, succeeded, violations

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_database"))
    return f"sqlite:///{tmp_path}/well.db"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.mark.parametrize("child", ["leave", "return", "use"])
def test_a_fork_inside_a_body(store: str, ledger: Ledger, child: str) -> None:
    """The child leaves as Python does, goes on as if it were the parent, or opens engines of its own."""
    event = {"child": child, "store": store}
    command = {"part": "run", "store": store, "ledger": str(ledger.path), "function": "forking", "event": event}
    with Actor(**command, id="r") as parent:
        code, out, errors = parent.end()
    # The child that went on as if it were the parent could not write, and ended with an error of its own.
    told = 1 if child == "return" else 0
    assert (code, out) == (0, f"result [1, {told}, 3]\n"), errors
    assert ("opened before" in errors) == (child == "return"), errors
    with looking(store) as engine:
        assert set(lives(engine, "r")) <= {"start", "due"}
        assert succeeded(engine, "r") == {"first": 1, "fork": 1, "last": 1}
        assert violations(engine, "r") == []
        if child == "use":
            for run_id in ("of-the-child", "of-the-child-2"):
                assert engine.get_run(run_id).result() == ledger.lines("child")[0][0]
                assert violations(engine, run_id) == []
    # Of the run itself the child did nothing but come back from the body that it was in.
    ended = [(key, pid == parent.pid) for pid, key, _ in ledger.lines("end") if not key.startswith("whose")]
    assert ended.count(("fork", False)) == (1 if child == "return" else 0)
    assert [key for key, mine in ended if mine] == ["first", "fork", "last"]


def test_forks_while_other_threads_write(store: str, ledger: Ledger) -> None:
    """A thread that the child does not have may have held any lock: the child still ends, and writes nothing."""
    n = 25
    command = {"part": "run", "store": store, "ledger": str(ledger.path), "function": "forking_often"}
    with Actor(**command, event={"n": n}, id="r") as parent:
        code, out, errors = parent.end()
    assert (code, out) == (0, f"result {[0, *[sum(range(n))] * 3]}\n"), errors
    with looking(store) as engine:
        assert lives(engine, "r") == ["start"]
        assert set(succeeded(engine, "r").values()) == {1}
        assert violations(engine, "r") == []
    assert ledger.count("child") == {f"{i}": 1 for i in range(n)}
    assert ledger.count("end") == {f"branch-{item}": n for item in (1, 2, 3)}
