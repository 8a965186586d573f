"""How far a run says it is, to everybody who asks (durable.md §5.6)."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import RunFailed, durable_execution
from stepwell.client import run_object
from stepwell.client._follow import Follower
from stepwell.core import progress
from stepwell.durable import StepContext, ValidationError
from stepwell.durable.config import MapConfig
from tests.durable.kit import NEVER, nothing, raiser

if TYPE_CHECKING:
    from tests.durable.conftest import Run


def percent(run: Run, run_id: str = "r") -> float:
    """What `show` says, as a reader who comes just now sees it."""
    engine = run.engine
    return float(run_object(engine.store, engine.find(run_id))["progress"]["percent"])


def written(run: Run) -> None:
    """What rides is durable, as it would be some 100 ms later."""
    run.engine.host.lives["r"].commit(None, ())


def test_it_never_falls_while_steps_are_met(run: Run) -> None:
    seen: list[float] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        for n in range(4):
            context.step(nothing, name=f"s{n}")
            seen.append(percent(run))
        context.step(nothing, name="heavy", weight=16)
        seen.append(percent(run))

    run(handler, id="r")
    assert seen == [50.0, 66.7, 75.0, 80.0, 95.2]
    assert percent(run) == 100.0


@pytest.mark.parametrize("bad", [("much",), (None,), (-1,), (float("nan"),), (1, "x"), (1, -1), (1, 2, 3)])
def test_what_tells_nothing_is_refused(run: Run, bad: Any) -> None:
    refused: list[str] = []

    def tell(context: Any) -> None:
        with pytest.raises(ValidationError):
            context.progress(*bad)
        refused.append(type(context).__name__)

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        tell(context)
        context.step(tell, name="s")
        tell(StepContext(logging.getLogger(), 1))

    run(handler, id="r")
    assert refused == ["DurableContext", "StepContext", "StepContext"]
    assert percent(run) == 100


def test_a_failed_run_keeps_what_it_reached(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(nothing, name="a")
        context.step(raiser(ValueError("no")), name="b", retry=NEVER)

    with pytest.raises(RunFailed):
        run(handler, id="r")
    shown = run_object(run.engine.store, run.engine.find("r"))["progress"]
    assert shown == {"percent": 66.7, "eta_seconds": 0.0}


def test_what_a_step_tells_is_seen_by_others_and_never_falls(run: Run) -> None:
    seen: list[float] = []
    follower: list[Follower] = []

    def body(step: Any) -> None:
        for done in (1, 2, 1, 4):
            step.progress(done, 4)
            written(run)
            seen.append(percent(run))
            follower.append(Follower(run.engine.store, "r", run.engine.find("r").rid))
            assert seen[-1] == round(100 * progress(follower[0].look()), 1), "one who has looked before sees the same"

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(nothing, name="first")
        context.step(body, name="long")

    run(handler, id="r")
    assert seen == [55.6, 60.0, 60.0, 66.7]


def test_what_a_step_told_stays_when_other_work_is_met(run: Run) -> None:
    """Half of one step is done; then it turns out that there is another one beside it."""
    told, met = threading.Event(), threading.Event()
    seen: list[float] = []

    def first(step: Any) -> None:
        step.progress(0.5)
        written(run)
        seen.append(percent(run))
        told.set()
        assert met.wait(20)

    def second(step: Any) -> None:
        step.progress(0.0)
        written(run)
        seen.append(percent(run))
        met.set()

    def late(context: Any) -> None:
        context.step(nothing, name="wake")
        assert told.wait(20)
        for n in range(3):
            context.step(nothing, name=f"more{n}")
        context.step(second, name="second")

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.parallel([lambda c: c.step(first, name="first"), late])

    run(handler, id="r")
    assert seen[0] > 0
    assert seen[1] >= seen[0]


def test_a_map_counts_the_items_to_come(run: Run) -> None:
    seen: list[float] = []

    def item(context: Any, item: int) -> None:
        context.step(nothing, name="one")
        seen.append(percent(run))

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.map(range(10), item, config=MapConfig(max_concurrency=1))

    run(handler, id="r")
    assert seen == sorted(seen)
    assert seen[0] == pytest.approx(100 / 11, abs=0.1), "one step of ten items, and what the first may still do"
    assert seen[8] == pytest.approx(900 / 11, abs=0.1)
