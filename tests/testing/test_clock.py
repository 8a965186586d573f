from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from stepwell.errors import UsageError
from stepwell.testing._clock import START, VirtualClock

if TYPE_CHECKING:
    from stepwell.journal._api import Clock


def test_it_is_a_clock_and_stands_still() -> None:
    clock: Clock = VirtualClock()
    assert clock.now() == clock.now() == START
    assert clock.monotonic() == clock.monotonic() > 0


def test_advance_moves_both_clocks() -> None:
    clock = VirtualClock(5)
    before = clock.monotonic()
    clock.advance(1.25)
    assert clock.now() == 1_250_005
    assert clock.monotonic() - before == pytest.approx(1.25)


@pytest.mark.parametrize("seconds", [3600, -3600.5])
def test_step_wall_moves_only_the_wall_clock(seconds: float) -> None:
    clock = VirtualClock()
    before = clock.monotonic()
    clock.step_wall(seconds)
    assert clock.now() == START + round(seconds * 1_000_000)
    assert clock.monotonic() == before


def test_time_does_not_pass_backwards() -> None:
    clock = VirtualClock()
    with pytest.raises(UsageError, match="step_wall"):
        clock.advance(-0.001)
    assert clock.now() == START


def test_small_steps_add_up_exactly() -> None:
    clock = VirtualClock(0)
    before = clock.monotonic()
    for _ in range(10_000):
        clock.advance(0.1)
    assert clock.now() == 1_000_000_000
    assert clock.monotonic() - before == 1000.0


def test_threads_lose_no_step() -> None:
    clock = VirtualClock(0)

    def many(_: int) -> None:
        for _ in range(1000):
            clock.advance(0.000_001)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(many, range(4)))
    assert clock.now() == 4000
