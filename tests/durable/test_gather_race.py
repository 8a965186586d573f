"""gather and race: several at a time, in order, or the first (durable.md §12)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from stepwell import Engine, durable_execution
from stepwell.durable import ChildContextError, StepError, ValidationError
from stepwell.durable.config import WaitForCallbackConfig
from stepwell.errors import RunFailed
from stepwell.testing import DurableRunner
from tests.durable.kit import NEVER, giver, raiser, records
from tests.durable.twins import Way, at_every_append, coloured, journal, violations

LONG = 100_000


def stepping(value: Any) -> Any:
    async def branch(child: Any) -> Any:
        return await child.step(giver(value), name="s")

    return branch


def waiting(seconds: float, value: Any) -> Any:
    async def branch(child: Any) -> Any:
        await child.wait(seconds, name="w")
        return await child.step(giver(value), name="s")

    return branch


def failing(error: BaseException, seconds: float | None = None) -> Any:
    async def branch(child: Any) -> Any:
        if seconds is not None:
            await child.wait(seconds, name="w")
        return await child.step(raiser(error), name="s", retry=NEVER)

    return branch


def ended(engine: Engine, run_id: str = "r") -> dict[str, str]:
    """The last record of each operation."""
    return {r["key"]: r["record"] for r in records(engine, run_id) if "key" in r}


# -- gather


def test_values_come_in_order_of_the_arguments(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        first = context.step_async(giver("p1"), "p")
        late = context.wait_async(0.02, "late")
        return await context.gather(stepping("f0"), first, waiting(0.01, "f2"), late, stepping("f4"))

    assert way.run(body) == ["f0", "p1", "f2", None, "f4"]
    assert violations(way.engine, "r") == []


def test_functions_have_a_branch_each_and_their_place_in_the_key(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(giver(0), "p")
        await context.gather(pending, stepping(1), stepping(2))
        return await context.gather(stepping(3))

    assert way.run(body) == [3]
    kinds = {r["key"]: r["kind"] for r in records(way.engine, "r") if r["record"] == "ScopeStarted"}
    assert kinds == {
        "gather": "gather", "gather[1]": "parallel_branch", "gather[2]": "parallel_branch",
        "gather#2": "gather", "gather#2[0]": "parallel_branch",
    }  # fmt: skip
    assert {"gather[1]/s", "gather[2]/s", "gather#2[0]/s", "p"} <= set(ended(way.engine))


def test_a_place_in_front_of_all_functions(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(giver(0), "p")
        return await context.gather(stepping(1), pending)

    assert way.run(body) == [1, 0]
    assert "gather[0]/s" in ended(way.engine)


def test_pendings_alone_make_no_batch(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        return await context.gather(context.step_async(giver(1), "a"), context.step_async(giver(2), "b"))

    assert way.run(body) == [1, 2]
    assert "gather" not in ended(way.engine)


def test_nothing_to_gather(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        return await context.gather()

    assert way.run(body) == []


def test_the_first_failure_by_place_is_raised_when_all_have_settled(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(raiser(KeyError("pending")), "p", retry=NEVER)
        try:
            await context.gather(
                stepping("ok"),
                failing(ValueError("slow"), 0.02),
                pending,
                failing(OSError("quick")),
                waiting(0.03, "last"),
            )
        except ValueError as error:
            return [type(error).__name__, str(error), isinstance(error, ChildContextError)]
        return "never"

    assert way.run(body) == ["ChildContextError", "slow", True]
    found = ended(way.engine)
    assert found["gather[4]/s"] == "StepSucceeded"
    assert found["p"] == "StepFailed"
    assert violations(way.engine, "r") == []


def test_a_pending_that_fails_first_by_place(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(raiser(KeyError("pending")), "p", retry=NEVER)
        try:
            await context.gather(pending, failing(ValueError("later")))
        except KeyError as error:
            return [type(error).__name__, isinstance(error, StepError)]
        return "never"

    assert way.run(body) == ["StepError", True]


def test_errors_in_the_list(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(raiser(KeyError("p")), "p", retry=NEVER)
        found = await context.gather(failing(ValueError("f")), pending, stepping(2), return_errors=True)
        return [[type(one).__name__, str(one)] if isinstance(one, Exception) else one for one in found]

    assert way.run(body) == [["ChildContextError", "f"], ["StepError", "'p'"], 2]


@pytest.mark.parametrize("method", ["gather", "race"])
def test_neither_a_pending_nor_a_function(way: Way, method: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await getattr(context, method)(stepping(1), 7)
        except ValidationError as error:
            return str(error)
        return "never"

    assert way.run(body) == f"{method}: argument 1 is neither a pending nor a function, but 7"
    assert [r["record"] for r in records(way.engine, "r")] == ["RunStarted", "RunSucceeded"]


def test_gathers_inside_gathers(way: Way) -> None:
    async def inner(child: Any) -> Any:
        return await child.gather(waiting(0.01, f"{child.key}.a"), stepping(f"{child.key}.b"))

    async def body(event: Any, context: Any) -> Any:
        return await context.gather(inner, inner, waiting(0.01, "c"))

    expected = [["gather[0].a", "gather[0].b"], ["gather[1].a", "gather[1].b"], "c"]
    assert way.run(body) == expected
    assert violations(way.engine, "r") == []


@pytest.mark.parametrize("threads", [1, 2])
def test_gathers_on_few_threads(colour: str, threads: int) -> None:
    async def inner(child: Any) -> Any:
        own = child.child_async(waiting(0.01, "own"), "own")
        return await child.gather(own, *(waiting(0.01, i) for i in range(3)))

    async def body(event: Any, context: Any) -> Any:
        mine = context.child_async(inner, "mine")
        return await context.gather(mine, inner, inner)

    for hold in (0, 60):
        engine = Engine(f"memory://gather-{colour}-{threads}-{hold}", hold=hold, max_threads=threads)
        assert engine.run(coloured(body, colour), {}, id="r") == [["own", 0, 1, 2]] * 3
        assert violations(engine, "r") == []
        engine.stop()


def test_a_gathered_run_parks_while_all_wait(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.wait_async(0.03, "p")
        return await context.gather(pending, waiting(0.02, 1), waiting(0.02, 2))

    assert way.run(body) == [None, 1, 2]
    lines = [r["record"] for r in records(way.engine, "r", lives=True)]
    assert "Parked" in lines
    if way.hold == 0:
        assert lines.count("LifeStarted") > 1


# -- race


def test_the_first_success_wins_and_the_others_are_cancelled(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        timer = context.wait_async(LONG, "timer")
        value = await context.race(waiting(LONG, "slow"), failing(ValueError("no")), timer, waiting(0.02, "quick"))
        await context.wait(0.01, name="then")
        return value

    assert way.run(body) == "quick"
    found = ended(way.engine)
    assert (found["race[0]"], found["race[1]"], found["race[3]"]) == ("ScopeCancelled", "ScopeFailed", "ScopeSucceeded")
    assert found["timer"] == "OperationCancelled"
    assert violations(way.engine, "r") == []


def test_a_pending_wins(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.child_async(waiting(0.01, "pending"), "p")
        value = await context.race(waiting(LONG, "slow"), pending)
        return [value, await pending]

    assert way.run(body) == ["pending", "pending"]
    assert violations(way.engine, "r") == []


def test_all_fail_and_the_last_error_is_raised(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.race(
                failing(ValueError("last"), 0.05), failing(KeyError("first")), failing(OSError("second"), 0.02)
            )
        except ValueError as error:
            return [type(error).__name__, str(error)]
        return "never"

    assert way.run(body) == ["ChildContextError", "last"]


def test_a_race_of_nothing(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.race()
        except ValidationError as error:
            return str(error)
        return "never"

    assert way.run(body) == "race needs a pending or a function"


def test_losers_that_wait_for_the_outside_are_told(way: Way) -> None:
    @durable_execution(name="forever")
    def forever(event: Any, context: Any) -> Any:
        return context.wait_signal("never", timeout=25)

    way.engine.register(forever)

    async def asks(child: Any) -> Any:
        return await child.wait_for_callback(lambda _id, _context: None, "ask", WaitForCallbackConfig(timeout=30))

    async def invokes(child: Any) -> Any:
        return await child.invoke("forever", None, "child")

    async def signalled(child: Any) -> Any:
        return await child.wait_signal("go", timeout=30)

    async def body(event: Any, context: Any) -> Any:
        value = await context.race(asks, invokes, signalled)
        await context.wait_signal("end", timeout=30)
        return value

    handle = way.start(body)
    callback_id = way.callback(handle)
    way.until(handle.children)
    handle.signal("go", "signalled")
    way.until(lambda: not handle.callbacks())
    with pytest.raises(Exception, match=r"^callback already completed: CANCELLED$"):
        way.engine.send_callback_success(callback_id, "late")
    (child,) = handle.children()
    child.wait(20)
    assert child.status == "cancelled"
    handle.signal("end")
    assert handle.result(20) == "signalled"
    assert violations(way.engine, "r") == []


def test_the_winner_is_on_record(colour: str) -> None:
    """A replay gives the same, whoever is quicker then."""
    order = iter([("a", "b"), ("b", "a"), ("b", "a")])
    values: list[Any] = []

    async def body(event: Any, context: Any) -> Any:
        first, _ = next(order)
        quick = {"a": 1, "b": LONG} if first == "a" else {"a": LONG, "b": 1}
        values.append(await context.race(waiting(quick["a"], "a"), waiting(quick["b"], "b")))
        await context.wait(10)
        return values[-1]

    with DurableRunner(coloured(body, colour), replay_twice=False) as runner:
        assert runner.run().result in values
        assert len(set(values)) == 1


def test_a_race_inside_a_race(way: Way) -> None:
    async def inner(child: Any) -> Any:
        return await child.race(waiting(LONG, "never"), waiting(0.01, child.key))

    async def slow(child: Any) -> Any:
        return await child.race(waiting(LONG, "never"), waiting(LONG, "never"))

    async def body(event: Any, context: Any) -> Any:
        return await context.race(slow, inner)

    assert way.run(body) == "race[1]"
    assert violations(way.engine, "r") == []


def test_the_result_of_a_race_is_what_replay_gives(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        value = await context.race(stepping((1, 2)), waiting(LONG, "never"))
        await context.wait(0.01)
        return [type(value).__name__, list(value)]

    assert way.run(body) == ["tuple", [1, 2]]


# -- crashes, twins


async def gathers(event: Any, context: Any) -> Any:
    pending = context.step_async(giver("p"), "p")
    return await context.gather(waiting(5, 1), pending, failing(ValueError("no")), stepping(3), return_errors=True)


async def gathers_plainly(event: Any, context: Any) -> Any:
    found = await gathers(event, context)
    return [str(one) for one in found]


async def races(event: Any, context: Any) -> Any:
    timer = context.wait_async(LONG, "timer")
    value = await context.race(waiting(50, "slow"), timer, waiting(5, "quick"), failing(ValueError("no")))
    await context.wait(3, name="then")
    return value


async def races_in_vain(event: Any, context: Any) -> Any:
    try:
        await context.race(failing(ValueError("a"), 5), failing(ValueError("b"), 3))
    except ValueError as error:
        await context.wait(1)
        return str(error)
    return "never"


@pytest.mark.parametrize(
    "body, value",
    [(gathers_plainly, ["1", "p", "no", "3"]), (races, "quick"), (races_in_vain, "a")],
    ids=["gather", "race", "race in vain"],
)
def test_a_crash_at_every_append(colour: str, body: Any, value: Any) -> None:
    assert at_every_append(coloured(body, colour), same_journal=False) == value


@pytest.mark.parametrize("which", ["gather", "race"])
def test_records_of_twins_are_equal(which: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        pending = context.step_async(giver("p"), "p")
        await pending
        if which == "gather":
            return await context.gather(waiting(0.01, 1), pending, stepping(3))
        return await context.race(waiting(LONG, "slow"), waiting(0.03, "quick"), failing(ValueError("no")))

    found = []
    for colour, hold in [("def", 60), ("def", 0), ("async def", 60), ("async def", 0)]:
        way = Way(colour, hold, f"twins-{which}-{colour}-{hold}")
        way.run(body)
        found.append(sorted(journal(way.engine, "r"), key=repr))
        way.engine.stop()
    assert len(found[0]) > 8
    assert found[1:] == [found[0]] * 3


# -- asyncio around them


@pytest.mark.parametrize("hold", [0, 60])
@pytest.mark.parametrize("method", ["map", "gather", "child"])
def test_a_time_limit_around_several(hold: float, method: str) -> None:
    limits = iter([0.05, 1000, 1000, 1000])

    async def slow(child: Any, *_: Any) -> Any:
        await child.step(giver(1), name="s")
        await child.step(lambda: asyncio.sleep(1000), name="long")

    async def body(event: Any, context: Any) -> Any:
        said = "never"
        try:
            async with asyncio.timeout(next(limits)):
                if method == "map":
                    await context.map([1, 2], slow, "m")
                elif method == "gather":
                    await context.gather(slow, slow)
                else:
                    await context.run_in_child_context(slow, "child")
        except (TimeoutError, asyncio.CancelledError):
            said = "left"
        await context.wait(0.01)
        return said

    engine = Engine(f"memory://limit-{method}-{hold}", hold=hold)
    assert engine.run(durable_execution(body), {}, id="r") == "left"
    found = ended(engine)
    assert found[{"map": "m", "gather": "gather", "child": "child"}[method]] == "OperationCancelled"
    assert violations(engine, "r") == []
    engine.stop()


def test_an_error_out_of_gather_fails_the_run(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        await context.gather(stepping(1), failing(ValueError("no")))

    with pytest.raises(RunFailed, match="no") as failed:
        way.run(body)
    assert isinstance(failed.value, ValueError)
    assert isinstance(failed.value, ChildContextError)
