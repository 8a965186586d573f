"""The list of steps, call by call, and the texts of what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from stepwell.pipeline.steps import BaseStep, BaseStepContext, ParallelSteps, StepRegistry, StepResult
from stepwell.pipeline.steps.utils import LoggingStep
from tests.pipeline.kit import Step, registry

Call = Callable[[StepRegistry[Any]], object]


def names(made: StepRegistry[Any]) -> list[str]:
    return [step.name for step in made]


class Other(Step):
    """Another class of step."""


@pytest.mark.parametrize(
    "call, expected",
    [
        (lambda r: r.register(Step("d")), ["a", "b", "c", "d"]),
        (lambda r: r.insert_after("a", Step("d")), ["a", "d", "b", "c"]),
        (lambda r: r.insert_after("c", Step("d")), ["a", "b", "c", "d"]),
        (lambda r: r.insert_before("a", Step("d")), ["d", "a", "b", "c"]),
        (lambda r: r.insert_before("c", Step("a")), ["b", "a", "c"]),
        (lambda r: r.insert_after("c", Step("a")), ["b", "c", "a"]),
        (lambda r: r.insert_after("a", Step("a")), ["a", "b", "c"]),
        (lambda r: r.unregister("b"), ["a", "c"]),
        (lambda r: r.unregister("zz"), ["a", "b", "c"]),
        (lambda r: r.replace("b", Other("d")), ["a", "d", "c"]),
        (lambda r: r.replace("b", Other("b")), ["a", "b", "c"]),
        (lambda r: r.register_group("g", [Step("x"), Step("y")]), ["a", "b", "c", "g"]),
    ],
)
def test_calls_that_change_the_list(call: Call, expected: list[str]) -> None:
    made = registry(Step("a"), Step("b"), Step("c"))
    call(made)
    assert names(made) == expected
    assert len(made) == len(expected)


class Nameless(Step):
    """Its name is given as it is."""

    def __init__(self, name: Any, weight: Any = 1.0) -> None:
        super().__init__(name, weight)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda r: r.register(Step("a")), ValueError, "Step 'a' is already registered"),
        (lambda r: r.insert_after("zz", Step("d")), ValueError, "Step 'zz' not found"),
        (lambda r: r.insert_before("zz", Step("a")), ValueError, "Step 'zz' not found"),
        (lambda r: r.insert_after("a", Other("b")), ValueError, "Step 'b' is already registered"),
        (lambda r: r.replace("zz", Step("d")), ValueError, "Step 'zz' not found"),
        (lambda r: r.replace("a", Step("b")), ValueError, "Step 'b' is already registered"),
        (lambda r: r.register(3), TypeError, "expected a BaseStep, got int"),
        (lambda r: r.register(Step), TypeError, "expected a BaseStep, got ABCMeta"),
        (lambda r: r.register(Nameless(3)), TypeError, "the name of a step must be a str, got int"),
        (lambda r: r.register(Nameless("")), ValueError, "the name of a step must not be empty"),
        (
            lambda r: r.register(Nameless("d", -1)),
            ValueError,
            "Step 'd': progress_weight must be a finite number >= 0, got -1",
        ),
        (
            lambda r: r.register(Nameless("d", math.nan)),
            ValueError,
            "Step 'd': progress_weight must be a finite number >= 0, got nan",
        ),
        (
            lambda r: r.register(Nameless("d", math.inf)),
            ValueError,
            "Step 'd': progress_weight must be a finite number >= 0, got inf",
        ),
        (
            lambda r: r.register(Nameless("d", "1")),
            ValueError,
            "Step 'd': progress_weight must be a finite number >= 0, got '1'",
        ),
        (lambda r: r.register_group("g", [Step("a")]), ValueError, "Step 'a' is already registered"),
        (lambda r: r.register_group("g", [Step("x"), Step("x")]), ValueError, "Step 'x' is already registered"),
        (lambda r: r.register_group("g", []), ValueError, "group 'g' has no steps"),
        (lambda r: r.register_group("g", [3]), TypeError, "expected a BaseStep, got int"),
        (
            lambda r: r.register_group("g", [ParallelSteps("h", [Step("x")])]),
            TypeError,
            "group 'h' cannot be inside a group",
        ),
        (
            lambda r: r.register_group("g", [Step("x")], max_workers=0),
            ValueError,
            "max_workers must be at least 1, got 0",
        ),
        (
            lambda r: r.register(LoggingStep(ParallelSteps("h", [Step("x")]))),
            TypeError,
            "group 'h' cannot be inside a wrapper",
        ),
        (lambda r: LoggingStep(3), TypeError, "expected a BaseStep, got int"),  # type: ignore[arg-type]
    ],
)
def test_what_is_refused_changes_nothing(call: Call, error: type[Exception], text: str) -> None:
    made = registry(Step("a"), Step("b"), Step("c"))
    before = made.get_steps()
    with pytest.raises(error) as caught:
        call(made)
    assert type(caught.value) is error
    assert str(caught.value) == text
    assert made.get_steps() == before


def test_unregister_says_whether_there_was_one() -> None:
    made = registry(Step("a"))
    assert made.unregister("a") is True
    assert made.unregister("a") is False


def test_it_looks_like_a_list() -> None:
    made = registry(Step("a", 0.1), Step("b", 0.2), Step("c", 0.7))
    steps = made.get_steps()
    steps.clear()
    assert bool(made)
    assert "a" in made
    assert "zz" not in made
    assert made.total_weight == 1.0
    empty = StepRegistry[BaseStepContext]()
    assert not empty
    assert empty.total_weight == 0


def test_members_of_a_group_have_names_of_their_own() -> None:
    made = registry(ParallelSteps("g", [Step("x", 0.25), Step("y", 0.5)]))
    assert made.total_weight == 0.75
    with pytest.raises(ValueError, match=r"^Step 'x' is already registered$"):
        made.register(Step("x"))


@pytest.mark.parametrize("missing", ["name", "progress_weight", "execute"])
def test_a_step_without_one_of_the_three_cannot_be_made(missing: str) -> None:
    parts: dict[str, Any] = {"name": "a", "progress_weight": 1.0, "execute": lambda self, context: StepResult()}
    del parts[missing]
    incomplete: Any = type("Incomplete", (BaseStep,), parts)
    with pytest.raises(TypeError, match=missing):
        incomplete()
