"""Callers that do not wait (``--no-wait``), and callers that come too late."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, NonDeterminismError, RunFailed, durable_execution
from stepwell.client import Parked, _handle
from stepwell.client._drive import Drive
from stepwell.client._retry import choice_of
from stepwell.errors import RunHeld, UsageError
from tests.durable.kit import NEVER, Once, Plug, nothing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.durable.conftest import Run


@pytest.fixture
def other(run: Run) -> Iterator[Engine]:
    """As it were another process, on the store of ``run``."""
    store: Any = run.engine.store
    engine = Engine(store.view())
    yield engine
    engine.stop()


def go_on(engine: Engine, handler: Any) -> Any:
    """`stepwell resume r --no-wait`."""
    engine.register(handler)
    return engine.get_run("r").resume(no_wait_parked=True)


@durable_execution(hold=3600)
def waits(event: Any, context: Any) -> str:
    context.step(nothing, name="first")
    context.wait(600)
    return "late"


def test_it_ends_where_the_run_waits_whatever_its_function_keeps(run: Run) -> None:
    run.engine.enqueue(waits, id="r")
    with pytest.raises(Parked) as parked:
        go_on(run.engine, waits)
    assert parked.value.wake_at is not None
    assert run.engine.get_run("r").status == "waiting"


def test_a_run_that_waits_already_is_not_waited_for(run: Run, other: Engine) -> None:
    run.engine.enqueue(waits, id="r")
    for engine in (run.engine, other):
        with pytest.raises(Parked):
            go_on(engine, waits)


def test_somebody_was_quicker_and_has_parked_it(run: Run, other: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the row and the claim the run is driven and parked elsewhere."""
    run.engine.enqueue(waits, id="r")
    take, quicker = Drive._take, Once(Parked(None))

    def late(self: Drive, *args: Any) -> Any:
        try:
            quicker()
        except Parked:
            with pytest.raises(Parked):
                go_on(other, waits)
        return take(self, *args)

    monkeypatch.setattr(Drive, "_take", late)
    with pytest.raises(Parked):
        go_on(run.engine, waits)
    assert run.keys("r", "StepStarted") == ["first"]


def test_a_run_that_somebody_drives_is_held(run: Run, other: Engine) -> None:
    inside, leave = threading.Event(), threading.Event()

    def body() -> bool:
        inside.set()
        return leave.wait(20)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return context.step(body, name="long")

    run.engine.start_run(handler, id="r")
    assert inside.wait(20)
    for engine in (other, run.engine):
        with pytest.raises(RunHeld) as held:
            go_on(engine, handler)
        assert held.value.exit_code == 4
        assert held.value.holder == run.engine.host.worker
    leave.set()
    assert run.engine.get_run("r").result(20) is True
    assert go_on(other, handler) is True, "the end of a run needs no waiting"


def test_without_a_wait_it_ends_with_its_result(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(lambda: 7, name="s"))
    run.engine.enqueue(handler, id="r")
    assert go_on(run.engine, handler) == 7


@pytest.mark.parametrize("blocked", [False, True])
def test_a_retry_that_comes_second_is_told_that_the_run_is_held(
    run: Run, other: Engine, blocked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, leave = threading.Event(), threading.Event()
    first = Once(Plug() if blocked else ValueError("once"))

    def body() -> bool:
        first()
        inside.set()
        return leave.wait(20)

    code: list[Any] = [lambda context: context.step(body, name="s", retry=NEVER)]
    handler = durable_execution(name="twice")(lambda event, context: code[0](context))
    other.register(handler)
    with pytest.raises((Plug, RunFailed)):
        run(handler, id="r")
    if blocked:
        right, code[0] = code[0], lambda context: context.wait(0, name="s")
        with pytest.raises(NonDeterminismError):
            run(handler, id="r")
        code[0] = right
    late = run.engine.get_run("r")
    choose = choice_of

    def overtaken(*args: Any) -> Any:
        monkeypatch.setattr(_handle, "choice_of", choose)
        choice = choose(*args)
        other.get_run("r").retry(wait=False)
        assert inside.wait(20)
        return choice

    monkeypatch.setattr(_handle, "choice_of", overtaken)
    with pytest.raises(RunHeld) as held:
        late.retry()
    assert held.value.exit_code == 4
    assert isinstance(held.value, UsageError), "nothing was written"
    leave.set()
    assert other.get_run("r").result(20) is True
    assert run.keys("r", "StepSucceeded") == ["s"]
