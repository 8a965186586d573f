"""Plugins: which hooks are called, in which order, in which life, on which thread (durable.md §16)."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

import stepwell
from stepwell import Engine, Retry, durable_execution
from stepwell.durable.config import ChildConfig, MapConfig
from stepwell.durable.lambda_service import InvocationStatus, OperationStatus, OperationSubType, OperationType
from stepwell.durable.plugin import (
    DurableInstrumentationPlugin,
    InvocationEndInfo,
    InvocationInfo,
    InvocationStartInfo,
    OperationInfo,
    UserFunctionEndInfo,
    UserFunctionOutcome,
    UserFunctionStartInfo,
)
from stepwell.errors import PluginLoadError, RunCancelled, RunFailed, UsageError
from stepwell.runtime import _observe
from tests.durable.kit import NEVER, Plug, names, raiser, records

if TYPE_CHECKING:
    from tests.durable.conftest import Run

SOON = Retry(3, delay=0.01, jitter="none")


class Diary(DurableInstrumentationPlugin):
    """Writes down each call."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.infos: list[Any] = []
        self.threads: dict[str, list[str]] = {}

    def note(self, line: str, info: Any) -> None:
        self.lines.append(line)
        self.infos.append(info)

    def on_invocation_start(self, info: InvocationStartInfo) -> None:
        self.note("life" if info.is_first_invocation else "life again", info)

    def on_invocation_end(self, info: InvocationEndInfo) -> None:
        self.note(f"life {info.status.name}", info)

    def on_operation_start(self, info: OperationInfo) -> None:
        self.note(f"start {info.name}{' again' if info.is_replayed else ''}", info)

    def on_operation_change(self, info: OperationInfo) -> None:
        self.note(f"change {info.name} {info.status.name} {info.attempt}", info)

    def on_operation_end(self, info: OperationInfo) -> None:
        assert not info.is_replayed
        self.note(f"end {info.name} {info.status.name}", info)

    def on_user_function_start(self, info: UserFunctionStartInfo) -> None:
        self.threads.setdefault(str(info.name), []).append(threading.current_thread().name)
        self.note(f"call {info.name}", info)

    def on_user_function_end(self, info: UserFunctionEndInfo) -> None:
        self.threads.setdefault(str(info.name), []).append(threading.current_thread().name)
        self.note(f"left {info.name} {info.outcome.name}", info)

    def of(self, line: str) -> Any:
        return self.infos[self.lines.index(line)]


# -- one run, both colours


@durable_execution(name="plugins-sync")
def sync_handler(event: Any, context: Any) -> int:
    one = context.step(lambda _: 1, name="one")
    context.wait(0.01, name="nap")

    def inside(child: Any) -> int:
        return int(child.step(lambda _: one + 1, name="two"))

    two = context.run_in_child_context(inside, name="scope")
    tries = context.step(lambda s: _flaky(s.attempt), name="flaky", retry=SOON)
    return int(two + tries)


@durable_execution(name="plugins-async")
async def async_handler(event: Any, context: Any) -> int:
    async def body(value: int) -> int:
        return value

    one = await context.step(lambda _: body(1), name="one")
    await context.wait(0.01, name="nap")

    async def inside(child: Any) -> int:
        return int(await child.step(lambda _: body(one + 1), name="two"))

    two = await context.run_in_child_context(inside, name="scope")

    async def flaky(step: Any) -> int:
        return _flaky(step.attempt)

    tries = await context.step(flaky, name="flaky", retry=SOON)
    return int(two + tries)


def _flaky(attempt: int) -> int:
    if attempt < 2:
        raise ConnectionError("away")
    return attempt


STORY = [
    "life", "start one", "call one", "left one SUCCEEDED", "end one SUCCEEDED", "start nap", "life PENDING",
    "life again", "start nap again", "end nap SUCCEEDED",
    "start scope", "call scope", "start two", "call two", "left two SUCCEEDED", "end two SUCCEEDED",
    "left scope SUCCEEDED", "end scope SUCCEEDED",
    "start flaky", "call flaky", "left flaky FAILED", "change flaky PENDING 1", "life PENDING",
    "life again", "start flaky again", "change flaky STARTED 2", "call flaky", "left flaky SUCCEEDED",
    "end flaky SUCCEEDED", "life SUCCEEDED",
]  # fmt: skip


