"""The two contexts are twins: same methods, same signatures, and equal journals, whatever the frames and the time do
(durable.md §19.6).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import AsyncDurableContext, DurableContext, Engine, Retry, durable_execution, with_retry
from stepwell.durable import WithRetryConfig
from stepwell.durable.config import CompletionConfig, MapConfig, NestingType, ParallelConfig
from stepwell.durable.waits import WaitForConditionConfig, WaitForConditionDecision
from stepwell.testing import DurableRunner
from tests.durable.kit import NEVER, raiser, records, without_times

if TYPE_CHECKING:
    from collections.abc import Callable

LATER = Retry(3, delay=0.001, jitter="none")


def public(context: type) -> dict[str, Any]:
    return {name: getattr(context, name) for name in dir(context) if not name.startswith("_")}


def test_names() -> None:
    assert set(public(DurableContext)) == set(public(AsyncDurableContext))


@pytest.mark.parametrize("name", [n for n, v in public(DurableContext).items() if inspect.isfunction(v)])
def test_signatures(name: str) -> None:
    def shape(context: type) -> list[Any]:
        parameters = inspect.signature(getattr(context, name)).parameters.values()
        return [(p.name, p.kind, p.default) for p in parameters]

    assert shape(DurableContext) == shape(AsyncDurableContext)
    assert getattr(DurableContext, name).__doc__
    assert getattr(AsyncDurableContext, name).__doc__


def test_attributes_are_the_same_objects() -> None:
    for name, value in public(DurableContext).items():
        if isinstance(value, property):
            assert getattr(AsyncDurableContext, name) is value


def flaky(context: Any) -> int:
    if context.attempt < 3:
        raise ConnectionError("away")
    return int(context.attempt)


def stop(state: int, attempts: int) -> WaitForConditionDecision:
    return WaitForConditionDecision.stop_polling() if state > 2 else WaitForConditionDecision.continue_waiting(0.001)


ONE_BY_ONE: Any = MapConfig(max_concurrency=1, completion_config=CompletionConfig.all_completed())
FLAT: Any = MapConfig(max_concurrency=1, nesting_type=NestingType.FLAT)
POLL: Any = WaitForConditionConfig(stop, 0)


def block_sync(child: Any, *_: Any) -> Any:
    child.wait(0.001, name="w")
    return child.step(lambda: child.key, name="s")


async def block_async(child: Any, *_: Any) -> Any:
    await child.wait(0.001, name="w")
    return await child.step(lambda: child.key, name="s")


def again_sync(child: Any, attempt: int) -> Any:
    return child.step((lambda: attempt) if attempt == 2 else raiser(ValueError("no")), name="s", retry=NEVER)


async def again_async(child: Any, attempt: int) -> Any:
    return await child.step((lambda: attempt) if attempt == 2 else raiser(ValueError("no")), name="s", retry=NEVER)


AGAIN: Any = WithRetryConfig(LATER)
SERIAL = ParallelConfig(max_concurrency=1)
OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "step": lambda c, block, again: c.step(lambda: 1, name="s"),
    "unnamed": lambda c, block, again: c.step(lambda: 1),
    "retried": lambda c, block, again: c.step(flaky, name="f", retry=LATER),
    "failed": lambda c, block, again: c.step(raiser(ValueError("no")), name="f", retry=NEVER),
    "once": lambda c, block, again: c.once("k", lambda: 1),
    "wait": lambda c, block, again: c.wait(0.002, name="w"),
    "child": lambda c, block, again: c.run_in_child_context(block, "c"),
    "map": lambda c, block, again: c.map([1, 2], block, "m", ONE_BY_ONE),
    "flat": lambda c, block, again: c.map([1, 2], block, "m", FLAT),
    "parallel": lambda c, block, again: c.parallel([block, block], "p", SERIAL),
    "poll": lambda c, block, again: c.wait_for_condition(lambda state, _: state + 1, POLL, "poll"),
    "on_failure": lambda c, block, again: c.on_failure(lambda _: None, name="undo"),
    "with_retry": lambda c, block, again: with_retry(c, again, AGAIN, "r"),
    "randint": lambda c, block, again: c.randint(1, 1),
}


def journal(operation: str, colour: str, hold: float | None) -> list[dict[str, Any]]:
    """Of a run that fails; ``hold`` None: in virtual time."""
    call = OPERATIONS[operation]

    @durable_execution(name="twin")
    def plain(event: Any, context: Any) -> str:
        try:
            call(context, block_sync, again_sync)
        except ValueError:
            pass
        context.step(lambda: 2, name="after")
        raise LookupError("end")

    @durable_execution(name="twin")
    async def coloured(event: Any, context: Any) -> str:
        try:
            await call(context, block_async, again_async)
        except ValueError:
            pass
        await context.step(lambda: 2, name="after")
        raise LookupError("end")

    function = plain if colour == "def" else coloured
    if hold is None:
        with DurableRunner(function, replay_twice=False) as runner:
            handle = runner.start(id="r")
            assert runner.result(handle).error is not None
            return [_without_stack(r) for r in without_times(handle.history())]
    engine = Engine(f"memory://twins-{operation}-{colour}-{hold}", hold=hold)
    try:
        with pytest.raises(LookupError):
            engine.run(function, id="r")
        return [_without_stack(r) for r in records(engine, "r")]
    finally:
        engine.stop()


def _without_stack(record: dict[str, Any]) -> dict[str, Any]:
    return record | {"error": record["error"][:2]} if record.get("error") else record


@pytest.mark.parametrize("operation", OPERATIONS)
def test_journals_are_equal(operation: str) -> None:
    first = journal(operation, "def", 60)
    assert len(first) > 3
    for colour, hold in (("def", 0), ("async def", 60), ("async def", 0), ("def", None), ("async def", None)):
        assert journal(operation, colour, hold) == first, (colour, hold)
