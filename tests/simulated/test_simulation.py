"""Seeded programs under seeded disasters: drops before and after appends and in bodies, refused appends, lost leases,
clock jumps, cancellations, branches in another order. The real runtime, contexts and stores run; journal and ledger
must agree.
"""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.runtime import Life
from stepwell.testing._simulate import seeds_of, simulate_seed

if TYPE_CHECKING:
    from pathlib import Path

KINDS = (
    "RunStarted", "LifeStarted", "LifeLost", "StepStarted", "StepSucceeded", "StepFailed", "StepRetryPlanned",
    "WaitStarted", "WaitEnded", "ScopeStarted", "ScopeSucceeded", "ScopeFailed", "ScopeCancelled", "Recorded",
    "RollbackStarted", "CancelRequested", "Parked", "RunSucceeded", "RunFailed", "RunCancelled",
)  # fmt: skip
PLACES = ("before", "after", "refused", "lost")
NEVER = {("lost", "RunStarted"), ("lost", "LifeStarted"), ("lost", "LifeLost")}
"""A lease is lost at an append of its holder, and these rows are written by no holder yet."""
ENOUGH = 5000
"""From so many seeds on, every cell must have been met."""


@pytest.mark.timeout(1200)
def test_seeds(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    count, only = request.config.getoption("--seeds"), request.config.getoption("--seed")
    cells: Counter[tuple[str, str]] = Counter()
    played: Counter[tuple[str, str]] = Counter()
    lives = 0
    for seed, store, colour in seeds_of(0, count) if only is None else seeds_of(only, 1):
        report = simulate_seed(seed, store=store, colour=colour, folder=tmp_path)
        again = f"pytest tests/simulated -k test_seeds --seed {seed}\n{report.replay}"
        assert report.violations == [], f"{report.violations[0]}\nplay it again:\n{again}"
        cells += report.cells
        lives += report.lives
        played[colour, store] += 1
    print(f"\n{lives} lives of {dict(played)}")
    print(f"{'':18}" + "".join(f"{place:>9}" for place in PLACES))
    for kind in KINDS:
        print(f"{kind:18}" + "".join(f"{cells[place, kind]:>9}" for place in PLACES))
    print(f"{'in a body':18}{cells['body', 'body']:>9}")
    if count >= ENOUGH and only is None:
        assert {(place, kind) for place in PLACES for kind in KINDS if not cells[place, kind]} <= NEVER
        assert cells["body", "body"]


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_one_seed_is_one_trace(colour: Any) -> None:
    for seed in range(60):
        assert simulate_seed(seed, colour=colour).trace == simulate_seed(seed, colour=colour).trace, f"seed {seed}"


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_lives_that_ended_are_freed(colour: Any) -> None:
    gc.collect()
    # Held, so that no new life is taken for one of those that other tests have left behind.
    before = [thing for thing in gc.get_objects() if isinstance(thing, Life)]
    known = {id(life) for life in before}
    for seed in range(20):
        simulate_seed(seed, colour=colour)
    gc.collect()
    assert [thing for thing in gc.get_objects() if isinstance(thing, Life) and id(thing) not in known] == []
    assert len(before) == len(known)