@pytest.mark.parametrize("handler", [sync_handler, async_handler], ids=["sync", "async"])
def test_each_hook_in_its_life(run: Run, handler: Any) -> None:
    diary = Diary()
    assert run(handler, {"day": 1}, plugins=[diary]) == 4
    assert diary.lines == STORY


@pytest.mark.parametrize("handler", [sync_handler, async_handler], ids=["sync", "async"])
def test_a_run_with_plugins_has_the_journal_of_one_without(run: Run, handler: Any) -> None:
    run(handler, id="with", plugins=[Diary()])
    run(handler, id="without")
    assert records(run.engine, "with") == records(run.engine, "without")


def test_what_the_infos_say(run: Run) -> None:
    diary = Diary()
    run(sync_handler, {"day": 1}, id="facts", plugins=[diary])
    first, again = [info for info in diary.infos if isinstance(info, InvocationStartInfo)][:2]
    assert (first.request_id, first.execution_input, first.operations) == ("facts-1", '{"day":1}', ())
    assert first.execution_arn.endswith("/durable-execution/facts/facts")
    assert (again.request_id, again.is_first_invocation) == ("facts-2", False)
    assert [(op.name, op.status) for op in again.operations] == [
        ("one", OperationStatus.SUCCEEDED), ("nap", OperationStatus.STARTED),
    ]  # fmt: skip
    assert [op.name for op in again.updated_operations] == ["nap"]  # its time has come
    third = [info for info in diary.infos if isinstance(info, InvocationStartInfo)][2]
    assert [(op.name, op.status) for op in third.updated_operations] == [("flaky", OperationStatus.READY)]

    scope, two, end = diary.of("end scope SUCCEEDED"), diary.of("end two SUCCEEDED"), diary.of("life SUCCEEDED")
    assert (scope.operation_type, scope.sub_type) == (OperationType.CONTEXT, OperationSubType.RUN_IN_CHILD_CONTEXT)
    assert (two.parent_id, scope.parent_id) == (scope.operation_id, None)
    assert two.result == "2"
    assert scope.start_time <= two.start_time <= two.end_time <= scope.end_time
    assert (end.execution_result, end.error, end.execution_start_time) == ("4", None, first.execution_start_time)
    planned = diary.of("change flaky PENDING 1")
    assert (planned.error.type, planned.error.message, planned.end_time) == ("ConnectionError", "away", None)
    mended = diary.of("end flaky SUCCEEDED")
    assert (mended.attempt, mended.error) == (2, None)
    left = diary.of("left flaky FAILED")
    assert (left.attempt, left.error.type, left.operation_type) == (1, "ConnectionError", OperationType.STEP)
    with pytest.raises(AttributeError):
        two.name = "other"


def test_hooks_see_only_what_is_on_record(run: Run) -> None:
    seen: list[Any] = []

    class Reader(DurableInstrumentationPlugin):
        def look(self) -> list[str]:
            return names(run.engine, "seen")

        def on_operation_start(self, info: OperationInfo) -> None:
            seen.append((info.name, any(line.startswith(("Step", "Wait", "Scope")) for line in self.look())))
            assert any(line in self.look() for line in (f"StepStarted {info.name}", f"WaitStarted {info.name}"))

        def on_operation_end(self, info: OperationInfo) -> None:
            seen.append(info.name)
            assert any(line in self.look() for line in (f"StepSucceeded {info.name}", f"WaitEnded {info.name}"))

        def on_invocation_end(self, info: InvocationEndInfo) -> None:
            seen.append(run.engine.get_run("seen").status)

    def handler(event: Any, context: Any) -> None:
        context.step(lambda _: seen.append("body"), name="one")
        context.wait(0, name="nap")

    run(handler, id="seen", plugins=[Reader()])
    assert seen == [("one", True), "body", "one", ("nap", True), "nap", "succeeded"]


# -- operations that are many


