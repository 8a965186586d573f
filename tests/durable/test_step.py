"""A step: what may be called as one, how it is named, what its body learns, and when its body runs."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import StepConfig, UsageError, durable_execution, durable_step
from stepwell.durable import NestedStepError, SerDesError, StepContext, ValidationError
from stepwell.durable.exceptions import InvalidStateError
from stepwell.durable.serdes import SerDes, SerDesContext
from tests.durable.kit import FAST, NEVER, Once, Plug, names, nothing, records

if TYPE_CHECKING:
    from tests.durable.conftest import Run


def named() -> int:
    return 1


@durable_step
def bound(context: StepContext, a: int, b: int = 2) -> int:
    return a + b


class Service:
    @durable_step
    def method(self, context: StepContext, a: int) -> int:
        return a


# -- names and keys


def test_labels(run: Run) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(named)
        context.step(named)
        context.step(lambda: 1)
        context.step(bound(1))
        context.step(nothing, name="a/b")
        context.step(nothing, name="")
        context.wait(0)
        context.wait(0, name="named")

    run(handler, id="r")
    ops = [(r["key"], r["name"]) for r in records(run.engine, "r") if r["record"] in ("StepStarted", "WaitStarted")]
    assert ops == [
        ("named", None),
        ("named#2", None),
        ("step", None),
        ("bound", "bound"),
        ("a%2Fb", "a/b"),
        ("nothing", None),
        ("wait", None),
        ("named#3", "named"),
    ]


@pytest.mark.parametrize("bad", ["x" * 257, "a\nb", "\x00", "half \ud800", 3, StepConfig()])
def test_bad_names_write_nothing(run: Run, bad: Any) -> None:
    with pytest.raises(ValidationError):
        run(durable_execution(lambda event, context: context.step(nothing, name=bad)), id="r")
    assert run.keys("r", "StepStarted") == []


def test_the_longest_name(run: Run) -> None:
    run(durable_execution(lambda event, context: context.step(nothing, name="x" * 256)), id="r")
    assert run.keys("r", "StepStarted") == ["x" * 256]


# -- what can be a step


def test_methods_can_be_steps(run: Run) -> None:
    assert run(durable_execution(lambda event, context: context.step(Service().method(3))), id="r") == 3
    assert run.keys("r", "StepStarted") == ["method"]


def test_arguments_are_checked_when_they_are_bound() -> None:
    with pytest.raises(TypeError):
        bound(1, 2, 3)  # type: ignore[call-arg]


def test_forgotten_arguments_are_explained(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(bound))
    with pytest.raises(ValidationError, match=r"bound needs arguments: write context\.step\(bound\(a\)\)"):
        run(handler, id="r")


@pytest.mark.parametrize("wrong", [None, 3, "name"])
def test_what_cannot_be_called(run: Run, wrong: Any) -> None:
    with pytest.raises(ValidationError):
        run(durable_execution(lambda event, context: context.step(wrong)), id="r")
    assert run.keys("r", "StepStarted") == []


def test_async_steps_of_a_sync_run(run: Run) -> None:
    async def body() -> int:
        return 4

    @durable_step
    async def bound_body(context: StepContext, a: int) -> int:
        return a

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return [context.step(body), context.step(bound_body(5)), context.step(lambda: [body()][0], name="l")]

    assert run(handler) == [4, 5, 4]


# -- what the body learns


def test_the_step_context(run: Run) -> None:
    seen: list[StepContext] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(seen.append, name="one")
        context.step(seen.append, name="two", idempotency_key="{run_id}-{name}")

    # `append` takes one argument, as a step function does.
    run(handler, id="r")
    one, two = seen
    assert (one.attempt, one.run_id, one.name, one.key) == (1, "r", "one", "one")
    assert len(one.operation_id) == 64
    assert one.idempotency_key == f"r:{one.operation_id[:32]}"
    assert two.idempotency_key == "r-two"
    with pytest.raises(AttributeError):
        one.attempt = 2  # type: ignore[misc]


def test_idempotency_keys_are_equal_for_all_attempts(run: Run) -> None:
    keys: list[str] = []

    @durable_step
    def body(context: StepContext) -> None:
        keys.append(context.idempotency_key)
        if context.attempt < 3:
            raise ConnectionError

    run(durable_execution(lambda event, context: context.step(body(), retry=FAST)))
    assert len(keys) == 3
    assert len(set(keys)) == 1


# -- what a call does


def test_none_is_a_value(run: Run) -> None:
    calls: list[int] = []
    once = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        found = context.step(lambda: calls.append(1), name="s")
        context.step(once, name="t")
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") is None
    assert calls == [1]


def test_the_caller_gets_what_replay_would_give(run: Run) -> None:
    made: list[Any] = []

    def body() -> Any:
        made.append({"a": [1, (2,)]})
        return made[0]

    @durable_execution
    def handler(event: Any, context: Any) -> bool:
        found = context.step(body)
        return found == made[0] and found is not made[0]

    assert run(handler) is True


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), Plug()], ids=repr)
def test_a_crash_leaves_no_end_record_and_resumes(run: Run, error: BaseException) -> None:
    once = Once(error)
    handler = durable_execution(lambda event, context: context.step(once, name="s"))
    with pytest.raises(type(error)):
        run(handler, id="r")
    assert run.engine.get_run("r").status == "interrupted"
    assert run.keys("r", "StepFailed") == []
    assert run(handler, id="r") == 2
    assert run.keys("r", "StepStarted") == ["s"], "same attempt, no second start"
    assert run.engine.get_run("r").get_step("s").attempt == 1


def test_after_the_handler_returned_no_step_runs_again(run: Run) -> None:
    calls: list[int] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        for n in range(5):
            context.step(lambda: calls.append(1), name=f"s{n}")
        plug()
        return len(calls)

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == 5


def test_plain_steps_cost_two_commits_more_than_they_are(run: Run) -> None:
    """durable.md §19.14: a commit is a row of the journal. Replay of them runs no body."""
    ran: list[int] = []
    plug = [Plug()]

    @durable_execution
    def handler(event: Any, context: Any) -> int:
        for i in range(1000):
            context.step(lambda i=i: ran.append(i), name="s")
        if plug:
            raise plug.pop()
        return len(ran)

    with pytest.raises(Plug):
        run(handler, id="r")
    assert len({r["seq"] for r in run.engine.get_run("r").history()}) <= 1002
    assert run(handler, id="r") == 1000


# -- values


def test_unrecordable_values_name_the_place(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(lambda: {"rows": [1, {"c": object()}]}, name="s"))
    with pytest.raises(SerDesError, match=r"rows\[1\]\.c"):
        run(handler, id="r")
    assert names(run.engine, "r")[1:] == ["StepStarted s", "StepFailed s", "RunFailed"]


class Upper(SerDes[str]):
    def serialize(self, value: str, serdes_context: SerDesContext) -> str:
        assert serdes_context.operation_id
        return value.upper()

    def deserialize(self, data: str, serdes_context: SerDesContext) -> str:
        return data + "!"


class Broken(Upper):
    def deserialize(self, data: str, serdes_context: SerDesContext) -> str:
        raise KeyError("broken")


@pytest.mark.parametrize(
    "given", [{"serdes": Upper()}, {"config": StepConfig(None, serdes=Upper())}], ids=["kw", "config"]
)
def test_serdes_of_a_step(run: Run, given: dict[str, Any]) -> None:
    assert run(durable_execution(lambda event, context: context.step(lambda: "a", name="s", **given))) == "A!"


def test_an_error_in_user_serdes_is_a_serdes_error(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(lambda: "a", name="s", serdes=Broken(), retry=FAST))
    with pytest.raises(SerDesError):
        run(handler, id="r")
    assert run.keys("r", "StepRetryPlanned") == []


# -- nesting


@pytest.mark.parametrize(
    "inner",
    [
        lambda context: context.step(nothing, name="inner"),
        lambda context: context.wait(1, name="inner"),
        lambda context: context.run_in_child_context(lambda _: 1, "inner"),
        lambda context: context.map([1], lambda c, i: i, "inner"),
        lambda context: context.now(),
    ],
    ids=["step", "wait", "child", "map", "now"],
)
def test_an_operation_inside_a_step_fails_the_step(run: Run, inner: Any) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: inner(context), name="outer", retry=FAST)

    with pytest.raises(NestedStepError, match=r"step 'outer' called context\.\w+.*inside its body"):
        run(handler, id="r")
    assert names(run.engine, "r")[1:] == ["StepStarted outer", "StepFailed outer", "RunFailed"]


def test_a_run_inside_a_step_is_a_run_of_its_own(run: Run) -> None:
    inner = durable_execution(name="inner-run")(lambda event: event + 1)

    @durable_step
    def body(context: StepContext) -> Any:
        return run.engine.run(inner, 1, id=f"child-{context.run_id}")

    assert run(durable_execution(lambda event, context: context.step(body())), id="r") == 2
    assert [child.id for child in run.engine.get_run("r").children()] == ["child-r"]


# -- settings


def test_a_timeout_is_retried_as_any_error(run: Run) -> None:
    gate = threading.Event()

    @durable_step
    def body(context: StepContext) -> int:
        if context.attempt == 1:
            gate.wait(10)
        return context.attempt

    try:
        assert run(durable_execution(lambda event, context: context.step(body(), timeout=0.02, retry=FAST))) == 2
    finally:
        gate.set()


def test_a_heartbeat_that_stays_away(run: Run) -> None:
    gate = threading.Event()
    seen: list[Any] = []

    @durable_step
    def body(context: StepContext) -> int:
        seen.append(context.last_heartbeat)
        if context.attempt == 1:
            context.heartbeat({"row": 7})
            gate.wait(10)
        return context.attempt

    handler = durable_execution(lambda event, context: context.step(body(), heartbeat_timeout=0.02, retry=FAST))
    try:
        assert run(handler) == 2
    finally:
        gate.set()
    assert seen == [None, {"row": 7}]


@pytest.mark.parametrize("bad", ["", "x" * 33, "a b", "ä"])
def test_sub_types(run: Run, bad: str) -> None:
    with pytest.raises(ValidationError):
        StepConfig(sub_type=bad)


def test_a_sub_type_is_shown(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(nothing, "s", StepConfig(sub_type="Custom-1")))
    run(handler, id="r")
    assert run.engine.get_run("r").get_step("s").sub_type == "Custom-1"


def test_keywords_override_the_config(run: Run) -> None:
    once = Once(ConnectionError())
    handler = durable_execution(lambda event, context: context.step(once, "s", StepConfig(NEVER), retry=FAST))
    assert run(handler) == 2


def test_a_transactional_step_needs_a_database(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(lambda _: 1, name="s", transactional=True))
    with pytest.raises(UsageError):
        run(handler)


# -- once, recorded world


def test_once_runs_once_whoever_calls(run: Run) -> None:
    calls: list[int] = []

    def make() -> int:
        calls.append(1)
        return len(calls)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        first = context.once("client", make)
        return [first, context.once("client", make), context.step(lambda: context.once("client", make), name="s")]

    assert run(handler, id="r") == [1, 1, 1]
    assert calls == [1]


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.once("", nothing),
        lambda c: c.once(3, nothing),
        lambda c: c.once("half \ud800", nothing),
        lambda c: c.once("key", 3),
        lambda c: c.randint(2, 1),
        lambda c: c.randint(1.5, 3),
    ],
)
def test_bad_once_and_randint_write_nothing(run: Run, call: Any) -> None:
    with pytest.raises(ValidationError):
        run(durable_execution(lambda event, context: call(context)), id="r")
    assert names(run.engine, "r") == ["RunStarted", "RunFailed"]


def test_the_recorded_world_is_the_same_in_every_life(run: Run) -> None:
    seen: list[list[Any]] = []
    plug = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        seen.append([context.now(), context.random(), context.randint(1, 10**9), context.uuid()])
        context.step(plug, name="s")

    with pytest.raises(Plug):
        run(handler, id="r")
    run(handler, id="r")
    assert seen[0] == seen[1]
    assert seen[0][0].utcoffset().total_seconds() == 0
    assert 0 <= seen[0][1] < 1


# -- whose context


def test_a_context_after_its_scope(run: Run) -> None:
    kept: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.run_in_child_context(kept.append, "c")
        kept[0].step(nothing)

    with pytest.raises(InvalidStateError):
        run(handler, id="r")


def test_contexts_cannot_be_pickled(run: Run) -> None:
    import pickle

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        with pytest.raises(TypeError):
            pickle.dumps(context)

    run(handler)


def test_attributes_of_a_context(run: Run) -> None:
    @durable_execution(name="mod:attrs")
    def handler(event: Any, context: Any) -> Any:
        lambda_context = context.lambda_context
        return [
            context.run_id, context.key, context.attempt_of_run, context.is_virtual, context.cancelled,
            context.is_replaying(), context.execution_context.durable_execution_arn, lambda_context.function_name,
        ]  # fmt: skip

    arn = "arn:stepwell:lambda:local:000000000000:function:mod.attrs:$LATEST/durable-execution/r/r"
    assert run(handler, id="r") == ["r", "", 1, False, False, False, arn, "mod:attrs"]
