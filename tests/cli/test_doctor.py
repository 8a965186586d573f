"""Which runs `stepwell doctor` calls stuck."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, NonDeterminismError, durable_execution
from stepwell.cli._keep import _stuck
from tests.durable.conftest import Run
from tests.durable.kit import Once, Plug, nothing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    engine = Engine(f"memory://{request.node.name}")
    yield Run(engine)
    engine.stop()


@pytest.fixture
def worker(run: Run) -> Iterator[Engine]:
    """Another process, not yet known to the store."""
    store: Any = run.engine.store
    engine = Engine(store.view())
    yield engine
    engine.stop()


def interrupt(run: Run) -> None:
    plug = Once(Plug())
    handler = durable_execution(name="app:handler")(lambda event, context: context.step(plug, name="s"))
    with pytest.raises(Plug):
        run(handler, id="r")


def test_an_interrupted_run_that_nobody_goes_on_with(run: Run) -> None:
    interrupt(run)
    (line,) = _stuck(run.engine.store)
    assert line.startswith("run r is interrupted: ")
    assert line.endswith("; stepwell resume r")


@pytest.mark.parametrize(
    "queues, functions, stuck",
    [
        (("default",), (), False),
        (("other", "default"), ("app:handler",), False),
        (("other",), (), True),
        (("default",), ("app:other",), True),
        ((), (), True),
    ],
)
def test_a_live_worker_goes_on_with_what_it_serves(
    run: Run, worker: Engine, queues: tuple[str, ...], functions: tuple[str, ...], stuck: bool
) -> None:
    interrupt(run)
    worker.host.register(queues, functions)
    assert bool(list(_stuck(run.engine.store))) is stuck
    worker.stop()
    assert list(_stuck(run.engine.store)), "it is gone"


def test_a_blocked_run_is_stuck_whoever_is_there(run: Run, worker: Engine) -> None:
    plug, code = Once(Plug()), [lambda context: (context.step(nothing, name="s"), plug())]
    handler = durable_execution(name="app:handler")(lambda event, context: code[0](context))
    with pytest.raises(Plug):
        run(handler, id="r")
    code[0] = lambda context: context.wait(0, name="s")
    with pytest.raises(NonDeterminismError):
        run(handler, id="r")
    worker.host.register(("default",), ())
    (line,) = _stuck(run.engine.store)
    assert "run r is blocked: code-changed" in line
    assert line.endswith("; stepwell resume r")


def test_what_runs_waits_or_has_ended_is_not_stuck(run: Run) -> None:
    run(durable_execution(lambda event: event), id="ended")
    run.engine.enqueue(durable_execution(lambda event: event), id="pending")
    seen: list[str] = []
    handler = durable_execution(lambda event, context: context.step(lambda: seen.extend(_stuck(run.engine.store))))
    run(handler, id="running")
    assert seen == []
