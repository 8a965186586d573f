"""What `stepwell check` says of open runs when the code has changed. Each case: the old code, the new code, the report."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Retry, durable_execution
from stepwell.client import Checked, check_run
from stepwell.durable import DurableContext
from stepwell.durable._function import DurableFunction
from stepwell.durable.config import MapConfig, NestingType
from tests.client.virtual import Virtual
from tests.durable.kit import Once, Plug

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def virtual(request: pytest.FixtureRequest) -> Iterator[Virtual]:
    made = Virtual(request.node.name)
    yield made
    made.engine.stop()


def ran(*_: Any) -> None:
    raise AssertionError("a check executes nothing")


def steps(*names: str, wait: float | None = 60, body: Any = None) -> Callable[[Any], None]:
    """Code that calls these steps, then waits."""

    def code(context: Any) -> None:
        for name in names:
            context.step(body or (lambda: name), name=name)  # noqa: B023
        if wait is not None:
            context.wait(wait, "w")

    return code


def check(virtual: Virtual, old: Callable[[Any], Any], new: Callable[[Any], Any], *, strict: bool = False) -> Checked:
    """A run of the old code, to where it waits, checked against the new code."""
    return checked(
        virtual, durable_execution(lambda _, c: old(c)), durable_execution(strict=strict)(lambda _, c: new(c))
    )


def checked(virtual: Virtual, old: DurableFunction, new: DurableFunction) -> Checked:
    virtual.start(old)
    return again(virtual, new)


WRITES = ("batch_commit", "blob_put", "run_claim", "run_reopen", "fact_deliver", "worker_register", "worker_beat")


def again(virtual: Virtual, new: DurableFunction) -> Checked:
    """The run checked, with a store that nobody may write to."""
    store = virtual.engine.store
    row = virtual.engine.find("r")
    with pytest.MonkeyPatch.context() as patch:
        for name in WRITES:
            patch.setattr(store, name, ran)
        return check_run(virtual.engine, row, new)


def changes(found: Checked) -> list[str]:
    return [f"{c.change} {c.kind} {c.key}" + (f" to {c.to}" if c.to else "") for c in found.changes]


def test_the_same_code(virtual: Virtual) -> None:
    found = check(virtual, steps("a", "b"), steps("a", "b", body=ran))
    assert (found.verdict, found.changes, found.goes_on, found.ends, found.error) == ("SAFE", [], "w", None, None)
    assert (found.run, found.status) == ("r", "waiting")


CASES = {
    "added behind": (steps("a"), lambda c: (steps("a")(c), c.step(ran, name="z")), "SAFE", []),
    "added before what it waits for": (steps("a"), steps("a", "b", body=ran), "CHANGED", ["added step b"]),
    "added before a step": (steps("a", "b"), steps("new", "a", "b", body=ran), "CHANGED", ["added step new"]),
    "removed": (steps("a", "b"), steps("b", body=ran), "CHANGED", ["removed step a"]),
    "the last one removed": (steps("a", "b"), steps("a", body=ran), "CHANGED", ["removed step b"]),
    "moved": (steps("a", "b", "c"), steps("b", "c", "a", body=ran), "CHANGED", ["moved step a"]),
    "renamed": (steps("a", "b"), steps("a", "bb", body=ran), "CHANGED", ["renamed step b to bb"]),
    "two renamed": (
        steps("a", "b"), steps("aa", "bb", body=ran), "CHANGED", ["renamed step a to aa", "renamed step b to bb"],
    ),
    "renamed, and one removed": (
        steps("a", "b", "c"), steps("aa", "c", body=ran), "CHANGED", ["renamed step a to aa", "removed step b"],
    ),
    "the wait renamed": (
        steps("a"), lambda c: (steps("a", wait=None)(c), c.wait(60, "other")), "CHANGED", ["renamed wait w to other"],
    ),
    "the wait gone": (steps("a"), steps("a", wait=None, body=ran), "CHANGED", ["removed wait w"]),
    "the recorded world": (
        lambda c: (c.now(), c.wait(60, "w")), lambda c: (c.uuid(), c.wait(60, "w")), "CHANGED", ["added uuid uuid"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_changes(virtual: Virtual, case: str) -> None:
    old, new, verdict, expected = CASES[case]
    found = check(virtual, old, new)
    assert changes(found) == expected
    assert found.verdict == verdict


def test_another_kind_is_broken(virtual: Virtual) -> None:
    found = check(virtual, steps("a"), lambda c: c.wait(60, "a"))
    assert found.verdict == "BROKEN"
    assert found.error is not None
    assert "step 'a' at a was recorded as step; the code at test_check.py" in found.error


def test_broken_behind_a_renamed_step(virtual: Virtual) -> None:
    found = check(virtual, steps("a", "b"), lambda c: (c.step(ran, name="aa"), c.wait(1, "b")))
    assert (found.verdict, changes(found)) == ("BROKEN", ["renamed step a to aa"])


def test_unnamed_steps_with_other_code(virtual: Virtual) -> None:
    def old(context: Any) -> None:
        context.step(lambda: 1)
        context.wait(60)

    def new(context: Any) -> None:
        context.step(lambda: 2)
        context.wait(60)

    found = check(virtual, old, new)
    assert (found.verdict, len(found.notes)) == ("SAFE", 1)
    assert "the unnamed step at step was recorded with other code" in found.notes[0]
    assert again(virtual, durable_execution(strict=True)(lambda _, c: new(c))).verdict == "BROKEN"


def test_the_handler_ends(virtual: Virtual) -> None:
    def fails(context: Any) -> None:
        steps("a", wait=None)(context)
        raise NameError("typo")

    found = check(virtual, steps("a"), fails)
    assert (found.ends, changes(found)) == ("failed: NameError: typo", ["removed wait w"])
    found = again(virtual, durable_execution(lambda _, c: steps("a", wait=None)(c)))
    assert (found.ends, found.goes_on) == ("succeeded", None)


def test_in_an_open_child(virtual: Virtual) -> None:
    def code(*names: str, child: str = "c") -> Any:
        return lambda c: c.run_in_child_context(steps(*names), child)

    assert changes(check(virtual, code("a", "b"), code("b"))) == ["removed step c/a"]
    for new, expected in (
        (code("a", "b", child="d"), ["renamed child c to d"]),
        (code("a", "bb"), ["renamed step c/b to c/bb"]),
        (code("a", "bb", child="d"), ["renamed child c to d", "renamed step c/b to d/bb"]),
        (steps("a", "b"), ["added step a"]),
    ):
        assert changes(again(virtual, durable_execution(lambda _, c, new=new: new(c)))) == expected


def test_a_finished_child_is_not_entered(virtual: Virtual) -> None:
    def old(context: Any) -> None:
        context.run_in_child_context(steps("a", wait=None), "c")
        context.wait(60)

    def new(context: Any) -> None:
        context.run_in_child_context(ran, "c")
        context.wait(60)

    assert check(virtual, old, new).verdict == "SAFE"


def test_moved_into_a_child(virtual: Virtual) -> None:
    def new(context: Any) -> None:
        context.run_in_child_context(steps("a", wait=None, body=ran), "c")
        context.wait(60, "w")

    assert changes(check(virtual, steps("a"), new)) == ["added child c"]


@pytest.mark.parametrize("nesting", NestingType)
def test_in_an_open_map(virtual: Virtual, nesting: NestingType) -> None:
    def code(*names: str) -> Any:
        config: MapConfig[Any] = MapConfig(max_concurrency=1, nesting_type=nesting)

        def item(context: Any, given: int) -> None:
            for name in names:
                context.step(lambda: name, name=name)  # noqa: B023
            if given == 2:
                context.wait(60, "w")

        return lambda c: c.map([1, 2, 3], item, "m", config)

    assert check(virtual, code("a", "b"), code("a", "b")).verdict == "SAFE"
    found = again(virtual, durable_execution(lambda _, c: code("b")(c)))
    finished = ["removed step m[0]/a"] if nesting is NestingType.FLAT else []
    assert changes(found) == [*finished, "removed step m[1]/a"]


def test_branches_of_an_open_parallel(virtual: Virtual) -> None:
    def code(count: int) -> Any:
        return lambda c: c.parallel([lambda inner: inner.wait(60, "w")] * count, "p")

    assert check(virtual, code(2), code(2)).verdict == "SAFE"
    assert changes(again(virtual, durable_execution(lambda _, c: code(3)(c)))) == ["added parallel_branch p[2]"]
    assert changes(again(virtual, durable_execution(lambda _, c: code(1)(c)))) == ["removed parallel_branch p[1]"]


def test_a_finished_map_is_passed(virtual: Virtual) -> None:
    def code(context: Any) -> None:
        context.map([1, 2], lambda _, item: item, "m")
        context.wait(60, "w")

    found = check(virtual, code, code)
    assert (found.verdict, found.goes_on) == ("SAFE", "w")


def test_async_runs(virtual: Virtual) -> None:
    def code(*names: str) -> DurableFunction:
        @durable_execution
        async def handler(event: Any, context: Any) -> None:
            await asyncio.gather(*(context.step(lambda: 1, name=name) for name in names))
            await context.wait(60, "w")

        return handler

    assert checked(virtual, code("a", "b"), code("a", "b")).verdict == "SAFE"
    assert changes(again(virtual, code("b"))) == ["removed step a"]
    assert changes(again(virtual, code("b", "a"))) == ["moved step a"] or changes(again(virtual, code("b", "a"))) == [
        "moved step b"
    ]


def test_what_an_async_handler_does_in_a_task_group(virtual: Virtual) -> None:
    @durable_execution
    async def handler(event: Any, context: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(context.step(lambda: 1, name="a"))
            group.create_task(context.wait(60, "w"))

    assert checked(virtual, handler, handler).verdict == "SAFE"


def test_waiting_for_the_outside(virtual: Virtual) -> None:
    def code(name: str) -> Any:
        return lambda c: (c.step(lambda: 1, name="a"), c.create_callback(name).result())

    found = check(virtual, code("ask"), code("ask"))
    assert (found.verdict, found.goes_on) == ("SAFE", "ask")
    assert changes(again(virtual, durable_execution(lambda _, c: code("question")(c)))) == [
        "renamed callback ask to question"
    ]


def test_large_values_are_read_and_not_written(virtual: Virtual) -> None:
    def code(context: Any) -> str:
        text: str = context.step(lambda: "x" * 100_000, name="large")
        context.wait(60, "w")
        return text

    assert check(virtual, code, code).verdict == "SAFE"
    assert again(virtual, durable_execution(lambda _, c: c.step(ran, name="large"))).ends == "succeeded"


def test_a_step_between_attempts(virtual: Virtual) -> None:
    def code(context: Any) -> None:
        context.step(lambda: 1 / 0, name="s", retry=Retry(3, delay=60, jitter="none"))

    found = check(virtual, code, code)
    assert (found.verdict, found.goes_on) == ("SAFE", "s")


def test_a_run_that_nobody_has_begun(virtual: Virtual) -> None:
    handler = durable_execution(lambda _, c: c.step(ran, name="a"))
    virtual.engine.enqueue(handler, None, id="r")
    found = again(virtual, handler)
    assert (found.verdict, found.goes_on, found.status) == ("SAFE", "a", "pending")


def test_an_undo_that_is_gone(virtual: Virtual) -> None:
    def code(undo: Any) -> DurableFunction:
        @durable_execution
        def handler(event: Any, context: DurableContext) -> None:
            context.step(lambda _: 1, name="a", undo=undo)
            context.wait(60, "w")

        return handler

    assert changes(checked(virtual, code(lambda c, r: None), code(None))) == ["removed undo a"]
    assert again(virtual, code(ran)).verdict == "SAFE"


def test_a_run_that_rolls_back(virtual: Virtual) -> None:
    plug = Once(Plug())

    def code(undo: Any) -> DurableFunction:
        @durable_execution
        def handler(event: Any, context: DurableContext) -> None:
            context.run_in_child_context(lambda c: c.step(lambda _: 1, name="a", undo=undo), "c")
            raise LookupError("end")

        return handler

    handle = virtual.engine.enqueue(code(lambda c, r: plug()), None, id="r")
    with pytest.raises(Plug):
        virtual.live(handle)
    assert again(virtual, code(ran)).verdict == "SAFE"
    assert changes(again(virtual, code(None))) == ["removed undo c/a"]


def test_a_blocked_run_and_the_right_code(virtual: Virtual) -> None:
    right: Any = steps("a")
    virtual.start(durable_execution(name="f")(lambda _, c: right(c)))
    virtual.clock.advance(60)
    with pytest.raises(Exception, match="was recorded as step"):
        virtual.engine.run(durable_execution(name="f")(lambda _, c: c.wait(1, "a")), id="r")
    found = again(virtual, durable_execution(name="f")(lambda _, c: right(c)))
    assert (found.verdict, found.status) == ("SAFE", "blocked")