def test_branches_end_once_each_in_the_order_of_their_commits(run: Run) -> None:
    diary = Diary()

    def handler(event: Any, context: Any) -> int:
        def item(child: Any, value: int) -> int:
            child.wait(0.001, name=f"nap {value}")
            return int(child.step(lambda _: value, name=f"step {value}"))

        return int(context.map(range(4), item, name="each", config=MapConfig()).success_count)

    assert run(handler, id="many", plugins=[diary]) == 4
    ends = [line for line in diary.lines if line.startswith("end")]
    assert sorted(ends) == sorted(
        f"end {name} SUCCEEDED"
        for name in (
            "each",
            *(f"{what} {n}" for what in ("nap", "step") for n in range(4)),
            *(f"map-item-{n}" for n in range(4)),
        )
    )
    ended = [
        r["key"] for r in run.engine.get_run("many").history() if r["record"] in ("StepSucceeded", "ScopeSucceeded")
    ]
    told = [
        info.operation_id
        for line, info in zip(diary.lines, diary.infos, strict=True)
        if line.startswith("end") and info.operation_type is not OperationType.WAIT
    ]
    assert told == [stepwell.core.operation_id(key) for key in ended]
    item, each = diary.of("end map-item-2 SUCCEEDED"), diary.of("end each SUCCEEDED")
    assert (item.parent_id, item.sub_type) == (each.operation_id, OperationSubType.MAP_ITERATION)
    assert diary.of("end nap 2 SUCCEEDED").parent_id == item.operation_id


