"""What a context says of its run and of itself, and what a handle answers (durable.md §2.4, §4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import RunCancelled, RunFailed, durable_execution
from stepwell.durable.config import ChildConfig, MapConfig, NestingType
from tests.durable.kit import FAST, NEVER, Once, Plug, nothing, raiser

if TYPE_CHECKING:
    from tests.durable.conftest import Run


def test_attempt_of_run_counts_retries_and_nothing_else(run: Run) -> None:
    seen: list[int] = []
    plug, fails = Once(Plug()), [ValueError("one"), ValueError("two")]

    def body() -> str:
        if fails:
            raise fails.pop(0)
        return "done"

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        seen.append(context.attempt_of_run)
        plug()
        return context.step(body, name="s", retry=NEVER)

    with pytest.raises(Plug):
        run(handler, id="r")
    with pytest.raises(RunFailed):
        run(handler, id="r")
    handle = run.engine.get_run("r")
    with pytest.raises(RunFailed):
        handle.retry()
    assert handle.retry() == "done"
    assert seen == [1, 1, 2, 3], "a crash is no retry"


def test_attempt_of_run_is_that_of_every_scope(run: Run) -> None:
    once = Once(ValueError("once"))

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(once, name="s", retry=NEVER)
        return context.run_in_child_context(lambda child: child.attempt_of_run, "c")

    with pytest.raises(RunFailed):
        run(handler, id="r")
    assert run.engine.get_run("r").retry() == 2


def virtual(context: Any, *_: Any) -> bool:
    return bool(context.is_virtual)


async def virtual_async(context: Any, *_: Any) -> bool:
    return bool(context.is_virtual)


FLAT: Any = MapConfig(nesting_type=NestingType.FLAT)


def test_is_virtual(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return [
            context.is_virtual,
            context.run_in_child_context(virtual, "real"),
            context.run_in_child_context(virtual, "virtual", ChildConfig(is_virtual=True)),
            context.run_in_child_context(
                lambda child: child.run_in_child_context(virtual, "inner"), "around", ChildConfig(is_virtual=True)
            ),
            context.map([1], virtual, "nested").get_results(),
            context.map([1], virtual, "flat", FLAT).get_results(),
        ]

    @durable_execution
    async def twin(event: Any, context: Any) -> Any:
        async def inner(child: Any) -> Any:
            return await child.run_in_child_context(virtual_async, "inner")

        return [
            context.is_virtual,
            await context.run_in_child_context(virtual_async, "real"),
            await context.run_in_child_context(virtual_async, "virtual", ChildConfig(is_virtual=True)),
            await context.run_in_child_context(inner, "around", ChildConfig(is_virtual=True)),
            (await context.map([1], virtual_async, "nested")).get_results(),
            (await context.map([1], virtual_async, "flat", FLAT)).get_results(),
        ]

    expected = [False, False, True, False, [False], [True]]
    assert run(handler) == expected
    assert run(twin) == expected


# -- handles


def test_what_is_not_there_is_a_lookup_error_that_lists_what_is(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(nothing, name="load")
        context.step(nothing)
        context.wait(0, name="pause")
        context.run_in_child_context(lambda child: child.step(nothing, name="inside"), "etl")
        context.map([1], lambda child, item: None, "each")

    run(handler, id="r")
    handle = run.engine.get_run("r")
    for get, listed in (
        (handle.get_step, "it has: inside, load"),
        (handle.get_wait, "it has: pause"),
        (handle.get_context, "it has: each, etl, map-item-0"),
    ):
        with pytest.raises(LookupError, match=listed) as missing:
            get("gone")
        assert "run r has no" in str(missing.value)
        assert "'gone'" in str(missing.value)
    run(durable_execution(lambda event: None), id="empty")
    with pytest.raises(LookupError, match="it has: none"):
        run.engine.get_run("empty").get_step("gone")


def test_an_operation_has_its_times_its_result_and_its_error(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: {"rows": (1, 2)}, name="load")
        context.step(Once(OSError("away")), name="mend", retry=FAST)
        context.step(raiser(ValueError("no")), name="send", retry=NEVER)

    with pytest.raises(RunFailed):
        run(handler, id="r")
    handle = run.engine.get_run("r")
    load, send = handle.get_step("load"), handle.get_step("send")
    assert (load.result, load.status.name, load.attempt, load.parent_id) == ({"rows": (1, 2)}, "SUCCEEDED", 1, None)
    assert load.start_timestamp is not None
    assert load.end_timestamp is not None
    assert load.start_timestamp <= load.end_timestamp
    assert load.start_timestamp.tzinfo is not None
    assert (send.status.name, send.result) == ("FAILED", None)
    mended = handle.get_step("mend")
    assert (mended.result, mended.attempt, mended.error) == (2, 2, None)
    assert send.error is not None
    assert (send.error.type, send.error.message) == ("ValueError", "no")
    assert handle.error is not None
    assert (handle.error.type, handle.error.message) == ("StepError", "no")


def test_history_and_logs_and_children(run: Run) -> None:
    inner = durable_execution(name="inner")(lambda event: event)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(lambda step: step.logger.info("said") or run.engine.run(inner, 5, id="c"), name="s")

    assert run(handler, id="r") == 5
    handle = run.engine.get_run("r")
    assert [record["record"] for record in handle.history()][-2:] == ["StepSucceeded", "RunSucceeded"]
    assert [(line["key"], line["text"]) for line in handle.logs()] == [("s", "said")]
    assert handle.logs("other") == []
    assert [child.id for child in handle.children()] == ["c"]


def test_cancel_says_why(run: Run) -> None:
    handler = durable_execution(lambda event: None)
    run.engine.register(handler)
    handle = run.engine.enqueue(handler, id="r")
    handle.cancel("changed my mind")
    with pytest.raises(RunCancelled, match="changed my mind"):
        handle.resume()
    assert handle.status == "cancelled"
