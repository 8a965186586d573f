"""Observers read each commit, once and in order, and cost the run nothing of what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, Retry, RunFailed, durable_execution
from stepwell.core import LifeStarted, RunStarted, StepStarted
from stepwell.runtime._observe import Committed, Observer
from tests.durable.kit import NEVER, Once, raiser
from tests.durable.test_plugins import async_handler, sync_handler

if TYPE_CHECKING:
    from collections.abc import Iterator


class Reader(Observer):
    def __init__(self) -> None:
        self.told: list[Committed] = []

    def on_commit(self, committed: Committed) -> None:
        self.told.append(committed)

    def records(self, run_id: str) -> list[str]:
        return [type(record).__name__ for c in self.told if c.run_id == run_id for record in c.records]


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture(params=[0.0, 60.0], ids=["replayed", "held"])
def engine(request: pytest.FixtureRequest, reader: Reader) -> Iterator[Engine]:
    engine = Engine(f"memory://{request.node.name}", observers=[reader], hold=request.param)
    yield engine
    engine.stop()


@pytest.mark.parametrize("handler", [sync_handler, async_handler], ids=["sync", "async"])
def test_what_is_told_is_the_journal(engine: Engine, reader: Reader, handler: Any) -> None:
    engine.run(handler, id="told")
    assert reader.records("told") == [record["record"] for record in engine.get_run("told").history()]
    assert [c.epoch for c in reader.told] == sorted(c.epoch for c in reader.told)


def test_each_change_shows_its_operation_as_it_was_then(engine: Engine, reader: Reader) -> None:
    body, soon = Once(ValueError("once")), Retry(3, delay=0.001, jitter="none")
    engine.run(lambda event, context: context.step(body, name="flaky", retry=soon))
    changes = [change for committed in reader.told for change in committed.changes]
    seen = [(type(c.record).__name__, c.op.status, c.op.attempt) for c in changes if c.op is not None]
    assert seen == [
        ("StepStarted", "started", 1), ("StepRetryPlanned", "planned", 1),
        ("StepStarted", "started", 2), ("StepSucceeded", "succeeded", 2),
    ]  # fmt: skip


def test_a_retried_run_is_told_from_its_claim_on(engine: Engine, reader: Reader) -> None:
    broken = [ValueError("no")]
    function = durable_execution(name="retold")(
        lambda event, context: context.step(raiser(broken[0]) if broken else lambda: 1, name="s", retry=NEVER)
    )
    engine.register(function)
    with pytest.raises(RunFailed):
        engine.run(function, id="again")
    broken.clear()
    engine.get_run("again").retry()
    assert reader.records("again") == [record["record"] for record in engine.get_run("again").history()]
    assert [c.ends for c in reader.told if isinstance(c.records[0], LifeStarted | RunStarted | StepStarted)][-1] == 1