def test_a_hook_may_wait_for_another_branch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock of ours is held while a hook runs: what it waits for comes about."""
    monkeypatch.setattr(_observe, "LONGEST_HOLD", 0.05)
    arrived = threading.Event()

    class Waits(DurableInstrumentationPlugin):
        def on_operation_end(self, info: OperationInfo) -> None:
            if info.name == "first":
                assert arrived.wait(60)

    def handler(event: Any, context: Any) -> Any:
        def first(child: Any) -> int:
            return int(child.step(lambda _: 1, name="first"))

        def second(child: Any) -> int:
            child.step(lambda _: 2, name="second")
            child.step(lambda _: 3, name="third")
            arrived.set()
            return 2

        return context.parallel([first, second]).get_results()

    assert run(handler, plugins=[Waits()]) == [1, 2]


def test_a_hook_may_do_engine_work(run: Run) -> None:
    class Nested(DurableInstrumentationPlugin):
        def on_operation_end(self, info: OperationInfo) -> None:
            run(lambda event, context: context.step(lambda _: 5, name="inner"), id=f"audit-{info.name}")

    run(lambda event, context: context.step(lambda _: 1, name="one"), id="outer", plugins=[Nested()])
    assert run.engine.get_run("audit-one").result() == 5


# -- bodies


def test_user_functions_are_watched_on_their_own_thread(run: Run) -> None:
    diary = Diary()

    def handler(event: Any, context: Any) -> None:
        context.step(lambda _: bodies.append(threading.current_thread().name), name="limited", timeout=60)

    bodies: list[str] = []
    run(handler, plugins=[diary])
    assert diary.threads["limited"] == bodies * 2 != [threading.current_thread().name] * 2


def test_sync_bodies_of_async_runs_are_watched_on_their_own_thread(run: Run) -> None:
    diary, bodies = Diary(), []

    async def handler(event: Any, context: Any) -> None:
        await context.step(lambda _: bodies.append(threading.current_thread().name), name="sync")

    run(handler, plugins=[diary])
    assert diary.threads["sync"] == bodies * 2


def test_async_bodies_of_sync_runs_are_watched_on_the_loop(run: Run) -> None:
    diary, bodies = Diary(), []

    async def body() -> None:
        bodies.append(threading.current_thread().name)

    def handler(event: Any, context: Any) -> None:
        context.step(body, name="async")

    run(handler, plugins=[diary])
    assert diary.threads["async"] == bodies * 2 == ["stepwell-loop"] * 2


def test_a_scope_that_parks_inside_is_left_incomplete(run: Run) -> None:
    diary = Diary()

    def handler(event: Any, context: Any) -> None:
        context.run_in_child_context(lambda child: child.wait(0.01, name="nap"), name="scope")

    run(handler, plugins=[diary])
    assert diary.lines == [
        "life", "start scope", "call scope", "start nap", "left scope INCOMPLETE", "life PENDING",
        "life again", "start scope again", "call scope", "start nap again", "end nap SUCCEEDED",
        "left scope SUCCEEDED", "end scope SUCCEEDED", "life SUCCEEDED",
    ]  # fmt: skip


def test_a_value_that_is_made_again_is_no_new_operation() -> None:
    diary = Diary()
    engine = Engine("memory://again", large_child_results="replay")

    def handler(event: Any, context: Any) -> int:
        def large(child: Any) -> str:
            return "x" * int(child.step(lambda _: 300_000, name="size"))

        text = context.run_in_child_context(large, name="large", config=ChildConfig(summary_generator=lambda _: "long"))
        context.wait(0.01, name="nap")
        return len(text)

    assert engine.run(handler, plugins=[diary]) == 300_000
    engine.stop()
    assert diary.lines[diary.lines.index("life again") :] == [
        "life again", "call large", "left large SUCCEEDED", "start nap again", "end nap SUCCEEDED", "life SUCCEEDED",
    ]  # fmt: skip
    called = [i.is_replay_children for i in diary.infos if type(i) is UserFunctionStartInfo and i.name == "large"]
    assert called == [False, True]


# -- ends


def test_a_failed_run_and_what_is_undone(run: Run) -> None:
    diary = Diary()

    def handler(event: Any, context: Any) -> None:
        context.step(lambda _: 1, name="book", undo=lambda step, value: None)
        context.step(raiser(ValueError("no")), name="pay", retry=NEVER)

    with pytest.raises(RunFailed):
        run(handler, plugins=[diary])
    assert diary.lines[-6:] == [
        "end pay FAILED", "start book", "call book", "left book SUCCEEDED", "end book SUCCEEDED", "life FAILED",
    ]  # fmt: skip
    assert diary.infos[-1].error.message == "no"


def test_a_cancelled_run(run: Run) -> None:
    diary = Diary()

    def handler(event: Any, context: Any) -> None:
        context.step(lambda _: run.engine.get_run("off").cancel("enough"), name="one")
        context.wait(1000)

    with pytest.raises(RunCancelled):
        run(handler, id="off", plugins=[diary])
    end = diary.infos[-1]
    assert (end.status, end.error.message) == (InvocationStatus.FAILED, "enough")


def test_a_life_that_is_cut_short_and_the_next(run: Run) -> None:
    diary = Diary()
    pulled: list[int] = []

    def body() -> int:
        if not pulled:
            pulled.append(1)
            raise Plug
        return 7

    def handler(event: Any, context: Any) -> int:
        context.step(lambda _: 1, name="one")
        return int(context.step(body, name="two"))

    with pytest.raises(Plug):
        run(handler, id="cut", plugins=[diary])
    assert run(handler, id="cut") == 7
    assert diary.lines == [
        "life", "start one", "call one", "left one SUCCEEDED", "end one SUCCEEDED",
        "start two", "call two", "left two INCOMPLETE", "life RETRY",
        "life again", "start two again", "call two", "left two SUCCEEDED", "end two SUCCEEDED", "life SUCCEEDED",
    ]  # fmt: skip


def test_a_retried_run_begins_its_failed_operations_anew(run: Run) -> None:
    diary, broken = Diary(), [True]

    def handler(event: Any, context: Any) -> int:
        context.step(lambda _: 1, name="one")
        return int(context.step(lambda: 1 // (not broken[0]), name="two", retry=NEVER))

    function = run.engine.register(durable_execution(name="retried", plugins=[diary])(handler))
    with pytest.raises(RunFailed):
        run(function, id="retried")
    broken[0] = False
    assert run.engine.get_run("retried").retry() == 1
    assert diary.lines[-6:] == [
        "life again", "start two", "call two", "left two SUCCEEDED", "end two SUCCEEDED", "life SUCCEEDED",
    ]  # fmt: skip


# -- giving plugins


def test_every_way_to_give_them(run: Run) -> None:
    order: list[str] = []

    def plugin(name: str) -> Any:
        class Named(DurableInstrumentationPlugin):
            def on_invocation_start(self, info: InvocationInfo) -> None:
                order.append(name)

        return Named

    class Duck:
        def on_invocation_start(self, info: InvocationInfo) -> None:
            order.append("duck")

    class Factory:
        def create_plugin(self, info: InvocationInfo) -> Any:
            order.append(f"made for {info.request_id}")
            return plugin("factory")()

    engine = Engine("memory://ways", plugins=[plugin("engine")()])
    function = durable_execution(name="ways", plugins=[plugin("class"), Factory()])(
        lambda event, context: context.wait(0.01)
    )
    engine.run(function, id="r", plugins=[Duck(), lambda info: plugin("function")()])
    engine.stop()
    once = ["engine", "class", "factory", "duck", "function"]
    assert order == ["made for r-1", *once, "made for r-2", *once]


def test_what_is_no_plugin_is_refused(run: Run) -> None:
    with pytest.raises(UsageError, match="3 is no plugin"):
        durable_execution(plugins=[3])(lambda event, context: None)
    with pytest.raises(UsageError, match="is a list"):
        Engine("memory://", plugins="name")
    with pytest.raises(UsageError, match="no plugin"):
        run(lambda event, context: None, id="none", plugins=[object()])
    assert run.engine.list_runs() == []


class Point:
    def __init__(self, found: Any) -> None:
        self.value = "somewhere:thing"
        self._found = found

    def load(self) -> Any:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


def named(monkeypatch: pytest.MonkeyPatch, value: str, points: dict[tuple[str, str], Any]) -> None:
    def entry_points(*, group: str, name: str) -> list[Point]:
        return [Point(points[group, name])] if (group, name) in points else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    monkeypatch.setenv("DURABLE_EXECUTION_PLUGINS", value)


def test_the_environment_names_plugins(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Diary(), Diary()
    points = {("stepwell.plugins", "one"): one, ("aws_durable_execution.plugins", "two"): lambda info: two}
    named(monkeypatch, "one, two", points)
    run(lambda event, context: context.step(lambda _: 1, name="s"))
    assert one.lines == two.lines != []


@pytest.mark.parametrize(
    "points,text",
    [
        ({}, "no plugin is called 'one'"),
        (
            {("stepwell.plugins", "one"): ImportError("no module")},
            r"'one' \(somewhere:thing\) cannot be loaded: no mod",
        ),
        ({("stepwell.plugins", "one"): 3}, "3 is no plugin"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_starts_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, points: dict[tuple[str, str], Any], text: str
) -> None:
    named(monkeypatch, "one", points)
    with pytest.raises(PluginLoadError, match=text):
        run(lambda event, context: 1, id="never")
    assert run.engine.list_runs() == []
    with pytest.raises(PluginLoadError):
        run.engine.start()


# -- errors


def test_an_error_in_a_hook_is_logged_once_and_changes_nothing(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    class Bad(DurableInstrumentationPlugin):
        def on_operation_end(self, info: OperationInfo) -> None:
            raise ValueError("hook")

        def on_user_function_start(self, info: UserFunctionStartInfo) -> None:
            raise ValueError("body hook")

    class NotEvenMade:
        def create_plugin(self, info: InvocationInfo) -> Any:
            raise ValueError("factory")

    diary = Diary()

    def handler(event: Any, context: Any) -> int:
        return sum(context.step(lambda _, n=n: n, name=f"s{n}") for n in range(5))

    with caplog.at_level(logging.ERROR, "stepwell"):
        assert run(handler, plugins=[Bad(), NotEvenMade(), diary]) == 10
    told = sorted(record.getMessage().rsplit(".", 1)[-1] for record in caplog.records)
    assert told == [
        f"{hook} raised: its errors change nothing"
        for hook in ("create_plugin", "on_operation_end", "on_user_function_start")
    ]
    assert len([line for line in diary.lines if line.startswith("end")]) == 5


def test_secrets_are_masked_in_what_hooks_are_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hunter2hunter2")
    diary = Diary()

    def body() -> None:
        raise ValueError(f"refused {stepwell.Secret.env('TOKEN').reveal()}")

    with pytest.raises(RunFailed):
        run(lambda event, context: context.step(body, name="leak", retry=NEVER), plugins=[diary])
    assert diary.of("left leak FAILED").error.message == "refused ***"
    assert "hunter2" not in repr([getattr(info, "error", None) and info.error.to_dict() for info in diary.infos])


def test_outcomes_are_an_enum() -> None:
    assert [outcome.value for outcome in UserFunctionOutcome] == ["SUCCEEDED", "FAILED", "INCOMPLETE"]


# -- what comes from outside, and what goes on to others


def test_an_answer_that_came_between_lives(run: Run) -> None:
    diary = Diary()
    told: list[int] = []

    class Answers(DurableInstrumentationPlugin):
        def on_invocation_end(self, info: InvocationEndInfo) -> None:
            if info.status is InvocationStatus.PENDING and not told:
                told.append(1)
                run.engine.send_callback_success(callback.pop(), "yes")

    callback: list[str] = []

    def handler(event: Any, context: Any) -> Any:
        asked = context.create_callback("ask")
        context.step(lambda _: callback.append(asked.callback_id), name="send")
        answer = asked.result()
        diary.note(f"user code has {answer}", None)
        return answer

    assert run(handler, plugins=[diary, Answers()]) == "yes"
    assert diary.lines == [
        "life", "start ask", "start send", "call send", "left send SUCCEEDED", "end send SUCCEEDED", "life PENDING",
        "life again", "end ask SUCCEEDED", "user code has yes", "life SUCCEEDED",
    ]  # fmt: skip
    again = [info for info in diary.infos if isinstance(info, InvocationStartInfo)][1]
    assert [(op.name, op.status, op.result) for op in again.updated_operations] == [
        ("ask", OperationStatus.SUCCEEDED, "yes")
    ]
    asked = diary.of("end ask SUCCEEDED")
    assert (asked.operation_type, asked.attempt) == (OperationType.CALLBACK, 0)


def test_signals_and_invoked_runs(run: Run) -> None:
    diary = Diary()
    run.engine.register(durable_execution(name="double")(lambda event, context: event * 2))

    def handler(event: Any, context: Any) -> Any:
        run.engine.get_run("waits").signal("go", 4)
        return context.invoke("double", context.wait_signal("go"), name="call")

    assert run(handler, id="waits", plugins=[diary]) == 8
    told = [line for line in diary.lines if line.startswith(("start", "end"))]
    assert [line for line in told if not line.endswith("again")] == [
        "start go", "end go SUCCEEDED", "start call", "end call SUCCEEDED",
    ]  # fmt: skip
    assert diary.of("end call SUCCEEDED").operation_type is OperationType.CHAINED_INVOKE


@pytest.mark.parametrize("colour", ["sync", "async"])
def test_plugins_tell_those_of_the_runs_that_are_invoked(
    run: Run, colour: str, caplog: pytest.LogCaptureFixture
) -> None:
    child = Diary()

    class Provides(DurableInstrumentationPlugin):
        def provide_propagation_metadata(self, info: OperationInfo) -> dict[str, str]:
            return {"from": str(info.name), "who": "first"}

    class Overrides(DurableInstrumentationPlugin):
        def provide_propagation_metadata(self, info: OperationInfo) -> dict[str, str]:
            return {"who": "second"}

    class Broken(DurableInstrumentationPlugin):
        def provide_propagation_metadata(self, info: OperationInfo) -> dict[str, str]:
            raise ValueError("nothing to tell")

    target = durable_execution(name="told", plugins=[child])(lambda event, context: 1)

    async def async_parent(event: Any, context: Any) -> Any:
        return await context.invoke(target, None, name="call")

    def parent(event: Any, context: Any) -> Any:
        return context.invoke(target, None, name="call")

    plugins = [Provides(), Overrides(), Broken()]
    assert run(async_parent if colour == "async" else parent, plugins=plugins) == 1
    assert child.infos[0].metadata == {"from": "call", "who": "second"}
    assert "provide_propagation_metadata raised" in caplog.text
