"""What viewers fold a journal to: the same tree as the whole state gives, in little memory."""

from __future__ import annotations

import contextlib
import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, Retry, durable_execution
from stepwell.client import run_json, run_object
from stepwell.client._slim import Tree, fold_slim, slim_state
from stepwell.client._views import node
from stepwell.core import RunState, decode_records, fold, progress

if TYPE_CHECKING:
    from collections.abc import Iterator

WORST_BYTES = 350
"""An operation with a name of its own, two times and its place in the run: 250 bytes on CPython 3.11."""


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = Engine(f"memory://{request.node.name}")
    yield made
    made.stop()


@durable_execution(name="shop")
def shop(event: Any, context: Any) -> str:
    context.step(lambda _: "a" * 100, name="load")
    context.step(lambda _: 1, name="load")
    context.step(lambda _: 1, name="50 %/day")
    context.step(_unnamed)

    def inner(child: Any) -> int:
        child.step(lambda _: 2, name="deep")
        child.run_in_child_context(lambda grandchild: grandchild.step(lambda _: 3, name="deeper"), name="scope")
        return 4

    context.run_in_child_context(inner, name="scope")
    context.map([1, 2], lambda item_context, item, *_: item_context.step(lambda _: item, name="one"), name="each")
    context.step(lambda _: event["ok"] or 1 / 0, name="boom", retry=Retry(2, delay=0.001))
    return "done"


def _unnamed(_context: Any) -> int:
    return 1


def begin(engine: Engine, *, again: bool) -> str:
    with contextlib.suppress(ZeroDivisionError):
        engine.run(shop, {"ok": not again}, id="r")
    if again:
        with contextlib.suppress(ZeroDivisionError):
            engine.get_run("r").retry(force=["deep"])
    return "r"


def seen(run: RunState) -> list[dict[str, Any]]:
    tree = Tree(run)
    return [node(op, tree) for op in tree.top()]


@pytest.mark.parametrize("again", [False, True], ids=["went well", "failed, forced and retried"])
def test_the_tree_is_that_of_the_whole_state_after_each_record(engine: Engine, again: bool) -> None:
    row = engine.find(begin(engine, again=again))
    whole, slim = RunState("r"), RunState("r")
    for entry in engine.store.record_load(row.rid):
        for record in decode_records(entry.data):
            fold(whole, record)
            fold_slim(slim, record)
            assert seen(slim) == seen(whole)
            assert progress(slim) == progress(whole)
    assert whole.reopened == again
    assert [op.name for op in slim.ops.values()] == [op.name for op in whole.ops.values()]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("lines", [False, True])
def test_pieces_of_json_are_the_object(engine: Engine, again: bool, lines: bool) -> None:
    row = engine.find(begin(engine, again=again))
    text = "".join(run_json(engine.store, row, lines=lines))
    assert json.loads(text) == run_object(engine.store, row)
    assert text.count("\n") == (len(run_object(engine.store, row)["tree"]) + 2 if lines else 0)


@pytest.mark.parametrize("lines", [False, True])
def test_a_run_without_operations(engine: Engine, lines: bool) -> None:
    engine.run(durable_execution(lambda _event, _context: 1), id="r")
    row = engine.find("r")
    assert json.loads("".join(run_json(engine.store, row, lines=lines))) == run_object(engine.store, row)


def test_no_piece_of_json_is_longer_than_a_node(engine: Engine) -> None:
    @durable_execution
    def handler(_event: Any, context: Any) -> None:
        def inner(child: Any) -> None:
            for index in range(50):
                child.step(lambda _: 1, name=f"step-{index}")

        context.run_in_child_context(inner, name="scope")

    engine.run(handler, id="r")
    pieces = list(run_json(engine.store, engine.find("r")))
    assert max(map(len, pieces[1:])) < 400


def test_an_operation_takes_little_memory(engine: Engine) -> None:
    count = 2000

    @durable_execution
    def handler(_event: Any, context: Any) -> None:
        for index in range(count):
            context.step(lambda _: "x" * 1000, name=f"step-{index}")

    engine.run(handler, id="r")
    row = engine.find("r")
    slim_state(engine.store, row)  # what is made once
    tracemalloc.start()
    try:
        run = slim_state(engine.store, row)
        assert len(run.ops) == count
        assert tracemalloc.get_traced_memory()[0] / count < WORST_BYTES
    finally:
        tracemalloc.stop()
