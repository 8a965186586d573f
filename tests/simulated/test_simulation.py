"""Seeded programs under seeded disasters: processes that end before and after appends and in bodies, or hang while
another one takes their runs; refused appends, alone or in a group of several runs; lost leases, clock jumps,
cancellations, deadlines, retries of runs, branches in another order; and somebody outside who answers callbacks and
sends signals whatever the processes do. The real engine, contexts and stores run; journal and ledger must agree.
"""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.runtime import Life
from stepwell.testing._simulate import seeds_of, simulate_seed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KINDS = (
    "RunStarted", "LifeStarted", "LifeLost", "StepStarted", "StepSucceeded", "StepFailed", "StepRetryPlanned",
    "WaitStarted", "WaitEnded", "ScopeStarted", "ScopeSucceeded", "ScopeFailed", "ScopeCancelled", "Recorded",
    "CallbackCreated", "CallbackSucceeded", "CallbackFailed", "CallbackBeat", "InvokeStarted", "InvokeSucceeded",
    "InvokeFailed", "SignalAwaited", "SignalReceived", "SignalTaken", "SignalTimedOut", "OperationCancelled",
    "RollbackStarted", "CancelRequested", "Reopened", "Parked", "RunSucceeded", "RunFailed", "RunCancelled",
    "RunTimedOut", "RunBlocked",
)  # fmt: skip
PLACES = ("before", "after", "refused", "lost", "stalled", "neighbour")
"""``stalled``: the commit hangs, and another process takes the run. ``neighbour``: one of a group is refused."""
CLAIMS = {"LifeLost", "Reopened"}
NEVER = {(place, kind) for place in ("lost", "stalled", "neighbour") for kind in CLAIMS} | {
    ("lost", "RunStarted"),
    ("lost", "LifeStarted"),
}
"""A lease is lost, and a commit hangs or is refused beside others, at an append of its holder: these have none yet."""
RARE = {(place, kind) for place in ("stalled", "neighbour") for kind in KINDS} - {
    (place, kind)
    for place in ("stalled", "neighbour")
    for kind in ("RunStarted", "StepStarted", "StepSucceeded", "StepFailed", "StepRetryPlanned", "Parked", "Recorded",
                 "ScopeStarted", "ScopeSucceeded")
}  # fmt: skip
ENOUGH = 10_000
"""From so many seeds on, every cell must have been met that is not rare."""


@pytest.mark.timeout(1200)
def test_seeds(request: pytest.FixtureRequest, tmp_path: Path, found: Callable[[str], None]) -> None:
    count, only = request.config.getoption("--seeds"), request.config.getoption("--seed")
    cells: Counter[tuple[str, str]] = Counter()
    played: Counter[tuple[str, str]] = Counter()
    lives = groups = 0
    for seed, store, colour in seeds_of(0, count) if only is None else seeds_of(only, 1):
        report = simulate_seed(seed, store=store, colour=colour, folder=tmp_path)
        again = f"pytest tests/simulated -k test_seeds --seed {seed}\n{report.replay}"
        assert report.violations == [], f"{report.violations[0]}\nplay it again:\n{again}"
        cells += report.cells
        lives += report.lives
        groups += report.groups
        played[colour, store] += 1
    found(f"{lives} lives of {dict(played)}, {groups} commits of several batches")
    found(f"{'':18}" + "".join(f"{place:>10}" for place in PLACES))
    for kind in KINDS:
        found(f"{kind:18}" + "".join(f"{cells[place, kind]:>10}" for place in PLACES))
    found(f"{'in a body':18}{cells['body', 'body']:>10}")
    if count >= ENOUGH and only is None:
        empty = {(place, kind) for place in PLACES for kind in KINDS if not cells[place, kind]}
        assert empty <= NEVER | RARE, sorted(empty - NEVER - RARE)
        assert cells["body", "body"]
        assert groups


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_one_seed_is_one_trace(colour: Any) -> None:
    for seed in range(100):
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
