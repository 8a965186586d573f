"""A running step can be seen by others: its start is on record ``start_flush`` seconds later (durable.md §3.3)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution
from stepwell.core import StepStarted, decode_records
from stepwell.journal import open_store
from stepwell.runtime import Host
from tests.durable.kit import nothing

if TYPE_CHECKING:
    from collections.abc import Iterator

START_FLUSH = 0.1


class Watched:
    """An engine whose tick is moved by hand, and a reader of its store."""

    def __init__(self, name: str) -> None:
        store: Any = open_store(f"memory://{name}")
        self.reader: Any = store.view()
        self.host = Host(store, start_flush=START_FLUSH, background=False)
        self.engine = Engine(store, host=self.host)
        self.inside, self.leave = threading.Event(), threading.Event()
        self.began = self.host.clock.monotonic()

    def body(self) -> str:
        self.inside.set()
        assert self.leave.wait(20)
        return "done"

    def started(self) -> list[str]:
        """Keys of the steps that the reader sees as started."""
        row = self.reader.run_get("r")
        if row is None:
            return []
        entries = self.reader.record_load(row.rid)
        return [r.key for entry in entries for r in decode_records(entry.data) if isinstance(r, StepStarted)]

    def tick(self, seconds: float) -> bool:
        """What the tick's thread does ``seconds`` after the beginning; True if something rides still."""
        return self.host.pulse.flush(self.began + seconds)


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    found = Watched(request.node.name)
    yield found
    found.leave.set()
    found.engine.stop()


def test_it_is_on_record_after_start_flush_and_not_before(watched: Watched) -> None:
    handler = durable_execution(lambda event, context: context.step(watched.body, name="long"))
    handle = watched.engine.start_run(handler, id="r")
    assert watched.inside.wait(20)
    assert watched.started() == []
    assert watched.tick(0)
    assert watched.tick(START_FLUSH / 2)
    assert watched.started() == [], "it rides, and may still go with the next commit"
    watched.tick(START_FLUSH)
    while not watched.started():
        watched.reader.wait(1)
    assert watched.started() == ["long"]
    assert not watched.tick(START_FLUSH * 2), "nothing is left to look at"
    watched.leave.set()
    assert handle.result(20) == "done"
    assert watched.started() == ["long"], "once"


def test_a_quick_step_costs_no_commit_of_its_own(watched: Watched) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> None:
        for n in range(3):
            context.step(nothing, name=f"s{n}")
            watched.tick(0)

    watched.engine.run(handler, id="r", timeout=20)
    row = watched.reader.run_get("r")
    assert len(watched.reader.record_load(row.rid)) == 5


def test_the_run_itself_is_seen_as_well(watched: Watched) -> None:
    """Started in Python without an id, its start rides, too."""
    handler = durable_execution(lambda event, context: context.step(watched.body, name="long"))
    thread = threading.Thread(target=watched.engine.run, args=(handler,))
    thread.start()
    assert watched.inside.wait(20)
    assert watched.engine.list_runs() == []
    watched.tick(0)
    watched.tick(START_FLUSH)
    while not watched.engine.list_runs():
        watched.reader.wait(1)
    (handle,) = watched.engine.list_runs()
    assert handle.status == "running"
    watched.leave.set()
    thread.join(20)
    assert handle.result(20) == "done"


def test_a_heartbeat_is_durable_within_a_second(watched: Watched) -> None:
    """No other record is near to ride with."""

    def body(step: Any) -> str:
        step.heartbeat({"row": 7})
        return watched.body()

    handle = watched.engine.start_run(durable_execution(lambda event, context: context.step(body, name="s")), id="r")
    assert watched.inside.wait(20)
    watched.tick(0)
    watched.tick(START_FLUSH)
    rid = watched.reader.run_get("r").rid
    while not (notes := watched.reader.note_load(rid, kind="heartbeat", key="s", after=0, limit=2)):
        watched.reader.wait(1)
    assert notes[0][1].data == '{"row":7}'
    watched.leave.set()
    handle.result(20)
