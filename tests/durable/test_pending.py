"""Pendings: operations that go on beside the code that began them (durable.md §12)."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Duration, Engine, durable_execution
from stepwell.durable import ChildContextError, Pending, StepError
from stepwell.durable.config import CompletionConfig, MapConfig, WaitForCallbackConfig
from stepwell.errors import InvalidStateError, RunFailed
from stepwell.testing import DurableRunner
from tests.durable.kit import NEVER, giver, raiser, records
from tests.durable.twins import Way, at_every_append, coloured, journal, violations

if TYPE_CHECKING:
    from stepwell import RunHandle

BOOM = raiser(ValueError("boom"))


def ends(engine: Engine, run_id: str = "r") -> dict[str, list[str]]:
    """The records of each operation."""
    found: dict[str, list[str]] = {}
    for record in records(engine, run_id):
        if "key" in record:
            found.setdefault(record["key"], []).append(record["record"])
    return found


async def waits(child: Any) -> Any:
    await child.wait(0.01, name="w")
    return await child.step(lambda: child.key, name="s")


async def five(event: Any, context: Any) -> Any:
    """One of each."""
    step = context.step_async(lambda: 1, "step")
    child = context.child_async(waits, "child")
    timer = context.wait_async(0.01, "timer")
    asked = context.callback_async(lambda _id, _context: None, "ask", WaitForCallbackConfig(timeout=30))
    double = context.invoke_async("double", {"n": 4}, "double")
    here = await context.step(lambda: "here", name="here")
    return [here, await asked, await double, await timer, await child, await step]


@durable_execution(name="double")
def double(event: Any, context: Any) -> Any:
    context.wait(0.01)
    return context.step(lambda: event["n"] * 2, name="double")


# -- values and errors


def test_each_kind_gives_its_value(way: Way) -> None:
    way.engine.register(double)
    handle = way.start(five)
    way.engine.send_callback_success(way.callback(handle), "yes")
    assert handle.result(20) == ["here", "yes", 8, None, "child", 1]
    assert violations(way.engine, "r") == []


def test_they_are_pendings(way: Way) -> None:
    seen: list[bool] = []

    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(lambda: 1, "s")
        seen.append(isinstance(getattr(pending, "pending", pending), Pending))
        return [await pending, await pending, await pending.result(), pending.done()]

    assert way.run(body) == [1, 1, 1, True]
    assert all(seen)


def test_keys_are_handed_out_at_the_call(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pendings = [context.step_async(giver(i), "s") for i in range(4)]
        await context.step(lambda: "mine", name="s")
        return [await pending for pending in reversed(pendings)]

    assert way.run(body) == [3, 2, 1, 0]
    results = {r["key"]: r["payload"] for r in records(way.engine, "r") if r["record"] == "StepSucceeded"}
    assert results == {"s": "0", "s#2": "1", "s#3": "2", "s#4": "3", "s#5": '"mine"'}


def test_an_error_is_raised_where_it_is_asked_for(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(BOOM, "s", retry=NEVER)
        await context.step(lambda: 1, name="other")
        said = []
        for _ in range(2):
            try:
                await pending
            except ValueError as error:
                said.append([type(error).__name__, str(error), isinstance(error, StepError)])
        return said

    assert way.run(body) == [["StepError", "boom", True]] * 2


def test_done_tells_without_waiting(colour: str) -> None:
    gate = threading.Event()

    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(lambda: bool(gate.wait()), "s")
        before = pending.done()
        gate.set()
        await pending
        return [before, pending.done()]

    way = Way(colour, 60, f"done-{colour}")
    assert way.run(body) == [False, True]
    way.engine.stop()


# -- nobody asks


def test_one_that_nobody_asks_for_is_settled_before_the_run_ends(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        context.child_async(waits, "child")
        context.step_async(lambda: 1, "s")
        return "end"

    assert way.run(body) == "end"
    lines = [(r["record"], r.get("key")) for r in records(way.engine, "r")]
    assert lines[-1] == ("RunSucceeded", None)
    assert ("ScopeSucceeded", "child") in lines
    assert ("StepSucceeded", "s") in lines


def test_its_failure_fails_the_run(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        context.step_async(BOOM, "s", retry=NEVER)
        return "end"

    with pytest.raises(RunFailed, match="boom") as failed:
        way.run(body)
    assert isinstance(failed.value, ValueError)


def test_its_failure_fails_the_scope_and_is_caught_there(way: Way) -> None:
    async def inner(child: Any) -> Any:
        child.step_async(BOOM, "s", retry=NEVER)
        return "end"

    async def body(event: Any, context: Any) -> Any:
        try:
            await context.run_in_child_context(inner, "child")
        except ChildContextError as error:
            return [str(error), isinstance(error, ValueError)]
        return "never"

    assert way.run(body) == ["boom", True]
    assert ends(way.engine)["child"] == ["ScopeStarted", "ScopeFailed"]


def test_in_a_branch_it_fails_the_branch(way: Way) -> None:
    async def inner(child: Any, item: Any, *_: Any) -> Any:
        child.step_async(BOOM if item else giver(1), "s", retry=NEVER)
        return item

    async def body(event: Any, context: Any) -> Any:
        config: Any = MapConfig(completion_config=CompletionConfig.all_completed())
        found = await context.map([0, 1], inner, "m", config)
        return [found.get_results(), [str(error) for error in found.get_errors()]]

    results, errors = way.run(body)
    assert results == [0]
    assert len(errors) == 1
    assert "boom" in errors[0]


def test_one_that_was_asked_for_in_vain_is_settled_too(way: Way) -> None:
    """Its error was caught, so it fails nothing."""

    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(BOOM, "s", retry=NEVER)
        try:
            await pending
        except ValueError:
            pass
        return "end"

    assert way.run(body) == "end"


def test_when_the_body_fails_what_it_began_is_cancelled(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        context.wait_async(100_000, "long")
        await context.step(lambda: 1, name="s")
        raise LookupError("end")

    with pytest.raises(RunFailed, match="end"):
        way.run(body)
    assert ends(way.engine)["long"][-1] == "OperationCancelled"
    assert violations(way.engine, "r") == []


def test_a_context_that_has_ended_begins_nothing(way: Way) -> None:
    kept: list[Any] = []

    async def inner(child: Any) -> Any:
        kept.append(child)

    async def body(event: Any, context: Any) -> Any:
        await context.run_in_child_context(inner, "child")
        try:
            if kept:
                kept[-1].step_async(lambda: 1, "late")
        except InvalidStateError as error:
            return str(error)
        return "never"

    if way.hold:
        assert "was used after its end" in way.run(body)


# -- cancelling


async def cancels(event: Any, context: Any) -> Any:
    pending = context.wait_async(100_000, "long")
    await context.wait(0.01, name="w")
    first = await pending.cancel()
    await context.step(lambda: 1, name="s")
    return [first, await pending.cancel(), pending.done()]


def test_cancelling_is_on_record(way: Way) -> None:
    assert way.run(cancels) == [True, True, True]
    assert ends(way.engine)["long"] == ["WaitStarted", "OperationCancelled"]


def test_one_that_has_ended_is_not_cancelled(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(lambda: 1, "s")
        await pending
        await context.wait(0.01)
        return [await pending.cancel(), await pending]

    assert way.run(body) == [False, 1]


@pytest.mark.parametrize("kind", ["wait", "child", "callback", "invoke"])
def test_a_cancelled_one_raises_in_every_life(way: Way, kind: str) -> None:
    @durable_execution(name="forever")
    def forever(event: Any, context: Any) -> Any:
        return context.wait_signal("never", timeout=20)

    way.engine.register(forever)
    said: list[str] = []

    async def long(child: Any) -> Any:
        await child.wait(100_000, name="w")

    async def body(event: Any, context: Any) -> Any:
        if kind == "wait":
            pending = context.wait_async(100_000, "x")
        elif kind == "child":
            pending = context.child_async(long, "x")
        elif kind == "callback":
            pending = context.callback_async(lambda _id, _context: None, "x", WaitForCallbackConfig(timeout=30))
        else:
            pending = context.invoke_async("forever", None, "x")
        await context.wait(0.05, name="first")
        await pending.cancel()
        try:
            await pending
        except (asyncio.CancelledError, asyncio.InvalidStateError, BaseException) as error:
            if type(error).__name__ != "CancelledError":
                raise
            said.append("cancelled")
        await context.wait(0.01, name="then")
        return len(said)

    handle = way.start(body)
    assert handle.result(20) >= 1
    assert len(said) >= (2 if way.hold == 0 else 1)
    assert ends(way.engine)["x"][-1] == "OperationCancelled"
    assert violations(way.engine, "r") == []
    if kind == "invoke":
        (child,) = handle.children()
        child.wait(20)
        assert child.status == "cancelled"
        assert violations(way.engine, child.id) == []


def test_a_callback_that_was_cancelled_takes_no_answer(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.callback_async(lambda _id, _context: None, "ask", WaitForCallbackConfig(timeout=30))
        await context.wait_signal("go", timeout=30)
        await pending.cancel()
        return await context.wait_signal("end", timeout=30)

    handle = way.start(body)
    callback_id = way.callback(handle)
    handle.signal("go")
    way.until(lambda: not handle.callbacks())
    with pytest.raises(Exception, match=r"^callback already completed: CANCELLED$"):
        way.engine.send_callback_success(callback_id, "late")
    handle.signal("end", 1)
    assert handle.result(20) == 1


def test_a_step_that_runs_is_cancelled_and_what_it_says_later_is_dropped(colour: str) -> None:
    begun, let = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        let.wait()
        return 1

    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(slow, "slow")
        await context.step(lambda: bool(begun.wait()), name="begun")
        answer = await pending.cancel()
        let.set()
        await context.step(lambda: 1, name="s")
        return [answer, pending.done()]

    way = Way(colour, 60, f"slow-{colour}")
    try:
        assert way.run(body)[0] is True
        assert ends(way.engine)["slow"] == ["StepStarted", "OperationCancelled"]
        assert violations(way.engine, "r") == []
    finally:
        let.set()
        way.engine.stop()


# -- the run parks, whatever goes on beside


def lives(engine: Engine, run_id: str = "r") -> int:
    return [r["record"] for r in records(engine, run_id, lives=True)].count("LifeStarted")


def test_a_run_parks_while_all_its_pendings_wait(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        first = context.wait_async(0.05, "first")
        second = context.child_async(waits, "second")
        return [await first, await second]

    assert way.run(body) == [None, "second"]
    parked = [r["waiting_for"] for r in records(way.engine, "r", lives=True) if r["record"] == "Parked"]
    assert parked
    assert all("first" in names for names in parked[:1])
    if way.hold == 0:
        assert lives(way.engine) > 1


def test_more_pendings_than_threads(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        pendings = [context.child_async(waits, f"c{i}") for i in range(12)]
        return [await pending for pending in pendings]

    for hold in (0, 60):
        engine = Engine(f"memory://few-{colour}-{hold}", hold=hold, max_threads=2)
        assert engine.run(coloured(body, colour), {}, id="r") == [f"c{i}" for i in range(12)]
        assert violations(engine, "r") == []
        engine.stop()


def test_timers_that_outnumber_the_threads_all_count_from_their_call(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        pendings = [context.wait_async(0.7, f"w{i}") for i in range(12)]
        return [await pending for pending in pendings]

    for hold in (0, 60):
        engine = Engine(f"memory://timers-{colour}-{hold}", hold=hold, max_threads=2)
        assert engine.run(coloured(body, colour), {}, id="r") == [None] * 12
        lines = [r["record"] for r in records(engine, "r", lives=True)]
        assert lines.index("Parked") > 12
        assert set(lines[: lines.index("Parked")]) == {"RunStarted", "LifeStarted", "WaitStarted"}
        engine.stop()


def test_runs_that_hold_all_threads_leave_one_to_what_they_wait_for(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        run_id = context.run_id
        pending = context.step_async(lambda: engine.get_run(run_id).signal("go", run_id), "tell")
        return [await context.wait_signal("go", timeout=30), await pending]

    engine = Engine(f"memory://full-{colour}", hold=60, max_threads=2)
    function = coloured(body, colour)
    handles = [engine.start_run(function, {}, id=f"r{i}") for i in range(6)]
    assert [handle.result(20) for handle in handles] == [[f"r{i}", None] for i in range(6)]
    engine.stop()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_branch_that_gives_its_thread_away_begins_nothing_twice(threads: int) -> None:
    begun: list[str] = []

    def item(child: Any, item: Any, *_: Any) -> Any:
        def beside(inner: Any) -> Any:
            begun.append(inner.key)
            inner.wait(0.05)
            return inner.step(lambda: inner.key, name="s")

        pending = child.child_async(beside, "beside")
        child.wait(0.01)
        return pending.result()

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.map(range(8), item, "m").get_results()

    engine = Engine(f"memory://twice-{threads}", hold=60, max_threads=threads)
    assert engine.run(handler, {}, id="r") == [f"m[{i}]/beside" for i in range(8)]
    assert violations(engine, "r") == []
    assert sorted(begun) == [f"m[{i}]/beside" for i in range(8)]
    engine.stop()


def test_pendings_inside_pendings(way: Way) -> None:
    async def inner(child: Any) -> Any:
        pendings = [child.child_async(waits, f"c{i}") for i in range(2)]
        return [await pending for pending in pendings]

    async def body(event: Any, context: Any) -> Any:
        outer = [context.child_async(inner, f"o{i}") for i in range(2)]
        return [await pending for pending in outer]

    assert way.run(body) == [["o0/c0", "o0/c1"], ["o1/c0", "o1/c1"]]
    assert violations(way.engine, "r") == []


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_nested_pendings_on_few_threads(colour: str, threads: int) -> None:
    async def inner(child: Any) -> Any:
        pendings = [child.child_async(waits, f"c{i}") for i in range(3)]
        return [await pending for pending in pendings]

    async def item(child: Any, item: Any, *_: Any) -> Any:
        return await child.child_async(inner, "in")

    async def body(event: Any, context: Any) -> Any:
        found = await context.map(range(3), item, "m")
        found.throw_if_error()
        return found.get_results()

    for hold in (0, 60):
        engine = Engine(f"memory://nested-{colour}-{hold}-{threads}", hold=hold, max_threads=threads)
        expected = [[f"m[{i}]/in/c{j}" for j in range(3)] for i in range(3)]
        assert engine.run(coloured(body, colour), {}, id="r") == expected
        assert violations(engine, "r") == []
        engine.stop()


def test_nested_child_contexts_that_wait_park_the_run(way: Way) -> None:
    async def innermost(child: Any) -> Any:
        await child.wait(0.01, name="w")
        return "deep"

    async def inner(child: Any) -> Any:
        return await child.run_in_child_context(innermost, "c")

    async def middle(child: Any) -> Any:
        return await child.run_in_child_context(inner, "b")

    async def body(event: Any, context: Any) -> Any:
        return [await context.run_in_child_context(middle, "a"), await context.step(lambda: 1, name="s")]

    assert way.run(body) == ["deep", 1]
    parked = [r["waiting_for"] for r in records(way.engine, "r", lives=True) if r["record"] == "Parked"]
    assert parked == [("a/b/c/w",)]
    assert lives(way.engine) == (2 if way.hold == 0 else 1)


def test_a_child_that_waits_in_itself_while_another_works(way: Way) -> None:
    """The run parks only when both wait."""

    async def works(child: Any) -> Any:
        return [await child.step(giver(i), name=f"s{i}") for i in range(20)]

    async def body(event: Any, context: Any) -> Any:
        first = context.child_async(waits, "waits")
        second = context.child_async(works, "works")
        return [len(await second), await first]

    assert way.run(body) == [20, "waits"]
    assert violations(way.engine, "r") == []


# -- crashes


async def beside(event: Any, context: Any) -> Any:
    child = context.child_async(longer, "child")
    timer = context.wait_async(7, "timer")
    step = context.step_async(lambda: 1, "step")
    await context.wait(3, name="mine")
    return [await child, await timer, await step]


async def longer(child: Any) -> Any:
    await child.wait(5, name="w")
    return await child.step(lambda: "child", name="s")


def test_crash_at_every_append(colour: str) -> None:
    assert at_every_append(coloured(beside, colour), same_journal=False) == ["child", None, 1]


async def lets_go(event: Any, context: Any) -> Any:
    pending = context.wait_async(10_000, "long")
    await context.wait(5, name="w")
    first = await pending.cancel()
    await context.wait(5, name="w")
    return [first, pending.done()]


def test_cancelling_survives_a_crash_at_every_append(colour: str) -> None:
    assert at_every_append(coloured(lets_go, colour)) == [True, True]


async def ends_so(event: Any, context: Any) -> Any:
    context.wait_async(10_000, "long")
    context.step_async(BOOM, "s", retry=NEVER)
    await context.wait(5, name="w")
    raise LookupError("end")


def test_a_failing_body_survives_a_crash_at_every_append(colour: str) -> None:
    assert at_every_append(coloured(ends_so, colour), same_journal=False) is None


@pytest.mark.parametrize("body", [cancels, five])
def test_records_of_twins_are_equal(body: Any) -> None:
    """Which comes first is a matter of threads; that there are the same is not."""
    found = []
    for colour, hold in [("def", 60), ("def", 0), ("async def", 60), ("async def", 0)]:
        way = Way(colour, hold, f"pending-twins-{body.__name__}-{colour}-{hold}")
        way.engine.register(double)
        handle = way.start(body)
        if body is five:
            way.engine.send_callback_success(way.callback(handle), "yes")
        handle.result(20)
        found.append(sorted(journal(way.engine, "r"), key=repr))
        way.engine.stop()
    assert len(found[0]) > 4
    assert found[1:] == [found[0]] * 3


# -- asyncio's own


ASYNC = pytest.mark.parametrize("hold", [0, 60])


def run_async(body: Any, hold: float, name: str, **settings: Any) -> tuple[Any, Engine]:
    engine = Engine(f"memory://{name}-{hold}", hold=hold)
    try:
        return engine.run(durable_execution(body, name=name, **settings), {}, id="r"), engine
    finally:
        assert violations(engine, "r") == []


@ASYNC
def test_asyncio_gather(hold: float) -> None:
    async def body(event: Any, context: Any) -> Any:
        return await asyncio.gather(
            context.step(lambda: 1, name="s"), context.wait(0.01), context.run_in_child_context(waits, "c"),
            context.step(lambda: 2, name="s"),
        )  # fmt: skip

    value, engine = run_async(body, hold, "gather")
    assert value == [1, None, "c", 2]
    engine.stop()


@ASYNC
def test_a_task_group(hold: float) -> None:
    async def body(event: Any, context: Any) -> Any:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(context.run_in_child_context(waits, f"c{i}")) for i in range(3)]
        return [task.result() for task in tasks]

    value, engine = run_async(body, hold, "group")
    assert value == ["c0", "c1", "c2"]
    engine.stop()


@ASYNC
def test_asyncio_wait(hold: float) -> None:
    async def body(event: Any, context: Any) -> Any:
        tasks = [asyncio.ensure_future(context.wait(0.01 * i)) for i in range(3)]
        done, left = await asyncio.wait(tasks)
        return [len(left), *(task.result() for task in done)]

    value, engine = run_async(body, hold, "wait")
    assert value == [0, None, None, None]
    engine.stop()


@ASYNC
def test_a_failing_member_of_a_group_cancels_the_others_on_record(hold: float) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(context.wait(100_000, name="long"))
                group.create_task(context.step(BOOM, name="boom", retry=NEVER))
        except* ValueError as errors:
            await context.step(giver(str(errors.exceptions[0])), name="said")
        await context.wait(0.01)
        return await context.step(lambda: 1, name="end")

    value, engine = run_async(body, hold, "failing")
    assert value == 1
    assert "StepSucceeded" in ends(engine)["said"]
    assert ends(engine)["long"] == ["WaitStarted", "OperationCancelled"]
    engine.stop()


@ASYNC
def test_a_time_limit_around_an_operation(hold: float) -> None:
    """What user code cancelled is on record as cancelled: replay raises the same, also when the limit is not met."""
    limits = iter([0.05, 1000, 1000, 1000])

    async def body(event: Any, context: Any) -> Any:
        said = "never"
        try:
            async with asyncio.timeout(next(limits)):
                await context.step(lambda: asyncio.sleep(1000), name="slow")
        except TimeoutError:
            said = "timeout"
        except asyncio.CancelledError:
            said = "cancelled"
        await context.wait(0.01)
        return said

    value, engine = run_async(body, hold, "limit")
    assert value == ("timeout" if hold else "cancelled")
    assert ends(engine)["slow"] == ["StepStarted", "OperationCancelled"]
    engine.stop()


@ASYNC
def test_waiting_for_a_pending_is_given_up_and_the_pending_is_not(hold: float) -> None:
    async def inner(child: Any) -> Any:
        gate = asyncio.Event()

        async def opens() -> int:
            await gate.wait()
            return 1

        pending = child.step_async(opens, "slow")
        try:
            await asyncio.wait_for(pending, 0.01)
        except TimeoutError:
            gate.set()
        return "left"

    async def body(event: Any, context: Any) -> Any:
        return await context.run_in_child_context(inner, "child")

    value, engine = run_async(body, hold, "given-up")
    assert value == "left"
    assert ends(engine)["child/slow"] == ["StepStarted", "StepSucceeded"]
    engine.stop()


def test_a_timer_beside_a_run_under_virtual_time(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        day = context.wait_async(Duration.from_hours(24), "day")
        for _ in range(3):
            await context.wait(Duration.from_hours(6))
        begun = await context.now()
        await day
        return round((await context.now() - begun).total_seconds())

    with DurableRunner(coloured(body, colour)) as runner:
        assert abs(runner.run().result - 6 * 3600) < 60


def test_a_run_is_cancelled_while_pendings_wait(way: Way) -> None:
    undone: list[int] = []

    async def body(event: Any, context: Any) -> Any:
        await context.step(lambda: 1, name="s", undo=lambda _c, value: undone.append(value))
        context.wait_async(20, "a")
        context.callback_async(lambda _id, _context: None, "b", WaitForCallbackConfig(timeout=30))
        await context.wait_signal("never", timeout=30)

    handle: RunHandle = way.start(body)
    way.callback(handle)
    handle.cancel("enough")
    handle.wait(20)
    assert handle.status == "cancelled"
    assert undone == [1]
    assert violations(way.engine, "r") == []
