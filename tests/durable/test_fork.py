"""A fork begins with what its source has finished, and owns nothing else of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, RunCancelled, RunFailed, durable_execution, with_retry
from stepwell.core import decode_records
from stepwell.durable.config import ChildConfig, CompletionConfig, MapConfig, NestingType
from stepwell.errors import BadArguments, DuplicateRun, NonDeterminismError, PayloadError, UsageError
from stepwell.testing._invariants import check_run
from tests.durable.kit import FAST, NEVER, raiser, records

if TYPE_CHECKING:
    from tests.durable.conftest import Run

LARGE = "x" * 300_000


class Bodies:
    """Counts what runs."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()

    def body(self, name: str, value: Any = None, error: Exception | None = None) -> Any:
        def run(step: Any) -> Any:
            self.ran[name] += 1
            if error is not None and step.attempt < 2:
                raise error
            return name if value is None else value

        return run

    def taken(self) -> dict[str, int]:
        found = dict(self.ran)
        self.ran.clear()
        return found


def rows(engine: Engine, run_id: str) -> Any:
    row = engine.find(run_id)
    return [(entry.seq, entry.epoch, decode_records(entry.data)) for entry in engine.store.record_load(row.rid)]


def sound(engine: Engine, run_id: str) -> list[str]:
    row = engine.find(run_id)
    hot, ended = engine.store.hot_get(run_id), row.ended_at is not None
    status: Any = row.status if ended else None
    return [str(v) for v in check_run(rows(engine, run_id), open=not ended, hot=hot, status=status)]


@pytest.fixture
def bodies() -> Bodies:
    return Bodies()


def everything(bodies: Bodies) -> Any:
    """A handler with an operation of each kind that needs nothing from outside."""

    @durable_execution(name="everything")
    def handler(event: Any, context: Any) -> Any:
        begun = context.now()
        one = context.step(bodies.body("one"), name="one", undo=lambda step, value: None)
        context.step(bodies.body("flaky", error=ConnectionError("away")), name="flaky", retry=FAST)
        context.wait(0.001, name="nap")

        def inside(child: Any) -> Any:
            child.step(bodies.body("first"), name="first")
            return child.run_in_child_context(lambda deep: deep.step(bodies.body("deep"), name="deep"), name="below")

        scope = context.run_in_child_context(inside, name="scope")
        caught = "nothing"
        try:
            context.step(raiser(ValueError("caught")), name="fails", retry=NEVER)
        except ValueError as error:
            caught = str(error)
        each = context.map(
            [1, 2, 3],
            lambda item, value: item.step(bodies.body(f"item {value}"), name="work"),
            name="each",
            config=MapConfig(max_concurrency=1),
        )
        some = context.map(
            [1, 2, 3],
            lambda item, value: item.step(bodies.body(f"some {value}"), name="work"),
            name="some",
            config=MapConfig(max_concurrency=1, completion_config=CompletionConfig(min_successful=1)),
        )
        flat = context.map(
            [1],
            lambda item, value: item.step(bodies.body("flat"), name="work"),
            name="flat",
            config=MapConfig(nesting_type=NestingType.FLAT),
        )
        again = with_retry(context, lambda inner, attempt: inner.step(bodies.body("block"), name="block"), name="again")
        context.publish("where", "nearly there")
        large = context.step(bodies.body("large", LARGE), name="large")
        context.on_failure(lambda step: None, name="undo all")
        last = context.once("last", lambda: "last")
        return [
            begun.isoformat(), one, scope, caught, each.get_results(), some.success_count, flat.get_results(),
            again, len(large), last,
        ]  # fmt: skip

    return handler


def test_a_fork_of_a_finished_run_runs_nothing_again(run: Run, bodies: Bodies) -> None:
    handler = everything(bodies)
    value = run(handler, {"day": 1}, id="source")
    before = records(run.engine, "source", lives=True)
    bodies.taken()
    fork = run.engine.get_run("source").fork(id="copy")
    assert fork.status == "pending"
    assert sound(run.engine, "copy") == []
    assert fork.resume() == value
    assert bodies.taken() == {}
    assert sound(run.engine, "copy") == []
    assert fork.published("where") == "nearly there"
    row = run.engine.find("copy")
    assert (row.tags, row.parent, row.input_hash) == (("fork-of:source",), None, run.engine.find("source").input_hash)
    assert records(run.engine, "source", lives=True) == before
    assert run.engine.find("source").status == "succeeded"


