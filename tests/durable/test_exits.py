"""A body or handler that raises SystemExit ends the life of its run, and nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, RunBlocked, durable_execution
from tests.durable.kit import giver
from tests.durable.twins import coloured, until

if TYPE_CHECKING:
    from collections.abc import Iterator


async def leaves(event: Any, context: Any) -> Any:
    return await context.step(lambda: sys.exit(3), name="exit")


async def leaves_itself(event: Any, context: Any) -> Any:
    await context.step(giver(1), name="s")
    sys.exit(3)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = Engine(f"memory://{request.node.name}")
    yield made
    made.stop()


@pytest.mark.parametrize("body", [leaves, leaves_itself])
def test_the_caller_gets_it_and_the_engine_goes_on(engine: Engine, colour: str, body: Any) -> None:
    with pytest.raises(SystemExit) as left:
        engine.run(coloured(body, colour), {}, id="r")
    assert left.value.code == 3
    assert engine.get_run("r").status == "interrupted"

    async def fine(event: Any, context: Any) -> Any:
        return await context.step(giver(1), name="s")

    assert engine.run(coloured(fine, colour), {}, id="fine") == 1


def test_an_async_body_that_leaves(engine: Engine, colour: str) -> None:
    async def exits() -> None:
        sys.exit(3)

    async def body(event: Any, context: Any) -> Any:
        return await context.step(exits, name="exit")

    async def plain(event: Any, context: Any) -> Any:
        return await context.step(giver(1), name="s")

    handler = coloured(body, colour)
    if colour == "def":

        @durable_execution
        def handler(event: Any, context: Any) -> Any:
            return context.step(exits, name="exit")

    with pytest.raises(SystemExit):
        engine.run(handler, {}, id="r")
    assert engine.run(coloured(plain, "async def"), {}, id="fine") == 1


@pytest.mark.parametrize("body", [leaves, leaves_itself])
def test_a_worker_does_not_try_for_ever(engine: Engine, colour: str, body: Any) -> None:
    handle = engine.enqueue(coloured(body, colour, name="leaves"), {}, id="r")
    engine.start()
    until(engine, lambda: handle.status == "blocked")
    assert 6 <= len([r for r in handle.history() if r["record"] == "LifeStarted"]) <= 12
    with pytest.raises(RunBlocked, match=r"crashes: SystemExit: 3 ended 5 lives in a row"):
        handle.result(20)


def test_a_run_that_gets_on_is_not_counted_out(engine: Engine, colour: str) -> None:
    lives: list[int] = []

    async def body(event: Any, context: Any) -> Any:
        lives.append(1)
        for number in range(len(lives)):
            await context.step(giver(number), name=f"s{number}")
        if len(lives) < 9:
            sys.exit(3)
        return "there"

    handle = engine.enqueue(coloured(body, colour, name="gets-on"), {}, id="r")
    engine.start()
    assert handle.result(20) == "there"
    assert len(lives) == 9
