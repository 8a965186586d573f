"""Maps and parallels: order, completion, early end, results, names, nesting and replay."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import BatchResult, Engine, durable_execution
from stepwell.durable import (
    BatchCompletionError,
    ChildContextError,
    ParallelBranch,
    ValidationError,
    complete_batch,
    continue_batch,
    durable_parallel_branch,
    durable_with_child_context,
)
from stepwell.durable.concurrency.models import CompletionReason
from stepwell.durable.config import (
    BatchItemStatus,
    CompletionConfig,
    CompletionOutcome,
    MapConfig,
    NestingType,
    ParallelConfig,
)
from tests.durable.kit import NEVER, Once, Plug, giver, names, nothing, records

if TYPE_CHECKING:
    from tests.durable.conftest import Run

ALL = CompletionConfig.all_completed()


def outcome(batch: BatchResult[Any]) -> list[Any]:
    return [batch.completion_reason.name, [item.status.name for item in batch.all]]


def mapping(items: list[Any], func: Any, completion: CompletionConfig | None = None, **settings: Any) -> Any:
    """A durable function that is one map, one item at a time, and returns how it went."""
    settings.setdefault("max_concurrency", 1)
    if completion is not None:
        settings["completion_config"] = completion
    config: Any = MapConfig(**settings)
    return durable_execution(lambda event, context: outcome(context.map(items, func, "m", config)))


def fail_if_negative(child: Any, item: int) -> int:
    if item < 0:
        raise ValueError(item)
    return item


def noted(calls: list[Any], value: Any) -> Any:
    calls.append(value)
    return value


# -- completion


@pytest.mark.parametrize(
    "items, completion, expected",
    [
        ([1, 2], None, ["ALL_COMPLETED", "SS"]),
        ([1, -1, 2], None, ["FAILURE_TOLERANCE_EXCEEDED", "SF"]),
        ([-1, -2, 3], ALL, ["ALL_COMPLETED", "FFS"]),
        ([1, -1, 2], CompletionConfig.all_successful(), ["FAILURE_TOLERANCE_EXCEEDED", "SF"]),
        ([-1, 1, 2], CompletionConfig.first_successful(), ["MIN_SUCCESSFUL_REACHED", "FS"]),
        ([-1, -2], CompletionConfig.first_successful(), ["ALL_COMPLETED", "FF"]),
        ([1, 2, 3], CompletionConfig(min_successful=2), ["MIN_SUCCESSFUL_REACHED", "SS"]),
        ([1, 2], CompletionConfig(min_successful=2), ["ALL_COMPLETED", "SS"]),
        ([-1, 1, -1, 1], CompletionConfig(tolerated_failure_count=1), ["FAILURE_TOLERANCE_EXCEEDED", "FSF"]),
        ([-1, 1, 1, 1], CompletionConfig(tolerated_failure_count=1), ["ALL_COMPLETED", "FSSS"]),
        ([-1, -1, 1, 1], CompletionConfig(tolerated_failure_percentage=50), ["ALL_COMPLETED", "FFSS"]),
        ([-1, -1, -1, 1], CompletionConfig(tolerated_failure_percentage=50), ["FAILURE_TOLERANCE_EXCEEDED", "FFF"]),
        ([], None, ["ALL_COMPLETED", ""]),
    ],
)
@pytest.mark.parametrize("nesting", list(NestingType))
def test_completion(
    run: Run, items: list[int], completion: CompletionConfig | None, expected: list[str], nesting: NestingType
) -> None:
    reason, statuses = run(mapping(items, fail_if_negative, completion, nesting_type=nesting), id="r")
    assert [reason, "".join(status[0] for status in statuses)] == expected


@pytest.mark.parametrize(
    "rule", [CompletionConfig(), CompletionConfig.all_successful(), CompletionConfig.all_completed()]
)
def test_nothing_to_do(run: Run, rule: CompletionConfig) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> list[Any]:
        both = [
            context.map([], nothing, config=MapConfig(completion_config=rule)),
            context.parallel([], config=ParallelConfig(completion_config=rule)),
        ]
        return [[result.completion_reason.name, result.total_count] for result in both]

    assert run(handler, id="r") == [["ALL_COMPLETED", 0]] * 2
    started = ["ScopeStarted map", "ScopeSucceeded map", "ScopeStarted parallel", "ScopeSucceeded parallel"]
    assert names(run.engine, "r")[1:-1] == started


@pytest.mark.parametrize("outcome_", list(CompletionOutcome))
def test_a_custom_decision(run: Run, outcome_: CompletionOutcome) -> None:
    seen: list[tuple[int, int, int, int]] = []

    def decide(status: Any) -> Any:
        counts = (status.success_count, status.failure_count, status.completed_count, status.total_count)
        seen.append(counts)
        return complete_batch(outcome_) if status.completed_count == 2 else continue_batch()

    config = CompletionConfig(should_complete=decide)
    reason, statuses = run(mapping([1, -1, 2, 3], fail_if_negative, config), id="r")
    assert reason == f"CUSTOM_COMPLETION_{outcome_.name}"
    assert statuses == ["SUCCEEDED", "FAILED"]
    assert seen == [(1, 0, 1, 4), (1, 1, 2, 4)]


def test_a_custom_decision_to_go_on_decides_alone(run: Run) -> None:
    config = CompletionConfig(should_complete=lambda status: continue_batch())
    assert run(mapping([-1, 1], fail_if_negative, config))[0] == "ALL_COMPLETED"


def test_custom_failure_without_failed_items(run: Run) -> None:
    config = CompletionConfig(should_complete=lambda status: complete_batch(CompletionOutcome.FAILED))

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        batch = context.map([1, 2], fail_if_negative, "m", MapConfig(1, config))
        assert batch.status is BatchItemStatus.FAILED
        batch.throw_if_error()

    with pytest.raises(BatchCompletionError):
        run(handler)


# -- bad arguments


@pytest.mark.parametrize(
    "make",
    [
        lambda: MapConfig(max_concurrency=0),
        lambda: ParallelConfig(max_concurrency=-1),
        lambda: CompletionConfig(min_successful=-1),
        lambda: CompletionConfig(tolerated_failure_count=-1),
        lambda: CompletionConfig(tolerated_failure_percentage=101),
        lambda: CompletionConfig(tolerated_failure_percentage=-1),
    ],
)
def test_bad_settings(make: Any) -> None:
    with pytest.raises(ValidationError):
        make()


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.map([1], nothing, "m", MapConfig(completion_config=CompletionConfig(min_successful=2))),
        lambda c: c.map([1, 2], fail_if_negative, "m", MapConfig(item_key=lambda item, i: "same")),
        lambda c: c.map(3, fail_if_negative, "m"),
        lambda c: c.map("text", fail_if_negative, "m"),
        lambda c: c.map([1], None, "m"),
        lambda c: c.parallel([None], "p"),
        lambda c: c.parallel(nothing, "p"),
        lambda c: c.parallel([nothing], "p", ParallelConfig(completion_config=CompletionConfig(min_successful=2))),
        lambda c: c.map([1], nothing, "m", ParallelConfig()),
        lambda c: c.parallel([nothing], "p", 3),
        lambda c: c.map([1], nothing, "m", MapConfig(item_namer=lambda item, i: giver(3)())),
        lambda c: c.map([1], nothing, "m", MapConfig(item_namer=lambda item, i: "x" * 257)),
        lambda c: c.parallel([ParallelBranch(nothing, "a\nb")], "p"),
        lambda c: c.parallel([ParallelBranch(nothing, giver(3)())], "p"),
        lambda c: c.map([1], nothing, "m", MapConfig(item_key=lambda item, i: giver(None)())),
        lambda c: c.map([1], nothing, "m", MapConfig(item_key=lambda item, i: "half \ud800")),
    ],
)
def test_bad_arguments_write_nothing(run: Run, call: Any) -> None:
    with pytest.raises(ValidationError):
        run(durable_execution(lambda event, context: call(context)), id="r")
    assert run.keys("r", "ScopeStarted") == []


# -- functions and names


@pytest.mark.parametrize(
    "func, result",
    [
        (lambda ctx, item: item, ["a", "b"]),
        (lambda ctx, item, index: [item, index], [["a", 0], ["b", 1]]),
        (lambda ctx, item, index, inputs: [item, index, inputs], [["a", 0, ["a", "b"]], ["b", 1, ["a", "b"]]]),
    ],
)
def test_a_map_gives_as_much_as_is_asked_for(run: Run, func: Any, result: list[Any]) -> None:
    assert run(durable_execution(lambda event, context: context.map(["a", "b"], func).get_results())) == result


def test_iterables_are_listed_first(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.map(range(3), lambda c, i: i).get_results())
    assert run(handler) == [0, 1, 2]


def test_names_of_items_and_branches(run: Run) -> None:
    @durable_parallel_branch()
    def unnamed(context: Any) -> int:
        return 1

    @durable_parallel_branch(name="given")
    def branch(context: Any, value: int) -> int:
        return value

    @durable_with_child_context
    def bound(context: Any) -> int:
        return 3

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.map([1], lambda c, i: i, "m")
        context.map(["x"], lambda c, i: i, "n", MapConfig(item_namer=lambda item, index: f"{item}-{index}"))
        context.parallel([unnamed(), branch(2), ParallelBranch(nothing, "own"), lambda c: 1, bound()], "p")

    run(handler, id="r")
    started = [r["name"] for r in records(run.engine, "r") if r["record"] == "ScopeStarted" and "[" in r["key"]]
    assert started[:2] == ["map-item-0", "x-0"]
    assert started[2:6] == ["parallel-branch-0", "given", "own", "parallel-branch-3"]


def test_a_namer_that_gives_nothing(run: Run) -> None:
    config: Any = MapConfig(1, item_namer=lambda item, index: item)
    run(durable_execution(lambda event, context: context.map([None, "", "own"], lambda c, i: i, "m", config)), id="r")
    started = [r["name"] for r in records(run.engine, "r") if r["record"] == "ScopeStarted"]
    assert started == ["m", "map-item-0", "map-item-1", "own"]


def test_a_bound_function_names_its_map(run: Run) -> None:
    @durable_with_child_context
    def double(context: Any, item: int) -> int:
        return 2 * item

    @durable_with_child_context
    def add(context: Any, item: int = 0, index: int = 0, *, more: int) -> int:
        return item + index + more

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return [context.map([1, 2], func).get_results() for func in (double, add(more=10))]

    assert run(handler, id="r") == [[2, 4], [11, 13]]
    started = [r["name"] for r in records(run.engine, "r") if r["record"] == "ScopeStarted" and "[" not in r["key"]]
    assert started == ["double", "add"]


def test_keys_of_items(run: Run) -> None:
    def item(child: Any, value: int) -> None:
        child.step(nothing, name="s")

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.map([5, 6], item, "m", MapConfig(1))
        context.map([5, 6], item, "k", MapConfig(1, item_key=lambda value, i: value))
        context.map([5], item, "f", MapConfig(1, nesting_type=NestingType.FLAT))

    run(handler, id="r")
    assert run.keys("r", "StepStarted") == ["m[0]/s", "m[1]/s", "k[key=5]/s", "k[key=6]/s", "f[0]/s"]
    assert run.keys("r", "ScopeStarted") == ["m", "m[0]", "m[1]", "k", "k[key=5]", "k[key=6]", "f"]


def test_items_found_by_key_are_not_run_again(run: Run) -> None:
    calls: list[str] = []
    inputs = [["a", "b"]]
    plug = Once(Plug())

    def item(child: Any, value: str) -> Any:
        if value == "b" and len(inputs[0]) == 2:
            plug()
        return child.step(lambda: noted(calls, value), name="s")

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.map(inputs[0], item, "m", MapConfig(1, item_key=lambda value, i: value)).get_results()

    with pytest.raises(Plug):
        run(handler, id="r")
    inputs[0] = ["c", "b", "a"]
    assert run(handler, id="r") == ["c", "b", "a"]
    assert sorted(calls) == ["a", "b", "c"]


# -- order of events


def test_one_at_a_time_is_in_order(run: Run) -> None:
    run(mapping([1, 2], lambda c, i: c.step(lambda: i, name="s")), id="r")
    assert names(run.engine, "r")[1:-1] == [
        "ScopeStarted m",
        "ScopeStarted m[0]", "StepStarted m[0]/s", "StepSucceeded m[0]/s", "ScopeSucceeded m[0]",
        "ScopeStarted m[1]", "StepStarted m[1]/s", "StepSucceeded m[1]/s", "ScopeSucceeded m[1]",
        "ScopeSucceeded m",
    ]  # fmt: skip


def test_no_more_than_max_concurrency_at_a_time(run: Run) -> None:
    now, most, lock = [0], [0], threading.Lock()
    meet = threading.Barrier(2)

    def item(child: Any, value: int) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        meet.wait(10)
        with lock:
            now[0] -= 1

    assert run(mapping(list(range(6)), item, max_concurrency=2))[0] == "ALL_COMPLETED"
    assert most == [2]


def test_a_waiting_branch_keeps_its_slot(run: Run) -> None:
    order: list[str] = []

    def item(child: Any, value: int) -> None:
        order.append(f"in {value}")
        child.wait(0.003)
        order.append(f"out {value}")

    run(mapping([0, 1], item))
    assert [o for n, o in enumerate(order) if o not in order[:n]] == ["in 0", "out 0", "in 1", "out 1"]


def test_branches_may_wait_for_each_other(run: Run) -> None:
    flag = threading.Event()
    branches = [lambda c: c.step(lambda: flag.wait(10), name="s"), lambda c: c.step(flag.set, name="s")]
    assert run(durable_execution(lambda event, context: context.parallel(branches).get_results())) == [True, None]


# -- early end


def test_early_end_returns_at_once(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        branches = [lambda c: c.step(nothing, name="s"), lambda c: c.wait(600), lambda c: c.wait(600)]
        config = ParallelConfig(completion_config=CompletionConfig.first_successful())
        return outcome(context.parallel(branches, "p", config))

    assert run(handler, id="r") == ["MIN_SUCCESSFUL_REACHED", ["SUCCEEDED", "STARTED", "STARTED"]]
    assert sorted(run.keys("r", "ScopeCancelled")) == ["p[1]", "p[2]"]


def test_an_async_branch_let_go_of_is_cancelled(run: Run) -> None:
    seen: list[str] = []

    async def slow(child: Any) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            seen.append("ended")
        await child.step(lambda: seen.append("ran"), name="late")

    async def quick(child: Any) -> int:
        await asyncio.wait({asyncio.ensure_future(asyncio.to_thread(nothing))})
        return 1

    @durable_execution
    async def handler(event: Any, context: Any) -> Any:
        config = ParallelConfig(completion_config=CompletionConfig.first_successful())
        return outcome(await context.parallel([quick, slow], "p", config))

    assert run(handler, id="r") == ["MIN_SUCCESSFUL_REACHED", ["SUCCEEDED", "STARTED"]]
    assert "ran" not in seen
    assert run.keys("r", "StepStarted") == []


def test_thousands_of_items_on_few_threads(run: Run) -> None:
    before = threading.active_count()
    most: list[int] = [0]

    def item(child: Any, value: int) -> int:
        most[0] = max(most[0], threading.active_count())
        return value

    handler = durable_execution(
        lambda event, context: len(
            context.map(range(3000), item, "m", MapConfig(nesting_type=NestingType.FLAT)).get_results()
        )
    )
    assert run(handler) == 3000
    assert most[0] - before <= 70


# -- results


def test_branch_errors_are_in_the_result(run: Run) -> None:
    seen: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        batch = context.map([1, -1], fail_if_negative, "m", MapConfig(1, ALL))
        seen.append([batch.has_failure, batch.success_count, batch.failure_count, batch.total_count])
        seen.append([error.type for error in batch.get_errors()])
        seen.append([[i.index for i in batch.succeeded()], [i.index for i in batch.failed()], batch.started()])
        try:
            batch.throw_if_error()
        except ChildContextError as error:
            seen.append(isinstance(error, ValueError))
        return batch

    found = run(handler)
    assert seen[0] == [True, 1, 1, 2]
    assert seen[1] in (["ValueError"], ["ChildContextError"])
    assert seen[2:] == [[[0], [1], []], True]
    assert isinstance(found, BatchResult), "a handler may return one"
    assert found.get_results() == [1]


def test_to_dict(run: Run) -> None:
    found = run(durable_execution(lambda event, context: context.map(["a"], lambda c, i: i).to_dict()))
    assert found["completionReason"] == "ALL_COMPLETED"
    assert {k: found["all"][0][k] for k in ("index", "status", "result", "error")} == {
        "index": 0, "status": "SUCCEEDED", "result": "a", "error": None,
    }  # fmt: skip
    assert BatchResult.from_dict(found).completion_reason is CompletionReason.ALL_COMPLETED


# -- replay


@pytest.mark.parametrize("nesting", list(NestingType))
def test_a_finished_batch_is_not_entered_again(run: Run, nesting: NestingType) -> None:
    entered: list[int] = []
    seen: list[Any] = []
    plug = Once(Plug())

    def item(child: Any, value: int) -> Any:
        entered.append(value)
        if value < 0:
            raise ValueError(value)
        return child.step(lambda: (value,), name="s")

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        seen.append(context.map([1, -1, 2], item, "m", MapConfig(1, ALL, nesting_type=nesting)).to_dict())
        context.step(plug, name="t")

    with pytest.raises(Plug):
        run(handler, id="r")
    run(handler, id="r")
    assert entered == [1, -1, 2]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("nesting", list(NestingType))
def test_after_a_crash_finished_branches_are_not_run(run: Run, nesting: NestingType) -> None:
    calls: list[int] = []
    plug = Once(Plug())

    def item(child: Any, value: int) -> Any:
        child.step(lambda: calls.append(value), name="a")
        if value == 1:
            child.step(plug, name="b")
        return value

    handler = mapping([0, 1, 2], item, nesting_type=nesting)
    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == ["ALL_COMPLETED", ["SUCCEEDED"] * 3]
    assert calls == [0, 1, 2]


def test_a_custom_decision_is_recorded(run: Run) -> None:
    asked: list[int] = []
    plug = Once(Plug())

    def decide(status: Any) -> Any:
        asked.append(status.completed_count)
        return complete_batch(CompletionOutcome.SUCCEEDED) if status.completed_count == 1 else continue_batch()

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        config: Any = MapConfig(1, CompletionConfig(should_complete=decide))
        found = outcome(context.map([1, 2], fail_if_negative, "m", config))
        context.step(plug, name="t")
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == ["CUSTOM_COMPLETION_SUCCEEDED", ["SUCCEEDED"]]
    assert asked == [1]


def test_flat_operations_are_shown_in_the_map(run: Run) -> None:
    run(mapping([1], lambda c, i: c.step(nothing, name="s"), nesting_type=NestingType.FLAT), id="r")
    batch = run.engine.get_run("r").get_context("m")
    assert [op.name for op in batch.child_operations] == ["s"]


@pytest.mark.parametrize("hold", [0, 60])
def test_waits_and_retries_inside(hold: float) -> None:
    engine = Engine(f"memory://inside-{hold}", hold=hold)

    def item(child: Any, value: int) -> Any:
        child.wait(0.002, name="w")
        return child.step(lambda: value * 2, name="s", retry=NEVER)

    try:
        handler = durable_execution(lambda event, context: context.map([1, 2, 3], item, "m").get_results())
        assert engine.run(handler) == [2, 4, 6]
    finally:
        engine.stop()
