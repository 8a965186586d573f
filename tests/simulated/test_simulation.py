"""Seeded programs under seeded disasters: drops before, in and after appends, refused appends, lost leases, clock jumps,
branches in another order. The real runtime, contexts and stores run; journal and ledger must agree."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stepwell.testing._simulate import simulate_seed

if TYPE_CHECKING:
    from pathlib import Path


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
