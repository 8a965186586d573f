"""Runs that other runs invoke (durable.md §8)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest

from stepwell import Engine, durable_execution
from stepwell.client._drive import Asked
from stepwell.durable import InvokeError, SerDesError, ValidationError
from stepwell.durable._outside import RunRef, child_id
from stepwell.durable.config import InvokeConfig
from stepwell.durable.serdes import PassThroughSerDes
from stepwell.errors import RunFailed
from stepwell.testing import DurableRunner
from tests.durable.kit import NEVER, giver, raiser, records
from tests.durable.twins import Way, at_every_append, coloured, journal, violations

SOON = 30


async def doubles(event: Any, context: Any) -> Any:
    await context.wait(0.01)
    return await context.step(giver(event["n"] * 2), name="double")


async def invokes(event: Any, context: Any) -> Any:
    first = await context.invoke("doubles", {"n": event.get("n", 4)}, name="child", config=InvokeConfig(timeout=SOON))
    return [first, await context.step(giver("after"), name="after")]


async def breaks(event: Any, context: Any) -> Any:
    await context.step(raiser(ValueError("broken")), name="s", retry=NEVER)


async def stays(event: Any, context: Any) -> Any:
    return await context.wait_signal("go", timeout=25)


def kinds(engine: Engine, run_id: str = "r") -> list[str]:
    return [r["record"] for r in records(engine, run_id)]


# -- the value


def test_a_child_is_a_run_of_its_own(way: Way) -> None:
    way.function(doubles)
    assert way.run(invokes) == [8, "after"]
    (child,) = way.engine.get_run("r").children()
    assert child.id == child_id("r", "child", 0)
    assert child.id.startswith("c-")
    assert len(child.id) == 42
    assert (child.status, child.result()) == ("succeeded", 8)
    row = way.engine.find(child.id)
    assert (row.parent, row.function) == ("r", "doubles")
    assert kinds(way.engine) == [
        "RunStarted",
        "InvokeStarted",
        "InvokeSucceeded",
        "StepStarted",
        "StepSucceeded",
        "RunSucceeded",
    ]
    assert violations(way.engine, "r") == violations(way.engine, child.id) == []


def test_the_parent_parks(way: Way) -> None:
    way.function(stays)

    async def body(event: Any, context: Any) -> Any:
        return await context.invoke("stays", None, "child", InvokeConfig(timeout=SOON))

    handle = way.start(body)
    assert handle.status == "waiting"
    (child,) = way.until(handle.children)
    way.until(lambda: child.status == "waiting")
    child.signal("go", [1, (2, 3)])
    assert handle.result(20) == [1, (2, 3)]


def test_the_function_itself_is_named(way: Way) -> None:
    function = way.function(doubles, name=None)

    async def body(event: Any, context: Any) -> Any:
        return await context.invoke(function, {"n": 1})

    assert way.run(body) == 2
    assert "InvokeStarted" in kinds(way.engine)
    started = next(r for r in way.engine.get_run("r").history() if r["record"] == "InvokeStarted")
    assert (started["key"], started["name"]) == ("invoke", None)


@pytest.mark.parametrize(
    "name",
    [
        "doubles", "doubles:$LATEST", "doubles:7", "doubles:live",
        "arn:aws:lambda:eu-west-1:123456789012:function:doubles",
        "arn:aws:lambda:eu-west-1:123456789012:function:doubles:$LATEST",
    ],
)  # fmt: skip
def test_names_with_version_and_arn(way: Way, name: str) -> None:
    way.function(doubles)

    async def body(event: Any, context: Any) -> Any:
        return await context.invoke(name, {"n": 3})

    assert way.run(body) == 6


def test_sync_and_async_invoke_each_other(way: Way) -> None:
    other = "async def" if way.colour == "def" else "def"
    coloured(doubles, other)
    assert way.run(invokes) == [8, "after"]


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": (1, {2})}, float("inf"), b"x"])
def test_values_go_there_and_back(way: Way, value: Any) -> None:
    async def echo(event: Any, context: Any) -> Any:
        return event

    way.function(echo)

    async def body(event: Any, context: Any) -> Any:
        got = await context.invoke("echo", value)
        await context.wait(0.01)
        return [got == value, type(got) is type(value)]

    assert way.run(body) == [True, True]


def test_a_result_of_5_mb_is_kept_once(way: Way) -> None:
    async def large(event: Any, context: Any) -> Any:
        return "x" * 5_000_000

    way.function(large)

    async def body(event: Any, context: Any) -> Any:
        return len(await context.invoke("large", None, "child"))

    assert way.run(body) == 5_000_000
    (child,) = way.engine.get_run("r").children()
    ended = next(r for r in way.engine.get_run("r").history() if r["record"] == "InvokeSucceeded")
    end = next(r for r in child.history() if r["record"] == "RunSucceeded")
    assert ended["payload"] == end["payload"]
    assert ended["payload"][1] == 5_000_002  # a reference: hash and size


def test_serdes_of_payload_and_result(way: Way) -> None:
    async def echo(event: Any, context: Any) -> Any:
        return [event]

    way.function(echo)

    async def body(event: Any, context: Any) -> Any:
        config = InvokeConfig(serdes_payload=PassThroughSerDes(), serdes_result=PassThroughSerDes())
        return await context.invoke("echo", '{"raw": 1}', "child", config)

    assert way.run(body) == '[{"raw":1}]'


def test_a_payload_that_cannot_be_recorded(way: Way) -> None:
    way.function(doubles)

    async def body(event: Any, context: Any) -> Any:
        try:
            await context.invoke("doubles", object(), "child")
        except SerDesError:
            return "refused"
        return "never"

    assert way.run(body) == "refused"
    assert way.engine.get_run("r").children() == []


@pytest.mark.parametrize("bad", ["", None, 7, lambda event: event])
def test_neither_a_function_nor_a_name(way: Way, bad: Any) -> None:
    async def body(event: Any, context: Any) -> Any:
        said = []
        for method in ("invoke", "start_run"):
            try:
                await getattr(context, method)(bad, None)
            except ValidationError as error:
                said.append(str(error).partition(",")[0])
        return said

    expected = [f"context.{m} needs a durable function or the name of one" for m in ("invoke", "start_run")]
    assert way.run(body) == expected
    assert kinds(way.engine) == ["RunStarted", "RunSucceeded"]


# -- errors


def test_a_child_that_fails(way: Way) -> None:
    way.function(breaks)

    async def body(event: Any, context: Any) -> Any:
        try:
            await context.invoke("breaks", None, "child")
        except InvokeError as error:
            await context.wait(0.01)
            return [type(error).__name__, error.error_type, str(error), isinstance(error, ValueError)]
        return "never"

    name, kind, text, is_value_error = way.run(body)
    assert (name, text, is_value_error) == ("InvokeError", "broken", True)
    assert kind in ("StepError", "ValueError")
    failed = next(r for r in way.engine.get_run("r").history() if r["record"] == "InvokeFailed")
    assert failed["how"] == "failed"


def test_an_error_nobody_catches_fails_the_parent(way: Way) -> None:
    way.function(breaks)

    async def body(event: Any, context: Any) -> Any:
        await context.invoke("breaks", None, "child")

    with pytest.raises(RunFailed, match="broken") as failed:
        way.run(body)
    assert isinstance(failed.value, InvokeError)
    assert isinstance(failed.value, ValueError)


def test_a_child_that_is_cancelled(way: Way) -> None:
    way.function(stays)

    async def body(event: Any, context: Any) -> Any:
        try:
            await context.invoke("stays", None, "child", InvokeConfig(timeout=SOON))
        except InvokeError as error:
            return [error.error_type, str(error)]
        return "never"

    handle = way.start(body)
    (child,) = way.until(handle.children)
    child.cancel("not needed")
    kind, text = handle.result(20)
    assert kind == "RunCancelled"
    assert "was cancelled: not needed" in text


def test_a_child_whose_own_time_is_up(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.invoke("short", None, "child")
        except InvokeError as error:
            return [error.error_type, str(error)]
        return "never"

    short = coloured(stays, colour, name="short", timeout=10)
    with DurableRunner(coloured(body, colour)).register("short", short) as runner:
        handle = runner.start()
        runner._kit.settle()
        runner.advance(11)
        kind, text = runner.result(handle).result
    assert kind == "RunTimedOut"
    assert "timed out" in text


def test_the_caller_does_not_wait_for_ever(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.invoke("stays", None, "child", InvokeConfig(timeout=10))
        except InvokeError as error:
            return [error.error_type, str(error)]
        return "never"

    with DurableRunner(coloured(body, colour)).register("stays", coloured(stays, colour)) as runner:
        handle = runner.start()
        runner._kit.settle()
        runner.advance(9)
        assert handle.status == "waiting"
        runner.advance(2)
        assert runner.result(handle).result == ["Invoke.Timeout", "'stays' did not end in time"]
        runner._kit.settle()
        (child,) = handle.children()
        assert child.status == "cancelled"


def test_a_function_that_nobody_knows(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.invoke("nobody-knows", None, "child")
        except InvokeError as error:
            await context.wait(0.01)
            return [str(error), error.error_type]
        return "never"

    assert way.run(body) == ["function 'nobody-knows' is not registered", "FunctionNotRegistered"]
    assert kinds(way.engine)[1:3] == ["InvokeStarted", "InvokeFailed"]
    assert way.engine.get_run("r").children() == []


# -- ids


def test_an_id_of_ones_own(way: Way) -> None:
    way.function(doubles)

    async def body(event: Any, context: Any) -> Any:
        return await context.invoke("doubles", {"n": 2}, "child", InvokeConfig(id="order-7"))

    assert way.run(body) == 4
    (child,) = way.engine.get_run("r").children()
    assert child.id == "order-7"


def test_an_id_that_is_taken_by_another_run(way: Way) -> None:
    function = way.function(doubles)
    way.engine.run(function, {"n": 1}, id="taken")

    async def body(event: Any, context: Any) -> Any:
        try:
            await context.invoke("doubles", {"n": 2}, "child", InvokeConfig(id="taken"))
        except InvokeError as error:
            return error.error_type
        return "never"

    assert way.run(body) == "DuplicateRun"


@pytest.mark.parametrize("bad", ["a b", "a/b", "", "x" * 129])
def test_a_bad_id(way: Way, bad: str) -> None:
    way.function(doubles)

    async def body(event: Any, context: Any) -> Any:
        await context.invoke("doubles", {"n": 2}, "child", InvokeConfig(id=bad))

    with pytest.raises(Exception, match="id"):
        way.run(body)
    assert way.engine.get_run("r").children() == []


def test_the_same_child_asked_twice_is_two(way: Way) -> None:
    way.function(doubles)

    async def body(event: Any, context: Any) -> Any:
        return [await context.invoke("doubles", {"n": n}, "child") for n in (1, 2)]

    assert way.run(body) == [2, 4]
    assert len(way.engine.get_run("r").children()) == 2


# -- start_run


def test_start_run_does_not_wait(way: Way) -> None:
    function = way.function(stays)

    async def body(event: Any, context: Any) -> Any:
        ref = await context.start_run("stays", None, name="bg")
        again = await context.start_run(function, None, id="mine")
        await context.wait(0.01)
        return [isinstance(ref, RunRef), ref.id, again.id]

    ok, first, second = way.run(body)
    assert (ok, first, second) == (True, child_id("r", "bg", 0), "mine")
    for run_id in (first, second):
        child = way.engine.get_run(run_id)
        assert child.status in ("running", "waiting", "pending")
        child.signal("go", run_id)
        assert child.result(20) == run_id
        assert way.engine.find(run_id).parent == "r"


def test_start_run_of_what_nobody_knows(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.start_run("nobody-knows", None)
        except InvokeError as error:
            return str(error)
        return "never"

    assert way.run(body) == "function 'nobody-knows' is not registered"


# -- plain functions, tenants, depth, cycles


def test_a_plain_function_is_one_step(way: Way) -> None:
    calls: list[Any] = []

    def plain(event: Any) -> Any:
        calls.append(event)
        return event["n"] + 1

    async def plain_async(event: Any, context: Any) -> Any:
        return [event, context.tenant_id]

    way.engine.register_function("plain", plain)
    way.engine.register_function("async", plain_async)

    async def body(event: Any, context: Any) -> Any:
        first = await context.invoke("plain", {"n": 1}, "child")
        await context.wait(0.01)
        return [first, await context.invoke("async", 7, config=InvokeConfig(tenant_id="acme"))]

    assert way.run(body) == [2, [7, "acme"]]
    assert calls == [{"n": 1}]
    child = way.engine.get_run(child_id("r", "child", 0))
    assert [r["record"] for r in child.history()] == [
        "RunStarted",
        "LifeStarted",
        "StepStarted",
        "StepSucceeded",
        "RunSucceeded",
    ]


def test_the_tenant_is_recorded_and_shown(way: Way) -> None:
    async def whose(event: Any, context: Any) -> Any:
        return context.lambda_context.tenant_id

    way.function(whose)

    async def body(event: Any, context: Any) -> Any:
        return [await context.invoke("whose", None, config=InvokeConfig(tenant_id=tenant)) for tenant in ("acme", None)]

    assert way.run(body) == ["acme", None]
    started = [r["tenant"] for r in records(way.engine, "r") if r["record"] == "InvokeStarted"]
    assert started == ["acme", None]


async def deep(event: Any, context: Any) -> Any:
    if event["left"] == 0:
        return 0
    return 1 + await context.invoke("deep", {"left": event["left"] - 1})


def test_runs_invoke_each_other_a_hundred_deep(colour: str) -> None:
    way = Way(colour, 0, f"deep-{colour}")
    function = way.function(deep)
    assert way.engine.run(function, {"left": 100}, id="r") == 100
    with pytest.raises(RunFailed, match="runs invoke each other 100 deep; 'deep' was not started"):
        way.engine.run(function, {"left": 101}, id="too deep".replace(" ", "-"))
    way.engine.stop()


def test_two_that_invoke_each_other(way: Way) -> None:
    async def ping(event: Any, context: Any) -> Any:
        return [event, await context.invoke("pong", event - 1)] if event else "end"

    async def pong(event: Any, context: Any) -> Any:
        return [event, await context.invoke("ping", event - 1)] if event else "end"

    way.function(pong)
    assert way.run(ping, 4) == [4, [3, [2, [1, "end"]]]]


# -- many at once, and from inside


def test_a_dozen_children_of_a_map(way: Way) -> None:
    way.function(doubles)

    async def item(child: Any, item: Any, *_: Any) -> Any:
        return await child.invoke("doubles", {"n": item}, "child")

    async def body(event: Any, context: Any) -> Any:
        found = await context.map(range(12), item, "m")
        found.throw_if_error()
        return found.get_results()

    assert way.run(body) == [2 * n for n in range(12)]
    assert len(way.engine.get_run("r").children()) == 12
    assert violations(way.engine, "r") == []


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_children_of_a_map_on_few_threads(colour: str, threads: int) -> None:
    async def item(child: Any, item: Any, *_: Any) -> Any:
        return await child.invoke("doubles", {"n": item}, "child")

    async def body(event: Any, context: Any) -> Any:
        found = await context.map(range(8), item, "m")
        found.throw_if_error()
        return found.get_results()

    coloured(doubles, colour)
    for hold in (0, 60):
        engine = Engine(f"memory://few-children-{colour}-{threads}-{hold}", hold=hold, max_threads=threads)
        assert engine.run(coloured(body, colour), {}, id="r", timeout=60) == [2 * n for n in range(8)]
        assert violations(engine, "r") == []
        engine.stop()


def test_from_a_child_context_and_beside(way: Way) -> None:
    way.function(doubles)

    async def inner(child: Any) -> Any:
        pendings = [child.invoke_async("doubles", {"n": n}, f"p{n}") for n in range(5)]
        return [await pending for pending in pendings]

    async def body(event: Any, context: Any) -> Any:
        return await context.run_in_child_context(inner, "c")

    assert way.run(body) == [0, 2, 4, 6, 8]
    assert {op["key"] for op in records(way.engine, "r") if op["record"] == "InvokeStarted"} == {
        f"c/p{n}" for n in range(5)
    }


# -- the end of the parent, and its retry


def test_cancelling_the_parent_cancels_open_children(way: Way) -> None:
    way.function(stays)

    async def body(event: Any, context: Any) -> Any:
        pending = context.invoke_async("stays", None, "a")
        await context.invoke("stays", None, "b", InvokeConfig(timeout=SOON))
        return await pending

    handle = way.start(body)
    children = way.until(lambda: len(found := handle.children()) == 2 and found)
    handle.cancel("enough")
    handle.wait(20)
    assert handle.status == "cancelled"
    for child in children:
        child.wait(20)
        assert child.status == "cancelled"
        assert violations(way.engine, child.id) == []
    assert violations(way.engine, "r") == []


def test_a_child_is_cancelled_down_to_its_own_children(way: Way) -> None:
    way.function(stays)

    async def middle(event: Any, context: Any) -> Any:
        return await context.invoke("stays", None, "leaf", InvokeConfig(timeout=SOON))

    way.function(middle)

    async def body(event: Any, context: Any) -> Any:
        return await context.invoke("middle", None, "mid", InvokeConfig(timeout=SOON))

    handle = way.start(body)
    leaf_id = child_id(child_id("r", "mid", 0), "leaf", 0)
    way.until(lambda: way.engine.store.run_get(leaf_id))
    handle.cancel("enough")
    leaf = way.engine.get_run(leaf_id)
    leaf.wait(20)
    assert leaf.status == "cancelled"


def test_a_parent_that_fails_lets_go_of_its_children(way: Way) -> None:
    way.function(stays)

    async def body(event: Any, context: Any) -> Any:
        context.invoke_async("stays", None, "a")
        await context.wait(0.05)
        await context.step(raiser(ValueError("no")), name="s", retry=NEVER)

    handle = way.start(body)
    handle.wait(20)
    assert handle.status == "failed"
    (child,) = handle.children()
    child.wait(20)
    assert child.status == "cancelled"


def test_a_retried_parent_starts_what_had_failed_anew(way: Way) -> None:
    broken = [1]

    async def child(event: Any, context: Any) -> Any:
        if broken and event["n"] == 1:
            raise LookupError("broken")
        return await context.step(giver(event["n"]), name="s")

    way.function(child)

    async def body(event: Any, context: Any) -> Any:
        return [await context.invoke("child", {"n": n}, f"c{n}") for n in range(2)]

    handle = way.start(body)
    handle.wait(20)
    assert handle.status == "failed"
    broken.clear()
    assert handle.retry() == [0, 1]
    ids = {found.id for found in handle.children()}
    assert ids == {child_id("r", "c0", 0), child_id("r", "c1", 0), child_id("r", "c1", 1)}
    assert violations(way.engine, "r") == []


def test_a_retried_parent_with_an_id_of_its_own(way: Way) -> None:
    """The id is taken by the child that failed: whoever names a child retries that."""
    broken = [1]

    async def child(event: Any, context: Any) -> Any:
        if broken:
            raise LookupError("broken")
        return "fine"

    way.function(child)

    async def body(event: Any, context: Any) -> Any:
        return await context.invoke("child", None, "c", InvokeConfig(id="mine"))

    handle = way.start(body)
    handle.wait(20)
    assert handle.status == "failed"
    broken.clear()
    assert way.engine.get_run("mine").retry() == "fine"
    assert handle.retry() == "fine"


# -- crashes, twins


async def invokes_more(event: Any, context: Any) -> Any:
    first = await context.invoke("doubles", {"n": 1}, "one")
    second = await context.invoke("plain", {"n": first}, "two")
    try:
        await context.invoke("breaks", None, "three")
    except ValueError as error:
        third = str(error)
    else:
        third = "never"
    ref = await context.start_run("doubles", {"n": 5}, name="four")
    return [first, second, third, ref.id[:2], await context.step(giver(1), name="after")]


def test_a_crash_at_every_append_of_parent_and_children(colour: str) -> None:
    counts: list[int] = []

    def plain(event: Any) -> Any:
        counts.append(1)
        return event["n"] + 1

    functions: dict[str, Any] = {
        "doubles": coloured(doubles, colour),
        "breaks": coloured(breaks, colour),
        "plain": plain,
    }
    value = at_every_append(coloured(invokes_more, colour), **functions)
    assert value == [2, 3, "broken", "c-", 1]


async def invokes_beside(event: Any, context: Any) -> Any:
    pendings = [context.invoke_async("doubles", {"n": n}, f"p{n}") for n in range(3)]
    await context.wait(5)
    return [await pending for pending in pendings]


def test_a_crash_at_every_append_with_several_under_way(colour: str) -> None:
    function = coloured(invokes_beside, colour)
    assert at_every_append(function, same_journal=False, doubles=coloured(doubles, colour)) == [0, 2, 4]


def test_journals_of_twins_are_equal() -> None:
    found = []
    for colour, hold in [("def", 60), ("def", 0), ("async def", 60), ("async def", 0)]:
        way = Way(colour, hold, f"invoke-twins-{colour}-{hold}")
        way.function(doubles)
        way.run(invokes)
        (child,) = way.engine.get_run("r").children()
        found.append([journal(way.engine, "r"), journal(way.engine, child.id)])
        way.engine.stop()
    assert len(found[0][0]) > 4
    assert found[1:] == [found[0]] * 3


# -- where the child ends while the parent is what it is


def test_the_child_ends_while_no_process_drives_the_parent(colour: str, tmp_path: Any) -> None:
    url = f"sqlite:////{str(tmp_path / 'store.db').lstrip('/')}"
    parent, child = coloured(waits_for_stays, colour), coloured(stays, colour)
    first = Engine(url, hold=0)
    handle = first.start_run(parent, {}, id="r")
    while not (children := handle.children()) or children[0].status != "waiting" or handle.status != "waiting":
        first.store.wait(0.02)
    first.stop()
    alone = Engine(url)
    alone.get_run(children[0].id).signal("go", "done")
    assert alone.run(child, None, id=children[0].id, timeout=20) == "done"
    assert alone.get_run("r").status in ("waiting", "interrupted")
    alone.stop()
    second = Engine(url)
    assert second.run(parent, {}, id="r", timeout=20) == ["done", "after"]
    assert violations(second, "r") == []
    second.stop()


async def waits_for_stays(event: Any, context: Any) -> Any:
    got = await context.invoke("stays", None, "child")
    return [got, await context.step(giver("after"), name="after")]


def test_the_child_ends_while_another_branch_runs(colour: str) -> None:
    """The parent is held and busy: it takes the child's end up at once."""
    done = threading.Event()

    async def body(event: Any, context: Any) -> Any:
        pending = context.invoke_async("doubles", {"n": 1}, "child")
        await context.step(lambda: done.wait(20), name="busy")
        return await pending

    way = Way(colour, 60, f"busy-{colour}")
    way.function(doubles)
    handle = way.engine.start_run(way.function(body), {}, id="r")
    way.until(lambda: "InvokeSucceeded" in kinds(way.engine))
    done.set()
    assert handle.result(20) == 2
    way.engine.stop()