def test_at_each_operation_what_was_begun_before_is_taken_over(run: Run, bodies: Bodies) -> None:
    handler = everything(bodies)
    value = run(handler, {"day": 1}, id="source")
    full = bodies.taken()
    ops = list(run.engine.get_run("source")._run.ops)
    assert len(ops) > 25
    ran_before: set[str] = set()
    for number, key in enumerate(ops):
        fork = run.engine.get_run("source").fork(at=key, id=f"fork-{number}")
        assert sound(run.engine, fork.id) == []
        kept = {op.key for op in fork._run.ops.values() if op.ended}
        assert kept <= set(ops[:number])
        result = fork.resume()
        assert sound(run.engine, fork.id) == []
        # The first value is a time: a fork that does not take it over has its own.
        assert result[1:] == value[1:]
        assert (result[0] == value[0]) == (number > 0)
        ran = bodies.taken()
        assert all(ran[name] <= full[name] for name in ran), key
        ran_before = ran_before or set(ran)
        assert set(ran) <= ran_before
        ran_before = set(ran)
    assert ran_before == set()  # the last one is only `once`, whose body is not counted


def test_a_value_that_is_made_again_is_made_from_what_was_taken_over(bodies: Bodies) -> None:
    engine = Engine("memory://remade", large_child_results="replay")

    @durable_execution(name="remade")
    def handler(event: Any, context: Any) -> int:
        def large(child: Any) -> str:
            child.step(bodies.body("in"), name="in")
            return LARGE

        text = context.run_in_child_context(large, name="large", config=ChildConfig(summary_generator=lambda _: "long"))
        context.step(bodies.body("after"), name="after")
        return len(text)

    engine.run(handler, id="source")
    bodies.taken()
    assert engine.get_run("source").fork(at="after").resume() == len(LARGE)
    assert bodies.taken() == {"after": 1}
    assert engine.get_run("source").fork(at="in").resume() == len(LARGE)
    assert bodies.taken() == {"in": 1, "after": 1}
    engine.stop()


@durable_execution(name="old-name")
def old(event: Any, context: Any) -> Any:
    first = context.step(lambda _: f"first of {event['who']}", name="first")
    return [first, context.step(lambda _: "old", name="second")]


@durable_execution(name="new-name", tags=["new"], queue="fast", timeout=60)
def new(event: Any, context: Any) -> Any:
    first = context.step(lambda _: "run again", name="first")
    context.step(lambda _: "added", name="added")
    return [first, context.step(lambda _: "new", name="second")]


@pytest.mark.parametrize("to", [new, "new-name"])
def test_a_run_moves_to_a_function_with_another_name(run: Run, to: Any) -> None:
    assert run(old, {"who": "Ada"}, id="source", tags=["order"]) == ["first of Ada", "old"]
    fork = run.engine.get_run("source").fork(to, at="second", id="moved")
    row = run.engine.find("moved")
    assert (row.function, row.queue) == ("new-name", "fast")
    assert row.tags == ("order", "new", "fork-of:source")
    assert row.deadline is not None
    assert fork.resume() == ["first of Ada", "new"]


def test_a_fork_to_code_that_does_not_fit_is_blocked_like_any_run(run: Run) -> None:
    run(old, {"who": "Ada"}, id="source")
    misfit = durable_execution(name="misfit")(lambda event, context: context.wait(0, name="first"))
    fork = run.engine.get_run("source").fork(misfit)
    with pytest.raises(NonDeterminismError):
        fork.resume()
    assert fork.status == "blocked"
    assert run.engine.get_run("source").status == "succeeded"


