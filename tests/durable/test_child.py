"""Child contexts: a scope with keys, a result and an error of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, StepConfig, durable_execution
from stepwell.durable import (
    ChildContextError,
    ParallelBranch,
    SerDesError,
    ValidationError,
    durable_with_child_context,
    with_retry,
)
from stepwell.durable.config import ChildConfig
from stepwell.durable.serdes import SerDes, SerDesContext
from tests.durable.kit import NEVER, Once, Plug, names, nothing, raiser

if TYPE_CHECKING:
    from tests.durable.conftest import Run


@durable_with_child_context
def block(context: Any, a: int, *, b: int = 0) -> int:
    return int(context.step(lambda: a + b, name="add"))


def made(entered: list[int]) -> dict[str, Any]:
    entered.append(1)
    return {"a": (1,)}


def test_bound_functions_name_their_scope(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.run_in_child_context(block(1, b=2)))
    assert run(handler, id="r") == 3
    assert names(run.engine, "r")[1:-1] == [
        "ScopeStarted block", "StepStarted block/add", "StepSucceeded block/add", "ScopeSucceeded block",
    ]  # fmt: skip
    assert run.engine.get_run("r").operations[0].name == "block"


def test_keys_inside(run: Run) -> None:
    keys: list[str] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        def inner(child: Any) -> None:
            keys.append(child.key)
            child.step(nothing)
            child.run_in_child_context(lambda deep: keys.append(deep.key), "deep")

        context.run_in_child_context(inner, "c")
        context.run_in_child_context(inner, "c")
        context.run_in_child_context(lambda child: keys.append(child.key))

    run(handler, id="r")
    assert keys == ["c", "c/deep", "c#2", "c#2/deep", "child"]


def test_a_finished_child_is_not_entered_again(run: Run) -> None:
    entered: list[int] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        found = context.run_in_child_context(lambda child: made(entered), "c")
        context.step(plug, name="s")
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == {"a": (1,)}
    assert entered == [1]


def test_an_unfinished_child_goes_on_where_it_stood(run: Run) -> None:
    calls: list[str] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def inner(child: Any) -> Any:
            child.step(lambda: calls.append("a"), name="a")
            return child.step(plug, name="b")

        return context.run_in_child_context(inner, "c")

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == 2
    assert calls == ["a"]
    assert run.keys("r", "ScopeStarted") == ["c"]


def test_errors_are_typed_and_chained(run: Run) -> None:
    seen: list[Any] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        try:
            context.run_in_child_context(lambda child: raiser(LookupError("gone"))(), "c")
        except ChildContextError as error:
            seen.append((isinstance(error, LookupError), error.error_type, str(error), type(error.__cause__).__name__))
        context.step(plug, name="s")

    with pytest.raises(Plug):
        run(handler, id="r")
    run(handler, id="r")
    assert seen == [(True, "LookupError", "gone", "LookupError")] * 2
    assert run.keys("r", "ScopeFailed") == ["c"]


def test_a_failed_step_inside(run: Run) -> None:
    def inner(child: Any) -> Any:
        return child.step(raiser(ValueError("no")), name="s", retry=NEVER)

    with pytest.raises(ValueError, match="no") as failed:
        run(durable_execution(lambda event, context: context.run_in_child_context(inner, "c")), id="r")
    assert isinstance(failed.value, ChildContextError)


def test_virtual_children_have_no_records(run: Run) -> None:
    entered: list[bool] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        def inner(child: Any) -> Any:
            entered.append(child.is_virtual)
            return child.step(lambda: 1, name="s")

        found = context.run_in_child_context(inner, "v", ChildConfig(is_virtual=True))
        context.step(plug, name="t")
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == 1
    assert entered == [True, True], "its body runs on each replay"
    assert run.keys("r", "ScopeStarted") == []
    assert run.keys("r", "StepStarted") == ["v/s", "t"]
    assert [op.name for op in run.engine.get_run("r").operations] == ["s", "t"], "shown in the enclosing scope"


class Mark(SerDes[Any]):
    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:
        return f"<{value}>"

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:
        return data


def test_serdes_and_sub_type(run: Run) -> None:
    config: Any = ChildConfig(serdes=Mark(), sub_type="Stage")
    handler = durable_execution(lambda event, context: context.run_in_child_context(lambda c: 1, "c", config))
    assert run(handler, id="r") == "<1>"
    assert run.engine.get_run("r").operations[0].sub_type == "Stage"


def test_what_cannot_be_recorded(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.run_in_child_context(lambda child: object(), "c"))
    with pytest.raises(SerDesError):
        run(handler, id="r")


@pytest.mark.parametrize("wrong", [3, StepConfig()])
def test_what_is_no_config(run: Run, wrong: Any) -> None:
    with pytest.raises(ValidationError, match="config of run_in_child_context is a ChildConfig"):
        run(durable_execution(lambda event, context: context.run_in_child_context(nothing, config=wrong)), id="r")
    assert run.keys("r", "ScopeStarted") == []


@pytest.mark.parametrize("wrong", [None, 3])
def test_what_is_no_function(run: Run, wrong: Any) -> None:
    with pytest.raises(ValidationError):
        run(durable_execution(lambda event, context: context.run_in_child_context(wrong)), id="r")


# -- colours


async def later(*_: Any) -> int:
    return 1


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.run_in_child_context(later),
        lambda c: c.map([1], later),
        lambda c: c.parallel([later]),
        lambda c: c.parallel([ParallelBranch(later, "own")]),
        lambda c: c.gather(later),
        lambda c: c.race(later),
        lambda c: with_retry(c, later),
        lambda c: c.child_async(later),
    ],
)
def test_coroutines_have_no_scope_in_a_sync_function(run: Run, call: Any) -> None:
    with pytest.raises(ValidationError, match="later is async def: make the durable function async def"):
        run(durable_execution(lambda event, context: call(context)), id="r")
    assert run.keys("r", "ScopeStarted") == []


def test_a_scope_of_a_sync_function_gives_no_awaitable(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.run_in_child_context(lambda c: later(), "c"))
    with pytest.raises(ValidationError, match="make the durable function async def"):
        run(handler, id="r")


def test_plain_functions_are_scopes_of_an_async_function(run: Run) -> None:
    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        return [
            await context.run_in_child_context(lambda c: 1),
            (await context.map([2], lambda c, item: item)).get_results(),
            (await context.parallel([lambda c: 3])).get_results(),
            await context.gather(lambda c: 4, lambda c: c.step(lambda: 5)),
            await with_retry(context, lambda c, attempt: attempt),
        ]

    assert run(handler) == [1, [2], [3], [4, 5], 1]


@pytest.mark.parametrize("mode", ["store", "replay"])
def test_large_results(mode: Any) -> None:
    engine = Engine(f"memory://large-{mode}", large_child_results=mode)
    entered: list[int] = []
    calls: list[int] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        def inner(child: Any) -> str:
            entered.append(1)
            child.step(lambda: calls.append(1), name="s")
            return "x" * 300_000

        found = context.run_in_child_context(inner, "c", ChildConfig(summary_generator=lambda r: f"{len(r)} of x"))
        context.step(plug, name="t")
        return len(found)

    try:
        with pytest.raises(Plug):
            engine.run(handler, id="r")
        assert engine.run(handler, id="r") == 300_000
        ended = next(r for r in engine.get_run("r").history() if r["record"] == "ScopeSucceeded")
        assert ended["replay_children"] is (mode == "replay")
        assert len(entered) == (2 if mode == "replay" else 1)
        assert calls == [1]
        if mode == "replay":
            assert "300000 of x" in str(ended["payload"])
    finally:
        engine.stop()
