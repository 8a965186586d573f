"""An engine on a memory store of its own for each test."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine

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