def test_failed_operations_get_new_attempts_as_in_a_retry(run: Run, bodies: Bodies) -> None:
    broken = [True]

    @durable_execution(name="breaks")
    def handler(event: Any, context: Any) -> Any:
        def inside(child: Any) -> Any:
            child.step(bodies.body("good"), name="good")
            return child.step(lambda: 1 // (not broken[0]), name="bad", retry=NEVER)

        context.step(bodies.body("before"), name="before")
        return context.run_in_child_context(inside, name="scope")

    with pytest.raises(RunFailed):
        run(handler, id="source")
    bodies.taken()
    fork = run.engine.get_run("source").fork(id="fork")
    assert [op.name for op in fork.operations] == ["before", "scope"]
    broken[0] = False
    assert fork.resume() == 1
    assert bodies.taken() == {}
    assert sound(run.engine, "fork") == []
    assert run.engine.get_run("source").status == "failed"
    # And of a fork, and of a run that was retried, whose journal tells of more than one beginning.
    assert run.engine.get_run("source").retry() == 1
    for source in ("fork", "source"):
        again = run.engine.get_run(source).fork()
        assert sound(run.engine, again.id) == []
        assert again.resume() == 1
        assert sound(run.engine, again.id) == []
    assert bodies.taken() == {}


def test_what_a_person_settled_is_taken_over(run: Run, bodies: Bodies) -> None:
    @durable_execution(name="settled")
    def handler(event: Any, context: Any) -> Any:
        skipped = context.step(raiser(ValueError("no")), name="skipped", retry=NEVER)
        return [skipped, context.step(raiser(ValueError("no")), name="set", retry=NEVER)]

    with pytest.raises(RunFailed):
        run(handler, id="source")
    with pytest.raises(RunFailed):
        run.engine.get_run("source").retry(skip=["skipped"])
    assert run.engine.get_run("source").retry(set={"set": 7}) == [None, 7]
    fork = run.engine.get_run("source").fork(id="fork")
    assert fork.resume() == [None, 7]
    assert sound(run.engine, "fork") == []


def test_what_is_open_stays_with_the_source(run: Run, bodies: Bodies) -> None:
    engine = run.engine
    engine.register(durable_execution(name="child")(lambda event, context: event))

    @durable_execution(name="waits", hold=0)
    def handler(event: Any, context: Any) -> Any:
        asked = context.create_callback("ask")
        got = context.wait_signal("go")
        called = context.invoke("child", "for me", name="call")
        other = context.create_callback("other")
        bodies.ran[other.callback_id] += 1
        bodies.ran[asked.callback_id] += 1
        return [got, called, asked.result()]

    def asked(run_id: str) -> dict[str, str]:
        handle = engine.get_run(run_id)
        while len(handle.callbacks()) < 2:
            engine.store.wait(0.05)
        return {str(entry["name"]): str(entry["id"]) for entry in handle.callbacks()}

    with engine:
        source = engine.start_run(handler, id="source")
        source.signal("go", 1)
        source.signal("go", 2)
        theirs = asked("source")
        fork = source.fork(id="fork")
        mine = asked("fork")
        assert set(mine.values()).isdisjoint(theirs.values())
        engine.send_callback_success(mine["ask"], "fork's")
        assert fork.result(60) == [1, "for me", "fork's"]
        engine.send_callback_success(theirs["ask"], "source's")
        assert source.result(60) == [1, "for me", "source's"]
        assert len(engine.list_runs(name="child")) == 1  # it was invoked once
        whole = source.fork(id="whole")
        assert whole.result(60) == [1, "for me", "source's"]
        for run_id in ("source", "fork", "whole"):
            assert sound(engine, run_id) == []
        assert [op.name for op in whole._run.ops.values() if not op.ended] == ["other"]


def test_signals_keep_their_turn_whatever_is_left_out(run: Run) -> None:
    @durable_execution(name="turns")
    def handler(event: Any, context: Any) -> Any:
        run.engine.get_run(context.run_id).signal("go", "early") if event.get("send") else None
        first = context.wait_signal("go", timeout=0) if event.get("send") else "none"
        return [first, context.wait_signal("go"), context.wait_signal("go"), context.wait_signal("end")]

    source = run.engine.start_run(handler, {}, id="source")
    for value in ("a", "b", "c"):
        source.signal("go", value)
    source.signal("end", True)
    assert source.result(60) == ["none", "a", "b", True]
    fork = run.engine.get_run("source").fork(at="go#2", id="fork")
    fork.signal("go", "mine")
    fork.signal("end", False)
    assert fork.resume() == ["none", "a", "mine", False]
    assert sound(run.engine, "fork") == []


def test_a_fork_undoes_only_what_it_has_done_itself(run: Run) -> None:
    undone: list[str] = []

    @durable_execution(name="undoes")
    def handler(event: Any, context: Any) -> None:
        context.step(lambda _: "source's", name="one", undo=lambda step, value: undone.append("one"))
        context.on_failure(lambda step: undone.append("registered"), name="all")
        context.step(lambda _: "fork's", name="two", undo=lambda step, value: undone.append("two"))
        if context.run_id != "source":
            raise ValueError("fails")

    run(handler, id="source")
    fork = run.engine.get_run("source").fork(at="two", id="fork")
    with pytest.raises(RunFailed):
        fork.resume()
    assert undone == ["two"]
    assert sound(run.engine, "fork") == []
    with pytest.raises(UsageError, match="were undone; start a new run"):
        run.engine.get_run("fork").fork()


def test_a_rollback_that_the_code_asked_for_is_not_done_again(run: Run) -> None:
    undone: list[str] = []

    @durable_execution(name="rolls")
    def handler(event: Any, context: Any) -> int:
        context.step(lambda _: 1, name="one", undo=lambda step, value: undone.append("one"))
        context.rollback()
        return 5

    assert run(handler, id="source") == 5
    assert run.engine.get_run("source").fork(id="fork").resume() == 5
    assert undone == ["one"]
    assert sound(run.engine, "fork") == []


def test_large_values_are_shared_and_kept_alive(tmp_path: Any, bodies: Bodies) -> None:
    engine = Engine(f"sqlite:///{tmp_path}/store.db")

    @durable_execution(name="large")
    def handler(event: Any, context: Any) -> list[int]:
        return [len(event), len(context.step(bodies.body("large", LARGE), name="large"))]

    engine.run(handler, LARGE + "input", id="source")
    fork = engine.get_run("source").fork(id="fork")
    with engine.host.writer.exclusive():
        from stepwell.journal import RunFilter

        list(engine.store.gc(RunFilter(ended_before=engine.store.now() + 1), dry_run=False))
    assert engine.store.run_get("source") is None
    assert list(engine.store.check()) == []
    assert fork.resume() == [len(LARGE) + 5, len(LARGE)]
    assert bodies.taken() == {"large": 1}
    engine.stop()


def test_a_large_value_that_is_gone_is_said(run: Run, bodies: Bodies, monkeypatch: pytest.MonkeyPatch) -> None:
    handler = durable_execution(name="lost")(
        lambda event, context: len(context.step(bodies.body("large", LARGE), name="large"))
    )
    run(handler, id="source")
    run.engine.store._data.blobs.clear()  # type: ignore[attr-defined]
    with pytest.raises(PayloadError, match="not in the store any more"):
        run.engine.get_run("source").fork(id="fork")
    assert run.engine.store.run_get("fork") is None


def test_what_cannot_be_forked(run: Run) -> None:
    run(old, {"who": "Ada"}, id="source")
    handle = run.engine.get_run("source")
    with pytest.raises(DuplicateRun, match="another id"):
        handle.fork(id="source")
    with pytest.raises(BadArguments, match="run id"):
        handle.fork(id="a b")
    with pytest.raises(UsageError, match="no operation 'third'; it has first, second"):
        handle.fork(at="third")
    with pytest.raises(UsageError, match="no durable function is called 'unknown'"):
        handle.fork("unknown")
    assert [h.id for h in run.engine.list_runs()] == ["source"]


def test_a_cancelled_run_may_be_forked(run: Run) -> None:
    @durable_execution(name="cancelled")
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda _: 1, name="one")
        if context.run_id == "source":
            run.engine.get_run("source").cancel("enough")
        return context.step(lambda _: "done", name="two")

    with pytest.raises(RunCancelled):
        run(handler, id="source")
    assert run.engine.get_run("source").fork().resume() == "done"


