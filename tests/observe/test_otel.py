"""The exported spans are the run's tree, in one trace, whatever lives and processes the run took."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from stepwell import Engine, Retry, RunFailed, durable_execution
from stepwell.client import run_object
from stepwell.durable.config import MapConfig
from stepwell.observe import OpenTelemetry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SOON = Retry(3, delay=0.02, jitter="none")
OPERATIONS = {"step", "wait", "child", "map", "map_item", "wait_for_condition", "rollback"}
Tree = list[Any]
"""[name, status, [attempts], [children]] sorted by name."""


class Exported:
    """What an exporter got: spans as plain data, so that those of other processes are of the same kind."""

    def __init__(self, spans: Sequence[dict[str, Any]]) -> None:
        self.spans = {span["id"]: span for span in spans}
        assert len(self.spans) == len(spans)

    def roots(self) -> list[str]:
        return [number for number, span in self.spans.items() if span["parent"] is None]

    def traces(self) -> set[str]:
        return {span["trace"] for span in self.spans.values()}

    def tree(self, parent: str | None = None) -> Tree:
        found = []
        for number, span in self.spans.items():
            if span["parent"] == parent and "stepwell.attempt" not in span["attributes"]:
                found.append(
                    [
                        span["name"],
                        span["attributes"]["stepwell.status"].lower(),
                        self._attempts(number),
                        self.tree(number),
                    ]
                )
        return sorted(found)

    def _attempts(self, parent: str) -> list[Any]:
        attempts = [s for s in self.spans.values() if s["parent"] == parent and "stepwell.attempt" in s["attributes"]]
        return sorted([s["attributes"]["stepwell.attempt"], s["ok"]] for s in attempts)

    def inside(self) -> bool:
        """Each span lies within its parent's."""
        pairs = [(span, self.spans[span["parent"]]) for span in self.spans.values() if span["parent"] is not None]
        return all(above["start"] <= span["start"] <= span["end"] <= above["end"] for span, above in pairs)


def plain(span: ReadableSpan) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(span.to_json())
    return flat(document) | {"start": span.start_time, "end": span.end_time}


def flat(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": document["context"]["span_id"], "trace": document["context"]["trace_id"], "parent": document["parent_id"],
        "name": document["name"], "attributes": document["attributes"], "start": document["start_time"],
        "end": document["end_time"], "ok": document["status"]["status_code"] != "ERROR",
    }  # fmt: skip


def run_tree(engine: Engine, run_id: str) -> Tree:
    """The same of what is on record."""
    row = engine.find(run_id)
    found = run_object(engine.store, row)
    return [[row.function, found["status"], [], sorted(map(node, found["tree"]))]]


def node(op: dict[str, Any]) -> Any:
    failed = op["status"] == "failed"
    # Waits and scopes have no attempts; of those of a step all but the last failed.
    is_step = op["kind"] in ("step", "wait_for_condition", "rollback")
    attempts = [[n, n == op["attempts"] and not failed] for n in range(1, op["attempts"] + 1)] if is_step else []
    children = [child for child in op["children"] if child["kind"] in OPERATIONS]
    return [op["name"] or op["key"].rsplit("/", 1)[-1], op["status"], attempts, sorted(map(node, children))]


class Traced:
    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.plugin = OpenTelemetry(self.provider)

    @property
    def exported(self) -> Exported:
        return Exported([plain(span) for span in self.exporter.get_finished_spans()])


@pytest.fixture
def traced() -> Iterator[Traced]:
    made = Traced()
    yield made
    made.provider.shutdown()


@pytest.fixture
def engine(request: pytest.FixtureRequest, traced: Traced) -> Iterator[Engine]:
    engine = Engine(f"memory://{request.node.name}", plugins=[traced.plugin])
    yield engine
    engine.stop()


def flaky(step: Any) -> int:
    if step.attempt < 3:
        raise ConnectionError("away")
    return 3


