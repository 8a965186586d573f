"""The arithmetic of progress."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell.pipeline._plan import ExactSum, Progress


@pytest.mark.parametrize(
    "weights, percents",
    [
        ([0.1, 0.7, 0.2], [10, 80, 100]),
        ([1 / 3, 1 / 3, 1 / 3], [33, 66, 100]),
        ([0.3, 0.2, 0.5, 0.1], [27, 45, 90, 100]),
        ([0.05, 0.1, 0.05, 0.15, 0.1, 0.5, 0.05], [5, 15, 20, 35, 45, 95, 100]),
        ([0, 0, 5], [0, 0, 100]),
        ([5, 0], [100, 100]),
        ([0, 0], [None, None]),
        ([1e-9], [100]),
    ],
)
def test_percent_after_each_step(weights: list[float], percents: list[int | None]) -> None:
    progress = Progress(weights)
    assert [progress.step_done(weight) for weight in weights] == percents


@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=30))
def test_it_never_decreases_and_ends_with_a_hundred(weights: list[float]) -> None:
    progress = Progress(weights)
    found = [progress.step_done(weight) for weight in weights]
    if sum(weights) <= 0:
        assert set(found) == {None}
        return
    numbers = [percent for percent in found if percent is not None]
    assert numbers == sorted(numbers)
    assert numbers[-1] == 100
    assert numbers[0] >= 0


@given(st.lists(st.floats(0, 1e300), max_size=60))
def test_the_sum_is_the_one_that_is_rounded_once(numbers: list[float]) -> None:
    added = ExactSum()
    for count, number in enumerate(numbers):
        added.add(number)
        assert added.value == math.fsum(numbers[: count + 1])
