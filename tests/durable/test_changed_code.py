"""Code that changes under a run in flight: what is legal, and what blocks the run until a person looks."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import NonDeterminismError, RunBlocked, RunFailed, durable_execution
from stepwell.client import run_object
from stepwell.errors import ReplayError, ReplayWarning
from tests.durable.kit import NEVER, Once, Plug, names, nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.durable.conftest import Run


def changed(run: Run, before: Callable[[Any], Any], after: Callable[[Any], Any], **settings: Any) -> Any:
    """What ``after`` returns in a run that ``before`` began and a crash interrupted."""
    plug = Once(Plug())
    code = [before]

    @durable_execution(name="changed", **settings)
    def handler(event: Any, context: Any) -> Any:
        found = code[0](context)
        plug()
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    code[0] = after
    return run(handler, id="r")


def steps(*made: str) -> Callable[[Any], list[Any]]:
    return lambda context: [context.step(lambda: name, name=name) for name in made]  # noqa: B023


@pytest.mark.parametrize(
    "after, ran",
    [
        (["a", "b"], []),
        (["a", "new", "b"], ["new"]),
        (["b"], []),
        (["b", "a"], []),
        (["a", "renamed"], ["renamed"]),
        ([], []),
    ],
)
def test_adding_removing_and_moving_is_legal(run: Run, after: list[str], ran: list[str]) -> None:
    assert changed(run, steps("a", "b"), steps(*after)) == after
    assert run.keys("r", "StepStarted") == ["a", "b", *ran]


def test_configuring_otherwise_is_legal(run: Run) -> None:
    before = lambda c: c.step(lambda: 1, name="s")  # noqa: E731
    assert changed(run, before, lambda c: c.step(lambda: 2, name="s", at_most_once=True, timeout=5)) == 1


OTHER: list[Any] = [
    (lambda c: c.wait(0, name="load"), "wait"),
    (lambda c: c.run_in_child_context(lambda _: 1, "load"), "child"),
    (lambda c: c.map([1], lambda _, i: i, "load"), "map"),
    (lambda c: c.parallel([nothing], "load"), "parallel"),
]


@pytest.mark.parametrize("other, kind", OTHER, ids=[kind for _, kind in OTHER])
@pytest.mark.parametrize("turned", [False, True])
def test_another_kind_blocks_the_run(run: Run, other: Any, kind: str, turned: bool) -> None:
    one, two = (steps("load"), other) if not turned else (other, steps("load"))
    was, now = ("step", kind) if not turned else (kind, "step")
    with pytest.raises(NonDeterminismError) as blocked:
        changed(run, one, two)
    error: Any = blocked.value
    assert issubclass(type(error), ReplayError)
    assert (error.key, error.expected, error.found) == ("load", was, now)
    assert f"at load was recorded as {was}" in str(error)
    assert f"now asks for {now}" in str(error)
    handle = run.engine.get_run("r")
    assert handle.status == "blocked"
    assert names(run.engine, "r")[-1] == "RunBlocked"
    with pytest.raises(NonDeterminismError):
        handle.result(1)


def test_a_blocked_run_is_not_taken_up_by_run(run: Run) -> None:
    plug = Once(Plug())
    code: list[Any] = [steps("load")]
    entered: list[int] = []

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        entered.append(1)
        found = code[0](context)
        plug()
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    code[0] = OTHER[0][0]
    with pytest.raises(NonDeterminismError):
        run(handler, id="r")
    code[0] = steps("load")
    with pytest.raises((NonDeterminismError, RunBlocked)):
        run(handler, id="r")
    assert entered == [1, 1], "only resume and retry take it up"


def test_with_the_right_code_resume_goes_on(run: Run) -> None:
    plug = Once(Plug())
    code: list[Any] = [steps("load")]

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        found = code[0](context)
        plug()
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    code[0] = OTHER[0][0]
    with pytest.raises(NonDeterminismError):
        run(handler, id="r")
    code[0] = steps("load", "more")
    assert run.engine.get_run("r").resume() == ["load", "more"]
    assert run.keys("r", "StepStarted") == ["load", "more"]


def test_user_code_cannot_swallow_it(run: Run) -> None:
    ran: list[int] = []

    def after(context: Any) -> str:
        for _ in range(2):
            try:
                context.wait(0, name="load")
            except BaseException:
                pass
        try:
            context.step(lambda: ran.append(1), name="later")
        except BaseException:
            pass
        return "swallowed"

    with pytest.raises(NonDeterminismError):
        changed(run, steps("load"), after)
    assert ran == []
    assert run.engine.get_run("r").status == "blocked"


def one(context: Any) -> Any:
    return context.step(lambda: "one")


def two(context: Any) -> Any:
    return context.step(lambda: "t" + "wo".upper())


def test_an_unnamed_step_with_other_code_warns_once(run: Run) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert changed(run, one, two) == "one"
    assert [w.category for w in seen if issubclass(w.category, ReplayWarning)] == [ReplayWarning]


def test_strict_makes_it_an_error(run: Run) -> None:
    with pytest.raises(NonDeterminismError):
        changed(run, one, two, strict=True)
    assert run.engine.get_run("r").status == "blocked"


def test_a_named_step_may_change_its_code(run: Run) -> None:
    before = lambda c: c.step(lambda: "one", name="s")  # noqa: E731
    assert changed(run, before, lambda c: c.step(lambda: "t" + "wo", name="s"), strict=True) == "one"


# -- what nobody asks for any more is kept, and shown as unused


def unused(run: Run, run_id: str = "r") -> list[str]:
    """Keys that the run object calls unused."""

    def inside(nodes: list[dict[str, Any]]) -> list[str]:
        return [
            key for node in nodes for key in [*([node["key"]] if node["unused"] else []), *inside(node["children"])]
        ]

    return inside(run_object(run.engine.store, run.engine.find(run_id))["tree"])


def child(*made: str) -> Callable[[Any], Any]:
    return lambda context: context.run_in_child_context(steps(*made), "c")


def mapped(*items: int) -> Callable[[Any], Any]:
    return lambda context: context.map(items, lambda c, i: c.step(lambda: i, name="s"), "m").get_results()


UNUSED: list[Any] = [
    (steps("a", "b"), steps("a", "b"), []),
    (steps("a", "b"), steps("b", "new"), ["a"]),
    (steps("a"), lambda c: c.wait(0), ["a"]),
    (child("a", "b"), child("a"), []),
    (child("a", "b"), steps("a"), ["c"]),
    (mapped(1, 2), mapped(1, 2), []),
    (mapped(1, 2), steps("a"), ["m"]),
    (lambda c: c.once("k", lambda: 1), lambda c: c.once("k", lambda: 1), []),
    (lambda c: c.once("k", lambda: 1), steps(), ["k"]),
]


@pytest.mark.parametrize("before, after, keys", UNUSED, ids=range(len(UNUSED)))
def test_records_that_nobody_asks_for_again_are_shown_as_unused(run: Run, before: Any, after: Any, keys: Any) -> None:
    changed(run, before, after)
    assert unused(run) == keys


def test_a_scope_that_was_open_knows_what_it_did_not_ask_for(run: Run) -> None:
    """The crash comes inside a child and inside a map, whose code then runs again, and is another."""
    plug, code = Once(Plug()), [("a", "b", 3)]

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        first, second, items = code[0]

        def inside(inner: Any) -> None:
            inner.step(nothing, name=first)
            inner.step(nothing, name=second)
            inner.map(range(items), lambda c, i: (c.step(nothing, name="s"), plug() if i == 2 else None), "m")

        context.run_in_child_context(inside, "c")

    with pytest.raises(Plug):
        run(handler, id="r")
    code[0] = ("a", "other", 1)
    run(handler, id="r")
    found = unused(run)
    assert found[0] == "c/b"
    assert set(found) <= {"c/b", "c/m[1]", "c/m[2]"}
    assert "c/m[2]" in found


def test_a_run_that_nothing_interrupted_has_nothing_unused(run: Run) -> None:
    handler = durable_execution(lambda event, context: steps("a", "b")(context))
    run(handler, id="r")
    assert unused(run) == []


def test_a_retry_that_asks_again_makes_use_of_it(run: Run) -> None:
    plug, code = Once(Plug()), [["a", "b"]]

    @durable_execution(name="again")
    def handler(event: Any, context: Any) -> None:
        steps(*code[0])(context)
        plug()
        context.step(lambda: 1 / 0, name="fails", retry=NEVER)

    with pytest.raises(Plug):
        run(handler, id="r")
    code[0] = ["a"]
    with pytest.raises(RunFailed):
        run(handler, id="r")
    assert unused(run) == ["b"]
    code[0] = ["a", "b"]
    run.engine.get_run("r").retry(skip=["fails"])
    assert unused(run) == []