@durable_execution(name="traced", hold=0)
def handler(event: Any, context: Any) -> int:
    context.step(lambda _: 1, name="one")
    context.wait(0.02, name="nap")
    context.now()

    def inside(child: Any) -> int:
        child.wait(0.02)
        return int(child.step(flaky, name="flaky", retry=SOON))

    context.run_in_child_context(inside, name="scope")
    each = context.map(
        [1, 2], lambda item, value: item.step(lambda _: value, name="square"), name="each", config=MapConfig()
    )
    return int(each.success_count)


@durable_execution(name="traced-async", hold=0)
async def async_handler(event: Any, context: Any) -> int:
    await context.step(lambda _: 1, name="one")
    await context.wait(0.02, name="nap")
    await context.now()

    async def inside(child: Any) -> int:
        await child.wait(0.02)
        return int(await child.step(flaky, name="flaky", retry=SOON))

    await context.run_in_child_context(inside, name="scope")

    async def item(child: Any, value: int) -> Any:
        return await child.step(lambda _: value, name="square")

    each = await context.map([1, 2], item, name="each", config=MapConfig())
    return int(each.success_count)


@pytest.mark.parametrize("function", [handler, async_handler], ids=["sync", "async"])
def test_the_spans_are_the_tree_of_the_run(engine: Engine, traced: Traced, function: Any) -> None:
    assert engine.run(function, id="tree") == 2
    tree = run_tree(engine, "tree")
    tree[0][3] = [op for op in tree[0][3] if op[0] != "now"]
    assert traced.exported.tree() == tree
    assert len(traced.exported.traces()) == 1
    assert traced.exported.inside()
    assert sum(r["record"] == "LifeStarted" for r in engine.get_run("tree").history()) > 1  # it did park


