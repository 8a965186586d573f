"""Undo: finished steps are undone, last first, as durable steps, when the run does not succeed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Retry, RollbackFailed, RunCancelled, RunTimedOut, StepConfig, UsageError, durable_execution
from stepwell.durable import StepContext, durable_step
from tests.durable.kit import FAST, NEVER, Once, Plug, names, raiser

if TYPE_CHECKING:
    from tests.durable.conftest import Run


def undoing(undone: list[Any]) -> Any:
    return lambda context, result: undone.append(result)


def failing(*made: str, undone: list[Any], last: Any = None) -> Any:
    """Steps with an undo, then the end."""

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        for name in made:
            context.step(lambda: name, name=name, undo=undoing(undone))  # noqa: B023
        (last or raiser(LookupError("end")))()

    return handler


def test_last_first_and_on_record(run: Run) -> None:
    undone: list[Any] = []
    with pytest.raises(LookupError):
        run(failing("a", "b", undone=undone), id="r")
    assert undone == ["b", "a"]
    assert names(run.engine, "r")[5:] == [
        "RollbackStarted",
        "StepStarted undo/b", "StepSucceeded undo/b", "StepStarted undo/a", "StepSucceeded undo/a",
        "RunFailed",
    ]  # fmt: skip


def test_a_scope_called_undo_is_not_taken_for_what_was_undone(run: Run) -> None:
    undone: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.run_in_child_context(lambda child: child.step(lambda: "inner", name="a"), "undo")
        context.step(lambda: "a", name="a", undo=undoing(undone))
        raise LookupError("end")

    with pytest.raises(LookupError):
        run(handler, id="r")
    assert undone == ["a"]
    assert run.engine.get_run("r").get_context("undo").name == "undo"


def test_a_run_that_succeeds_undoes_nothing(run: Run) -> None:
    undone: list[Any] = []
    run(failing("a", undone=undone, last=lambda: None), id="r")
    assert undone == []
    assert "RollbackStarted" not in names(run.engine, "r")


def test_a_run_without_undo_has_no_rollback(run: Run) -> None:
    with pytest.raises(LookupError):
        run(failing(undone=[]), id="r")
    assert names(run.engine, "r") == ["RunStarted", "RunFailed"]


def test_a_failed_step_is_not_undone(run: Run) -> None:
    undone: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(raiser(ValueError("no")), name="s", retry=NEVER, undo=undoing(undone))

    with pytest.raises(ValueError, match="no"):
        run(handler, id="r")
    assert undone == []


def test_a_rollback_goes_on_after_a_crash(run: Run) -> None:
    undone: list[Any] = []
    plug = Once(Plug())
    handled: list[int] = []

    def undo(context: Any, result: str) -> None:
        undone.append(result)
        if result == "b":
            plug()

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: "a", name="a", undo=undo)
        context.step(lambda: "b", name="b", undo=undo)
        context.step(lambda: handled.append(1), name="c")
        raise LookupError("end")

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run.engine.get_run("r").status == "rolling_back"
    with pytest.raises(LookupError):
        run(handler, id="r")
    assert undone == ["b", "b", "a"]
    assert handled == [1], "nothing of the handler is executed again"


def test_undo_is_retried(run: Run) -> None:
    attempts: list[int] = []

    def undo(context: StepContext, result: Any) -> None:
        attempts.append(context.attempt)
        if context.attempt < 3:
            raise ConnectionError

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: 1, "s", StepConfig(undo=undo, undo_retry=FAST))
        raise LookupError("end")

    with pytest.raises(LookupError):
        run(handler, id="r")
    assert attempts == [1, 2, 3]


def test_a_failing_undo_is_listed_and_the_next_goes_on(run: Run) -> None:
    undone: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: "a", name="a", undo=undoing(undone))
        context.step(lambda: "b", "b", StepConfig(undo=lambda c, r: 1 / 0, undo_retry=Retry(1)))
        raise LookupError("end")

    with pytest.raises(RollbackFailed, match="b"):
        run(handler, id="r")
    assert undone == ["a"]
    assert run.engine.get_run("r").status == "failed"


def test_on_failure_in_its_place(run: Run) -> None:
    undone: list[Any] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: "a", name="a", undo=undoing(undone))
        context.on_failure(lambda c, x, y: undone.append((x, y)), 1, 2, name="noted")
        context.step(lambda: "b", name="b", undo=undoing(undone))
        plug()
        raise LookupError("end")

    with pytest.raises(Plug):
        run(handler, id="r")
    with pytest.raises(LookupError):
        run(handler, id="r")
    assert undone == ["b", (1, 2), "a"]


def test_steps_in_scopes_and_branches(run: Run) -> None:
    undone: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        def inner(child: Any) -> None:
            child.step(lambda: child.key, name="s", undo=undoing(undone))

        context.run_in_child_context(inner, "c")
        context.map([1, 2], lambda child, i: inner(child), "m").throw_if_error()
        raise LookupError("end")

    with pytest.raises(LookupError):
        run(handler, id="r")
    assert sorted(undone[:2]) == ["m[0]", "m[1]"]
    assert undone[2:] == ["c"]


def test_rollback_now(run: Run) -> None:
    undone: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> str:
        context.step(lambda: "outer", name="o", undo=undoing(undone))

        def inner(child: Any) -> None:
            child.step(lambda: "inner", name="i", undo=undoing(undone))
            child.rollback()

        context.run_in_child_context(inner, "c")
        return "done"

    assert run(handler, id="r") == "done"
    assert undone == ["inner"], "of this scope only"


def test_cancelling_undoes(run: Run) -> None:
    undone: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: "a", name="a", undo=undoing(undone))
        context.wait(600)

    handle = run.engine.start_run(handler, id="r")
    with pytest.raises(TimeoutError):
        handle.wait(0.02)
    handle.cancel("enough")
    with pytest.raises(RunCancelled):
        handle.result(10)
    assert undone == ["a"]
    assert handle.status == "cancelled"


def test_cancelling_a_run_in_a_task_group_undoes(run: Run) -> None:
    """Undo functions are found by replaying a handler whose task group wraps the end of the replay in a group."""
    undone: list[Any] = []
    plug = Once(Plug())

    @durable_execution
    async def handler(event: Any, context: Any) -> None:
        await context.step(lambda: "a", name="a", undo=undoing(undone))
        async with asyncio.TaskGroup() as group:
            group.create_task(context.step(plug, name="b"))

    with pytest.raises(BaseExceptionGroup):
        run(handler, id="r")
    handle = run.engine.get_run("r")
    handle.cancel("enough")
    with pytest.raises(RunCancelled):
        handle.resume()
    assert undone == ["a"]


def test_a_time_out_undoes(run: Run) -> None:
    undone: list[Any] = []

    @durable_execution(timeout=0.05)
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: "a", name="a", undo=undoing(undone))
        context.wait(600)

    with pytest.raises(RunTimedOut):
        run(handler, id="r")
    assert undone == ["a"]


def test_an_undone_run_is_not_retried(run: Run) -> None:
    with pytest.raises(LookupError):
        run(failing("a", undone=[]), id="r")
    before = names(run.engine, "r")
    with pytest.raises(UsageError, match="its finished steps were undone; start a new run"):
        run.engine.get_run("r").retry()
    assert names(run.engine, "r") == before


def test_undo_gets_a_step_context(run: Run) -> None:
    seen: list[StepContext] = []

    @durable_step
    def made(context: StepContext) -> int:
        return 1

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(made(), undo=lambda c, result: seen.append(c))
        raise LookupError("end")

    with pytest.raises(LookupError):
        run(handler, id="r")
    assert (seen[0].attempt, seen[0].run_id, seen[0].key) == (1, "r", "undo/made")
