"""Seeded programs under seeded disasters: drops before, in and after appends, refused appends, lost leases, clock jumps,
branches in another order. The real runtime, contexts and stores run; journal and ledger must agree."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.testing._simulate import simulate_seed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LIMIT = 1000
# What a patch reaches into is nobody's interface.
_flow: Any = import_module("stepwell.core._flow")
_rollback: Any = import_module("stepwell.runtime._rollback")
_live_async: Any = import_module("stepwell.runtime._live_async")
_operations: Any = import_module("stepwell.durable._operations")
_memory: Any = import_module("stepwell.journal._memory")


@pytest.mark.timeout(1800)
def test_seeds(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    cells: Counter[tuple[str, str]] = Counter()
    lives = 0
    for seed in range(request.config.getoption("--seeds")):
        store: Any = "sqlite" if seed % 50 == 49 else "memory"
        report = simulate_seed(seed, store=store, colour="async" if seed % 2 else "sync", folder=tmp_path)
        assert report.violations == [], f"{report.violations[0]}\nplay it again: {report.replay}"
        cells += report.cells
        lives += report.lives
    print(f"{lives} lives; places × records:", dict(cells))
    places = {place for place, _ in cells}
    records = {record for _, record in cells}
    assert len(places) >= 3
    assert len(records) >= 10


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_one_seed_is_one_trace(colour: Any) -> None:
    for seed in range(25):
        assert simulate_seed(seed, colour=colour).trace == simulate_seed(seed, colour=colour).trace, f"seed {seed}"


def found_by(colour: Any) -> set[str]:
    """Rules that the first seed with a violation breaks; empty if none of a thousand has one."""
    for seed in range(LIMIT):
        try:
            report = simulate_seed(seed, colour=colour)
        except Exception as error:
            return {type(error).__name__}  # the engine itself objects
        if report.violations:
            return {violation.rule for violation in report.violations}
    return set()


def crash_takes_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that a crash interrupted runs again as the next attempt."""
    true = _flow.decide

    def decide(run: Any, want: Any, now: int) -> Any:
        found = true(run, want, now)
        if type(found).__name__ == "Execute" and not found.fresh:
            return type(found)(found.attempt + 1, fresh=True)
        return found

    monkeypatch.setattr(_flow, "decide", decide)


def at_most_once_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start without an end is run again, whatever the step asked for."""
    true = _flow.decide

    def decide(run: Any, want: Any, now: int) -> Any:
        found = true(run, want, now)
        return _flow.Execute(found.attempt, fresh=False) if type(found).__name__ == "Lost" else found

    monkeypatch.setattr(_flow, "decide", decide)


def success_runs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay does not look for the recorded success of a step."""
    true = _flow.decide

    def decide(run: Any, want: Any, now: int) -> Any:
        found = true(run, want, now)
        again = type(found).__name__ == "Return" and want.kind == "step"
        return _flow.Execute(run.ops[want.key].attempt, fresh=False) if again else found

    monkeypatch.setattr(_flow, "decide", decide)
    monkeypatch.setattr(_operations, "replay", lambda *_: None)


def undo_in_order_of_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rollback begins with the first step instead of the last."""
    true = _rollback.to_undo

    def to_undo(run: Any, within: str = "") -> list[str]:
        keys: list[str] = true(run, within)
        return keys[::-1]

    monkeypatch.setattr(_rollback, "to_undo", to_undo)
    monkeypatch.setattr(_live_async, "to_undo", to_undo)


def undo_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed run ends without its rollback."""
    monkeypatch.setattr(_rollback, "to_undo", lambda *_: [])
    monkeypatch.setattr(_live_async, "to_undo", lambda *_: [])


def key_by_position(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys count all operations of a scope, so that branches of the code share them."""
    from stepwell.runtime._scope import Scope

    def key_of(self: Any, text: str) -> str:
        return f"{self.key}/op" if self.key else "op"

    monkeypatch.setattr(Scope, "key_of", key_of)


def fence_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store writes whatever lease comes."""
    true = _memory.batch_write

    def batch_write(data: Any, batch: Any) -> Any:
        run = None if batch.lease.rid is None else data.runs.get(batch.lease.rid)
        if run is not None and run.hot is not None:
            run.hot.epoch, run.hot.owner = batch.lease.epoch, batch.lease.worker
            batch.seq = len(run.entries) + 1 if batch.records else batch.seq
        return true(data, batch)

    monkeypatch.setattr(_memory, "batch_write", batch_write)


def visible_before_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are folded when they are queued, and what refuses them is not heard."""
    from stepwell.runtime._life import Life

    def settle(self: Any, ticket: Any) -> None:
        try:
            self.writer.commit(ticket)
        except Exception:
            if ticket.fold is not None and ticket.batch.records:
                ticket.fold(ticket.batch.records)

    async def settle_async(self: Any, ticket: Any) -> None:
        settle(self, ticket)

    monkeypatch.setattr(Life, "settle", settle)
    monkeypatch.setattr(Life, "settle_async", settle_async)


PLANTED = [
    crash_takes_an_attempt,
    at_most_once_forgotten,
    success_runs_again,
    undo_in_order_of_finish,
    undo_left_out,
    key_by_position,
    fence_left_out,
    visible_before_durable,
]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_planted_bugs_are_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found = found_by("sync")
    print(plant.__name__, found)
    assert found, f"{plant.__name__} was not found within {LIMIT} seeds"