def test_the_child_ends_while_the_parent_rolls_back(colour: str) -> None:
    undoing, undo = threading.Event(), threading.Event()

    def slow_undo(context: Any, value: Any) -> None:
        undoing.set()
        assert undo.wait(20)

    async def body(event: Any, context: Any) -> Any:
        await context.step(giver(1), name="s", undo=slow_undo)
        await context.invoke("stays", None, "child", InvokeConfig(timeout=SOON))

    way = Way(colour, 60, f"rolling-{colour}")
    way.function(stays)
    handle = way.start(body)
    (child,) = way.until(handle.children)
    way.until(lambda: child.status == "waiting")
    handle.cancel("enough")
    assert undoing.wait(20)
    child.wait(20)
    assert child.status == "cancelled"
    undo.set()
    handle.wait(20)
    assert handle.status == "cancelled"
    assert violations(way.engine, "r") == []
    way.engine.stop()


def test_the_child_ends_while_the_parent_is_blocked(colour: str) -> None:
    """Changed code blocks the parent; with the right code it goes on with what the child came to."""
    way = Way(colour, 0, f"blocked-{colour}")
    way.function(stays)

    async def body(event: Any, context: Any) -> Any:
        got = await context.invoke("stays", None, "child")
        await context.wait_signal("more")
        return got

    async def changed(event: Any, context: Any) -> Any:
        return await context.step(giver(1), name="child")

    handle = way.start(body)
    (child,) = way.until(handle.children)
    way.until(lambda: child.status == "waiting")
    way.engine.drive._asked["r"] = Asked(way.function(changed, name="body"))
    handle.signal("more")
    way.until(lambda: handle.status == "blocked")
    child.signal("go", "done")
    child.wait(20)
    assert handle.status == "blocked"
    way.engine.functions._by_name.pop("body", None)
    way.function(body)
    assert handle.resume() == "done"
    assert violations(way.engine, "r") == []
    way.engine.stop()


