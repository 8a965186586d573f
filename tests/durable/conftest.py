"""An engine on a memory store of its own for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine
from tests.durable.twins import COLOURS, WAYS, Way

if TYPE_CHECKING:
    from collections.abc import Iterator


class Run:
    """``run(handler, event)``: on ``run.engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def __call__(self, handler: Any, event: Any = None, **options: Any) -> Any:
        return self.engine.run(handler, {} if event is None else event, **options)

    def keys(self, run_id: str, record: str) -> list[str]:
        """Keys of all records of one kind, in order."""
        return [r["key"] for r in self.engine.get_run(run_id).history() if r["record"] == record]


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    engine = Engine(f"memory://{request.node.name}")
    yield Run(engine)
    engine.stop()


@pytest.fixture(params=WAYS, ids=[f"{colour}, {'frames dropped' if hold == 0 else 'kept'}" for colour, hold in WAYS])
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """Both colours, with frames kept and dropped."""
    colour, hold = request.param
    made = Way(colour, hold, request.node.name)
    yield made
    made.engine.stop()


@pytest.fixture(params=COLOURS)
def colour(request: pytest.FixtureRequest) -> str:
    """``def`` or ``async def``."""
    return str(request.param)
