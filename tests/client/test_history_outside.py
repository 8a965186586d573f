"""The AWS-shaped history of runs that wait for the outside, and of batches of them, held against files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Retry, durable_execution
from stepwell.durable import DurableContext
from stepwell.durable.config import (
    CallbackConfig,
    CompletionConfig,
    InvokeConfig,
    NestingType,
    ParallelBranch,
    ParallelConfig,
    WaitForCallbackConfig,
)
from stepwell.durable.lambda_service import ErrorObject
from tests.client.test_history import Shout, compare
from tests.client.virtual import Virtual
from tests.durable.kit import NEVER, Once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell import RunHandle

ONE_BY_ONE = ParallelConfig(max_concurrency=1)


@pytest.fixture
def virtual(request: pytest.FixtureRequest) -> Iterator[Virtual]:
    made = Virtual(request.node.name)
    yield made
    made.engine.stop()


def opened(handle: RunHandle) -> str:
    """Id of the callback that the run waits for."""
    (found,) = handle.callbacks()
    return str(found["id"])


# -- callbacks


def test_a_callback_that_is_answered(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.create_callback("ask", CallbackConfig(timeout=60, heartbeat_timeout=30)).result()

    handle = virtual.start(handler)
    virtual.engine.send_callback_heartbeat(opened(handle))
    virtual.engine.send_callback_success(opened(handle), "yes")
    virtual.live(handle)
    compare("callback-answered", handle)


def test_a_callback_with_serdes_and_nothing_sent(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        first = context.create_callback(config=CallbackConfig(serdes=Shout(), sub_type="Mine")).result()
        return [first, context.create_callback("empty").result()]

    handle = virtual.start(handler)
    virtual.engine.send_callback_success(opened(handle), "LOUD")
    virtual.live(handle)
    virtual.engine.send_callback_success(opened(handle))
    virtual.live(handle)
    compare("callback-serdes", handle)


def test_a_callback_that_fails(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.create_callback("ask").result()

    handle = virtual.start(handler)
    virtual.engine.send_callback_failure(opened(handle), ErrorObject("no", "Refused", None, None))
    virtual.live(handle)
    compare("callback-failed", handle)


@pytest.mark.parametrize("limit", ["timeout", "heartbeat_timeout"])
def test_a_callback_that_is_out_of_time(virtual: Virtual, limit: str) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = CallbackConfig(timeout=60) if limit == "timeout" else CallbackConfig(heartbeat_timeout=60)
        return context.create_callback("ask", config).result()

    handle = virtual.start(handler)
    if limit == "heartbeat_timeout":
        virtual.clock.advance(59)
        virtual.engine.send_callback_heartbeat(opened(handle))
        assert virtual.live(handle) is not None
    virtual.clock.advance(60)
    virtual.live(handle)
    compare(f"callback-{limit.replace('_', '-')}", handle)


def test_a_callback_answered_before_anybody_waits(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        callback = context.create_callback("ask")
        context.step(lambda _: virtual.engine.send_callback_success(callback.callback_id, "now"), name="answers")
        return callback.result()

    compare("callback-at-once", virtual.start(handler))


# -- wait_for_callback


def test_wait_for_callback(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.wait_for_callback(lambda callback_id, _: None, "approval", WaitForCallbackConfig(timeout=3600))

    handle = virtual.start(handler)
    virtual.engine.send_callback_success(opened(handle), "ok")
    virtual.live(handle)
    compare("wait-for-callback", handle)


def test_a_submitter_that_is_tried_again_in_a_child(virtual: Virtual) -> None:
    submit = Once(ConnectionError("busy"))
    config = WaitForCallbackConfig(retry_strategy=Retry(3, delay=2, jitter="none"))

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        def child(inner: DurableContext) -> Any:
            return inner.wait_for_callback(lambda callback_id: submit(), config=config)

        return context.run_in_child_context(child, "child")

    handle = virtual.start(handler)
    virtual.clock.advance(2)
    virtual.live(handle)
    virtual.engine.send_callback_success(opened(handle), "ok")
    virtual.live(handle)
    compare("wait-for-callback-retried", handle)


def test_a_submitter_that_fails(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = WaitForCallbackConfig(retry_strategy=NEVER)
        return context.wait_for_callback(lambda callback_id: 1 / 0, "approval", config)

    compare("wait-for-callback-submitter", virtual.start(handler))


def test_wait_for_callback_refused(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.wait_for_callback(lambda callback_id: None, "approval")

    handle = virtual.start(handler)
    virtual.engine.send_callback_failure(opened(handle), "no")
    virtual.live(handle)
    compare("wait-for-callback-refused", handle)


def test_wait_for_callback_out_of_time(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.wait_for_callback(lambda callback_id: None, "approval", WaitForCallbackConfig(timeout=5))

    compare("wait-for-callback-timeout", virtual.end(handler))


def test_an_approval(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.approve("Refund 100?", form={"amount": int}, name="refund")["amount"]

    handle = virtual.start(handler)
    virtual.engine.send_callback_success(opened(handle), '{"amount": 90}')
    virtual.live(handle)
    compare("approval", handle)


# -- invoke


def invoking(virtual: Virtual, handler: Any, *functions: Any) -> RunHandle:
    """The run to its end, and those that it invokes."""
    for function in functions:
        virtual.engine.register(function)
    handle = virtual.start(handler)
    while handle.status == "waiting":
        for child in handle.children():
            child.wait()
        assert virtual.live(handle) is None
    return handle


def test_an_invoke(virtual: Virtual) -> None:
    child = durable_execution(name="double")(lambda event, context: event * 2)

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        config = InvokeConfig(tenant_id="acme")
        return context.invoke("double", 21, "call", config)

    compare("invoke", invoking(virtual, handler, child))


def test_an_invoked_run_that_fails(virtual: Virtual) -> None:
    def fails(event: Any, context: Any) -> None:
        raise ValueError("bad input")

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.invoke("fails", None)

    compare("invoke-failed", invoking(virtual, handler, durable_execution(name="fails")(fails)))


def test_an_invoke_of_what_nobody_knows(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.invoke("nobody", None, "call")

    compare("invoke-unknown", virtual.end(handler))


def test_an_invoke_out_of_time(virtual: Virtual) -> None:
    slow = durable_execution(name="slow")(lambda event, context: context.create_callback("never").result())

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.invoke("slow", None, "call", InvokeConfig(timeout=60))

    virtual.engine.register(slow)
    compare("invoke-timeout", virtual.end(handler))


def test_an_invoked_run_that_invokes(virtual: Virtual) -> None:
    inner = durable_execution(name="inner")(lambda event, context: event + 1)
    outer = durable_execution(name="outer")(lambda event, context: context.invoke("inner", event))
    plain = virtual.engine.register_function("plain", lambda event: event * 10)
    assert plain.name == "plain"

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.invoke("plain", context.invoke("outer", 1, "outer"), "plain")

    handle = invoking(virtual, handler, inner, outer)
    compare("invoke-nested", handle)
    (child,) = [run for run in handle.children() if run.children()]
    events = child.history("aws")["Events"]
    assert [event["EventType"] for event in events] == [
        "ExecutionStarted", "ChainedInvokeStarted", "InvocationCompleted",
        "ChainedInvokeSucceeded", "InvocationCompleted", "ExecutionSucceeded",
    ]  # fmt: skip


def test_a_run_that_is_only_started(virtual: Virtual) -> None:
    child = durable_execution(name="aside")(lambda event, context: event)

    @durable_execution
    def handler(event: Any, context: DurableContext) -> None:
        context.start_run("aside", 1, name="aside")

    compare("start-run", invoking(virtual, handler, child))


# -- parallel, gather and race


def give(value: Any) -> Any:
    return lambda context: context.step(lambda _: value, name="give")


def fail(context: DurableContext) -> None:
    raise ValueError("the branch failed")


def test_a_parallel(virtual: Virtual) -> None:
    def waits(context: DurableContext) -> str:
        context.wait(1)
        return "late"

    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        branches = [give("a"), ParallelBranch(waits, "waits")]
        return context.parallel(branches, "both", ONE_BY_ONE).get_results()

    compare("parallel", virtual.end(handler))


def test_a_parallel_that_fails_fast(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        context.parallel([give("a"), fail, give("c")], config=ONE_BY_ONE).throw_if_error()

    compare("parallel-failed", virtual.end(handler))


def test_a_parallel_that_ends_early_and_a_flat_one(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        first = ParallelConfig(max_concurrency=1, completion_config=CompletionConfig.first_successful())
        early = context.parallel([fail, give("b"), give("c")], "early", first)
        flat = ParallelConfig(max_concurrency=1, nesting_type=NestingType.FLAT, item_serdes=Shout())
        return [early.completion_reason.value, context.parallel([give("a"), give("b")], "flat", flat).get_results()]

    compare("parallel-early", virtual.end(handler))


def test_an_empty_parallel(virtual: Virtual) -> None:
    @durable_execution
    def handler(event: Any, context: DurableContext) -> Any:
        return context.parallel([], "none").total_count

    compare("parallel-empty", virtual.end(handler))


def test_gather_and_race(virtual: Virtual) -> None:
    async def quick(context: Any) -> Any:
        return await context.step(lambda _: 1, name="quick")

    async def slow(context: Any) -> None:
        await context.wait(60, "slow")

    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        return [await context.gather(quick, quick), await context.race(slow, quick)]

    compare("gather-and-race", virtual.end(handler))


def test_callbacks_of_many_branches(virtual: Virtual) -> None:
    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        async def ask(inner: Any, item: str) -> Any:
            return await (await inner.create_callback(item)).result()

        return (await context.map(["a", "b"], ask, "each")).get_results()

    handle = virtual.start(handler)
    for name in ("b", "a"):
        (found,) = [c["id"] for c in handle.callbacks() if c["name"] == name]
        virtual.engine.send_callback_success(found, name * 3)
        virtual.live(handle)
    compare("callbacks-in-map", handle)
    ids = re.findall(r"'CallbackId': '([^']+)'", str(handle.history("aws")))
    assert len(set(ids)) == 2