def test_a_run_that_fails_is_retried_in_the_same_trace(engine: Engine, traced: Traced) -> None:
    broken = [True]

    @durable_execution(name="mended")
    def mended(event: Any, context: Any) -> Any:
        def inside(child: Any) -> Any:
            child.step(lambda _: 1, name="good")
            return child.step(lambda: 1 // (not broken[0]), name="bad", retry=Retry(1))

        return context.run_in_child_context(inside, name="scope")

    with pytest.raises(RunFailed):
        engine.run(mended, id="mended")
    broken[0] = False
    assert engine.get_run("mended").retry() == 1
    exported = traced.exported
    assert len(exported.traces()) == 1
    assert exported.tree() == [
        ["mended", "failed", [], [["scope", "failed", [], [["bad", "failed", [[1, False]], []], ["good", "succeeded", [[1, True]], []]]]]],
        ["mended", "succeeded", [], [["scope", "succeeded", [], [["bad", "succeeded", [[2, True]], []]]]]],
    ]  # fmt: skip


def test_spans_of_libraries_hang_under_what_runs(engine: Engine, traced: Traced) -> None:
    tracer = traced.provider.get_tracer("library")

    def body(_: Any) -> None:
        with tracer.start_as_current_span("request"):
            pass

    def other(event: Any, context: Any) -> None:
        context.step(body, name="call", timeout=60)
        with tracer.start_as_current_span("between"):
            pass
        context.run_in_child_context(lambda child: body(None), name="scope")

    engine.run(durable_execution(name="other")(other), id="libraries")
    spans = {s.name: s for s in traced.exporter.get_finished_spans() if s.name != "request"}
    requests = [s for s in traced.exporter.get_finished_spans() if s.name == "request"]
    parents = [s.parent.span_id for s in requests if s.parent is not None]
    assert parents == [spans["call #1"].context.span_id, spans["scope"].context.span_id]
    between = spans["between"]
    assert between.parent is not None
    assert between.parent.span_id == spans["other"].context.span_id
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_errors_are_on_their_spans(engine: Engine, traced: Traced) -> None:
    def fails(event: Any, context: Any) -> None:
        context.step(lambda: dict[str, int]()["seat"], name="book", retry=Retry(1))

    with pytest.raises(RunFailed):
        engine.run(durable_execution(name="fails")(fails), id="errors")
    book = next(s for s in traced.exporter.get_finished_spans() if s.name == "book")
    assert book.status.status_code is trace.StatusCode.ERROR
    assert book.status.description == "KeyError: 'seat'"
    event = book.events[0]
    assert event.attributes is not None
    assert (event.name, event.attributes["exception.type"]) == ("exception", "KeyError")
    assert "book" in str(event.attributes["exception.stacktrace"])


@pytest.mark.parametrize("ratio,spans", [(0.0, 0), (1.0, 3)])
def test_a_trace_is_sampled_whole_or_not_at_all(ratio: float, spans: int) -> None:
    traced = Traced(sampler=ParentBased(TraceIdRatioBased(ratio)))
    engine = Engine(f"memory://sampled{ratio}", plugins=[traced.plugin])
    engine.run(lambda event, context: context.step(lambda _: 1, name="one"))
    engine.stop()
    assert len(traced.exporter.get_finished_spans()) == spans


def test_without_a_provider_nothing_is_emitted_and_nothing_fails() -> None:
    engine = Engine("memory://none", plugins=[OpenTelemetry()])
    assert engine.run(lambda event, context: context.step(lambda _: 1, name="one")) == 1
    engine.stop()


APP = """
import os, sys
from pathlib import Path

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import stepwell

out = open("spans", "a", buffering=1)
provider = TracerProvider()
line = lambda span: span.to_json(indent=None) + "\\n"
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=line)))
trace.set_tracer_provider(provider)

def dies_once():
    if not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), 9)
    return 2

@stepwell.durable_execution(name="killed")
def handler(event, context):
    context.step(lambda _: 1, name="one")
    context.wait(0.001, name="nap")
    def inside(child):
        child.step(lambda _: 1, name="before")
        return child.step(dies_once, name="dies")
    return context.run_in_child_context(inside, name="scope")

@stepwell.durable_execution(name="killed-async")
async def async_handler(event, context):
    await context.step(lambda _: 1, name="one")
    await context.wait(0.001, name="nap")
    async def inside(child):
        await child.step(lambda _: 1, name="before")
        return await child.step(dies_once, name="dies")
    return await context.run_in_child_context(inside, name="scope")

if __name__ == "__main__":
    stepwell.run(globals()[sys.argv[1]], id="killed")
"""


@pytest.mark.parametrize("function", ["handler", "async_handler"])
def test_a_killed_run_is_one_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.setenv("STEPWELL_STORE", f"sqlite:///{tmp_path}/store.db")
    monkeypatch.setenv("DURABLE_EXECUTION_PLUGINS", "opentelemetry")
    command = [sys.executable, "app.py", function]
    assert subprocess.run(command, cwd=tmp_path, timeout=60, check=False).returncode == -9
    before = (tmp_path / "spans").read_text().splitlines()
    subprocess.run(command, cwd=tmp_path, timeout=60, check=True)
    documents = [json.loads(line) for line in (tmp_path / "spans").read_text().splitlines()]
    exported = Exported([flat(document) for document in documents])
    engine = Engine(f"sqlite:///{tmp_path}/store.db")
    assert exported.tree() == run_tree(engine, "killed")
    engine.stop()
    assert len(exported.traces()) == 1
    assert 0 < len(before) < len(documents)


def test_an_invoked_run_hangs_in_the_trace_of_the_one_that_invoked_it(engine: Engine, traced: Traced) -> None:
    child = durable_execution(name="child")(lambda event, context: context.step(lambda _: 1, name="inner"))
    parent = durable_execution(name="parent")(lambda event, context: context.invoke(child, None, name="call"))
    assert engine.run(parent) == 1
    exported = traced.exported
    assert len(exported.traces()) == 1
    inner = ["child", "succeeded", [], [["inner", "succeeded", [[1, True]], []]]]
    assert exported.tree() == [["parent", "succeeded", [], [["call", "succeeded", [], [inner]]]]]


def test_a_run_started_in_a_step_is_linked_to_the_outer_one(engine: Engine, traced: Traced) -> None:
    inner = durable_execution(name="inner")(lambda event, context: 1)
    outer = durable_execution(name="outer")(lambda event, context: context.step(lambda _: engine.run(inner), name="go"))
    engine.run(outer, id="outer")
    spans = {span.name: span for span in traced.exporter.get_finished_spans()}
    assert [link.context.span_id for link in spans["inner"].links] == [spans["outer"].context.span_id]
    assert spans["inner"].context.trace_id != spans["outer"].context.trace_id