# -- a function that another process knows


def test_it_is_pending_for_a_worker_that_knows_it(colour: str, tmp_path: Any) -> None:
    app = tmp_path / "elsewhere.py"
    app.write_text(
        "from stepwell import durable_execution\n"
        "@durable_execution(name='elsewhere', queue='far')\n"
        "def elsewhere(event, context):\n"
        "    return context.step(lambda: event['n'] * 3, name='triple')\n"
    )
    url = f"sqlite:////{str(tmp_path / 'store.db').lstrip('/')}"

    async def body(event: Any, context: Any) -> Any:
        return await context.invoke("elsewhere", {"n": 2}, "child")

    env = {**os.environ, "STEPWELL_STORE": url}
    command = [sys.executable, "-m", "stepwell.cli", "worker", str(app), "--queue", "far"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        try:
            engine = Engine(url)
            while not any("elsewhere" in found.functions for found in engine.store.worker_list()):
                engine.store.wait(0.05)
            assert engine.run(coloured(body, colour), {}, id="r", timeout=60) == 6
            (child,) = engine.get_run("r").children()
            assert engine.find(child.id).queue == "far"
            started = next(r for r in child.history() if r["record"] == "LifeStarted")
            assert started["pid"] == worker.pid
            engine.stop()
        finally:
            worker.terminate()
            worker.communicate()


@pytest.mark.parametrize("hold", [0, 60])
def test_a_pending_of_a_branch_without_a_thread_finds_one(hold: float) -> None:
    """The branch gave its thread back while its pending was queued; whoever waits for both must not keep the only one."""

    @durable_execution(name="leaf")
    def leaf(event: Any, context: Any) -> Any:
        return context.step(lambda: event["n"], name="s")

    @durable_execution(name="middle")
    def middle(event: Any, context: Any) -> Any:
        def both(ctx: Any) -> Any:
            pending = ctx.invoke_async("leaf", {"n": 1}, "one")
            return [ctx.invoke("leaf", {"n": 2}, "two"), pending.result()]

        return context.gather(both, lambda ctx: ctx.invoke("leaf", {"n": 3}, "three"))

    with Engine(f"memory://one-thread-{hold}", functions=[leaf, middle], max_threads=1, hold=hold) as engine:
        assert engine.start_run(middle, {}, id="r").result(60) == [[2, 1], 3]
