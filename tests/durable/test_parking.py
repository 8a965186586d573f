"""How long the frames of a waiting run are kept, and code that will not let itself be unwound (durable.md §3.4)."""

from __future__ import annotations

import asyncio
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution
from stepwell.durable._program import DurableProgram
from stepwell.durable.exceptions import SuspendExecution
from tests.durable.kit import nothing, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def sync_body(event: Any, context: Any) -> None:
    return None


async def async_body(event: Any, context: Any) -> None:
    return None


@pytest.mark.parametrize(
    "body, function, engine, env, seconds",
    [
        (sync_body, None, None, None, 2.0),
        (async_body, None, None, None, 60.0),
        (sync_body, None, None, "", 2.0),
        (sync_body, None, None, "0", 0.0),
        (async_body, None, None, "7.5", 7.5),
        (sync_body, None, 3.0, "7.5", 3.0),
        (sync_body, None, 0, "7.5", 0),
        (sync_body, 5, 3.0, "7.5", 5.0),
        (async_body, 0, 3.0, None, 0.0),
    ],
)
def test_who_says_how_long_frames_are_kept(
    monkeypatch: pytest.MonkeyPatch, body: Any, function: Any, engine: Any, env: str | None, seconds: float
) -> None:
    """The function, else the engine, else ``STEPWELL_HOLD``, else 2 s for threads and 60 s for tasks."""
    monkeypatch.delenv("STEPWELL_HOLD", raising=False)
    if env is not None:
        monkeypatch.setenv("STEPWELL_HOLD", env)
    made = Engine("memory://hold", hold=engine)
    assert made.host.hold_of(DurableProgram(durable_execution(hold=function)(body))) == seconds
    made.stop()


@pytest.mark.parametrize("env, lives", [("0", 2), ("60", 1)])
def test_the_environment_decides_whether_frames_are_dropped(
    monkeypatch: pytest.MonkeyPatch, env: str, lives: int
) -> None:
    monkeypatch.setenv("STEPWELL_HOLD", env)
    entered: list[int] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        entered.append(1)
        context.wait(0.01)

    engine = Engine("memory://environment")
    engine.run(handler)
    engine.stop()
    assert len(entered) == lives


@pytest.fixture
def dropped() -> Iterator[Engine]:
    """Every wait unwinds the frames."""
    engine = Engine("memory://swallowed", hold=0)
    yield engine
    engine.stop()


def seen_warnings(run: Callable[[], Any]) -> tuple[Any, list[str]]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        value = run()
    return value, [str(w.message) for w in seen if issubclass(w.category, RuntimeWarning)]


def test_a_value_returned_by_a_handler_that_swallowed_it_is_ignored_with_one_warning(dropped: Engine) -> None:
    lives: list[int] = []

    @durable_execution
    def handler(event: Any, context: Any) -> str:
        lives.append(1)
        try:
            context.wait(0.01)
        except BaseException:
            return "ignored"
        return "right"

    value, warned = seen_warnings(lambda: dropped.run(handler, id="r"))
    assert value == "right"
    assert len(lives) == 2
    assert len(warned) == 1
    assert "run r waits, and its handler swallowed what unwinds it" in warned[0]


@pytest.mark.parametrize("way", ["except", "gather", "group"])
def test_the_same_of_an_async_handler(dropped: Engine, way: str) -> None:
    """As a value of ``gather``, and inside a group, it counts as swallowed, too."""

    @durable_execution
    async def handler(event: Any, context: Any) -> str:
        try:
            if way == "except":
                await context.wait(0.01)
            elif way == "gather":
                got: Any = await asyncio.gather(context.wait(0.01), return_exceptions=True)
                if got != [None]:
                    assert isinstance(got[0], SuspendExecution)
                    return "ignored"
            else:
                async with asyncio.TaskGroup() as group:
                    group.create_task(context.wait(0.01))
        except BaseException:
            return "ignored"
        return "right"

    value, warned = seen_warnings(lambda: dropped.run(handler, id="r"))
    assert value == "right"
    assert len(warned) == 1


def test_an_error_raised_instead_is_ignored_too(dropped: Engine) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> str:
        try:
            context.wait(0.01)
        except BaseException:
            raise ValueError("instead") from None
        return "right"

    assert dropped.run(handler, id="r") == "right"
    assert [r["record"] for r in records(dropped, "r")][-1] == "RunSucceeded"


def test_code_that_lets_it_pass_is_not_warned(dropped: Engine) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> str:
        try:
            context.wait(0.01)
        except SuspendExecution:
            raise
        except Exception:
            return "never"
        context.step(nothing, name="s")
        return "right"

    assert seen_warnings(lambda: dropped.run(handler)) == ("right", [])