def test_a_blocked_run_is_forked_to_code_that_fits(run: Run) -> None:
    lives: list[int] = []

    @durable_execution(name="changed", hold=0)
    def changed(event: Any, context: Any) -> Any:
        lives.append(1)
        context.step(lambda _: 1, name="one") if len(lives) == 1 else context.wait(0, name="one")
        context.wait(0.01)

    with pytest.raises(NonDeterminismError):
        run(changed, id="source")
    right = durable_execution(name="right")(lambda event, context: context.step(lambda _: 2, name="one"))
    assert run.engine.get_run("source").fork(right).resume() == 1
    assert run.engine.get_run("source").status == "blocked"


def test_forks_of_one_id_at_once(run: Run) -> None:
    """One transaction decides; the other is told, and has written nothing."""
    from stepwell.client._fork import plan, put

    run(old, {"who": "Ada"}, id="source")
    engine, handle = run.engine, run.engine.get_run("source")
    row, state = engine.find("source"), handle._run
    first, second = (plan(engine, row, state, to=None, at=at, run_id="twin") for at in (None, "second"))
    put(engine, first)
    with pytest.raises(DuplicateRun, match="just been put on record"):
        put(engine, second)
    assert engine.get_run("twin").resume() == ["first of Ada", "old"]


def test_a_worker_takes_up_a_fork(run: Run) -> None:
    run(old, {"who": "Ada"}, id="source")
    with run.engine:
        assert run.engine.get_run("source").fork().result(60) == ["first of Ada", "old"]
