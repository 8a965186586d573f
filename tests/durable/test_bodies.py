"""Bodies that are told to stop, or whose time is up: what they say afterwards is dropped (durable.md §5.6, §10)."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import RunCancelled, durable_execution, durable_step
from stepwell.durable import StepContext, StepTimeoutError, continue_batch
from stepwell.durable.config import CompletionConfig, MapConfig, ParallelConfig
from stepwell.durable.exceptions import InvalidStateError
from stepwell.durable.serdes import SerDes, SerDesContext
from tests.durable.kit import NEVER, Once, Plug, names, raiser, records

if TYPE_CHECKING:
    from tests.durable.conftest import Run


def test_what_a_sync_body_says_after_its_time_is_dropped(run: Run) -> None:
    leave, left, said = threading.Event(), threading.Event(), list[BaseException]()

    @durable_step
    def body(context: StepContext) -> str:
        assert leave.wait(20)
        for call in (context.check, context.heartbeat):
            try:
                call()
            except InvalidStateError as error:
                said.append(error)
        context.progress(1)
        assert context.cancelled
        left.set()
        return "late"

    @durable_execution
    def handler(event: Any, context: Any) -> str:
        try:
            context.step(body(), timeout=0.02, retry=NEVER)
        except StepTimeoutError:
            leave.set()
            assert left.wait(20)
        return "on time"

    assert run(handler, id="r") == "on time"
    assert ["its time was up" in str(error) for error in said] == [True, True]
    assert names(run.engine, "r")[1:] == ["StepStarted body", "StepFailed body", "RunSucceeded"]
    store, row = run.engine.store, run.engine.find("r")
    assert store.note_load(row.rid, kind=None, key=None, after=0, limit=9) == []


def test_an_async_body_of_an_async_run_is_cancelled_at_its_time(run: Run) -> None:
    ended: list[str] = []

    async def body() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    @durable_execution
    async def handler(event: Any, context: Any) -> None:
        await context.step(body, name="s", timeout=0.02, retry=NEVER)

    with pytest.raises(StepTimeoutError):
        run(handler)
    assert ended == ["cancelled"]


# -- cancelling


@pytest.mark.parametrize("where", ["check", "operation"])
def test_a_live_run_sees_a_cancel_at_its_next_operation_or_check(run: Run, where: str) -> None:
    inside, leave, after = threading.Event(), threading.Event(), list[str]()

    @durable_step
    def body(context: StepContext) -> None:
        inside.set()
        assert leave.wait(20)
        if where == "check":
            while not context.cancelled:
                pass
            context.check()
        after.append("body")

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(body(), undo=lambda c, result: after.append("undone"))
        context.step(lambda: after.append("next"), name="next")

    handle = run.engine.start_run(handler, id="r")
    assert inside.wait(20)
    handle.cancel("enough")
    leave.set()
    with pytest.raises(RunCancelled, match="enough"):
        handle.result(20)
    assert after == ([] if where == "check" else ["body", "undone"])


# -- an early end


def test_running_bodies_see_that_their_batch_has_ended(run: Run) -> None:
    inside, seen, left = threading.Event(), list[bool](), threading.Event()

    @durable_step
    def slow(context: StepContext) -> None:
        seen.append(context.cancelled)
        inside.set()
        while not context.cancelled:
            pass
        seen.append(True)
        left.set()

    def quick(child: Any) -> str:
        assert inside.wait(20)
        return "first"

    def after(child: Any) -> None:
        child.step(slow())
        child.step(lambda: seen.append(False), name="never")

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        config = ParallelConfig(completion_config=CompletionConfig.first_successful())
        return context.parallel([after, quick], "p", config).get_results()

    assert run(handler, id="r") == ["first"]
    assert left.wait(20)
    assert seen == [False, True]
    assert run.keys("r", "ScopeCancelled") == ["p[0]"]


def test_branches_that_never_got_a_slot_are_left_out(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        config: Any = MapConfig(2, CompletionConfig.first_successful())
        return [item.index for item in context.map(range(9), lambda c, i: i, "m", config).all]

    assert set(run(handler, id="r")) <= {0, 1, 2}
    assert len(run.keys("r", "ScopeStarted")) <= 4


# -- values of a batch


class Marked(SerDes[Any]):
    """Says where it has been."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:
        return f"{self.mark}:{value}"

    def deserialize(self, data: str, serdes_context: SerDesContext) -> str:
        return data


@pytest.mark.parametrize(
    "config, expected",
    [
        (MapConfig(item_serdes=Marked("item")), ["item:1", "item:2"]),
        (MapConfig(serdes=Marked("both")), ["both:1", "both:2"]),
    ],
)
def test_items_have_a_serdes_of_their_own_or_that_of_the_batch(run: Run, config: Any, expected: list[str]) -> None:
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        batch = context.map([1, 2], lambda c, i: i, "m", config)
        found = batch if isinstance(batch, str) else batch.get_results()
        context.step(plug, name="t")
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    found = run(handler, id="r")
    stored = [r["payload"] for r in records(run.engine, "r") if r["record"] == "ScopeSucceeded" and "[" in r["key"]]
    assert sorted(stored) == expected
    assert all(text in str(found) for text in expected)


def test_should_complete_sees_every_item(run: Run) -> None:
    seen: list[Any] = []

    def decide(status: Any) -> Any:
        seen.append([(item.index, item.status and item.status.name) for item in status.items])
        return continue_batch()

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        config: Any = MapConfig(1, CompletionConfig(should_complete=decide))
        context.map([1, 2], lambda c, i: raiser(ValueError("no"))() if i == 1 else i, "m", config)

    run(handler)
    assert seen == [[(0, "FAILED"), (1, None)], [(0, "FAILED"), (1, "SUCCEEDED")]]


# -- undo


def test_an_undo_has_five_attempts_by_default(run: Run) -> None:
    plans: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: 1, name="s", undo=lambda c, result: None)
        plan = context._scope.life.undos["s"].plan
        plans.extend(plan("undo/s", ValueError("no"), made) is not None for made in range(1, 7))

    run(handler)
    assert plans == [True] * 4 + [False] * 2
