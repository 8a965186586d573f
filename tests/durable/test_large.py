"""Many items, and large values (durable.md §19.8, §19.9)."""

from __future__ import annotations

import random
import sqlite3
import string
import threading
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, durable_execution
from stepwell.durable.config import CompletionConfig, MapConfig

if TYPE_CHECKING:
    from pathlib import Path

    from tests.durable.conftest import Run

ITEMS = 10_000
THREADS = 70


@pytest.mark.timeout(300)
def test_a_map_over_ten_thousand_items_on_few_threads(run: Run) -> None:
    most, before = [0], set(threading.enumerate())  # those of engines that were stopped just now end by and by

    def item(child: Any, value: int) -> int:
        if value % 50 == 0:
            most[0] = max(most[0], len(set(threading.enumerate()) - before))
        return value

    handler = durable_execution(lambda event, context: context.map(range(ITEMS), item, "m").get_results())
    assert run(handler, id="r") == list(range(ITEMS))
    assert 1 < most[0] <= THREADS
    assert len(run.keys("r", "ScopeSucceeded")) == ITEMS + 1


@pytest.mark.timeout(300)
def test_an_early_end_of_many_returns_while_a_body_still_runs(run: Run) -> None:
    """All items count as begun; the first one's body runs on until after the run has ended."""
    inside, leave, left = threading.Event(), threading.Event(), threading.Event()
    after: list[str] = []

    def stuck() -> str:
        inside.set()
        assert leave.wait(60)
        left.set()
        return "late"

    def item(child: Any, value: int) -> int:
        if value == 0:
            try:
                child.step(stuck, name="stuck")
            finally:
                after.append("let go")
        assert inside.wait(60)
        return value

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        config: Any = MapConfig(completion_config=CompletionConfig(min_successful=5))
        result = context.map(range(ITEMS), item, "m", config)
        return [result.completion_reason.name, result.success_count >= 5, result.total_count]

    assert run(handler, id="r") == ["MIN_SUCCESSFUL_REACHED", True, ITEMS]
    assert not left.is_set(), "nobody waited for it"
    assert "m[0]" in run.keys("r", "ScopeCancelled")
    leave.set()
    assert left.wait(60)
    assert "m[0]/stuck" not in run.keys("r", "StepSucceeded"), "its late result is dropped"
    assert run.engine.get_run("r").status == "succeeded"


def test_five_megabytes_are_stored_once(tmp_path: Path) -> None:
    """As a step's value, its child's and the run's: the same bytes, once, and equal in every life."""
    text = "".join(random.Random(1).choices(string.ascii_letters + string.digits + "äß", k=5_000_000))
    made: list[int] = []

    def big() -> str:
        made.append(1)
        return text

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        value = context.run_in_child_context(lambda child: child.step(big, name="big"), "c")
        context.wait(0.01)
        return value

    for _ in range(2):
        engine = Engine(f"sqlite:///{tmp_path}/store.db", hold=0)
        assert engine.run(handler, id="r") == text
        assert engine.get_run("r").get_step("big").result == text
        engine.stop()
    assert made == [1]
    connection = sqlite3.connect(tmp_path / "store.db")
    assert connection.execute("select count(*) from blob").fetchone() == (1,)
    (stored,) = connection.execute("select sum(length(data)) from blob_chunk").fetchone()
    (rows,) = connection.execute("select sum(length(data)) from record").fetchone()
    connection.close()
    assert stored <= len(text.encode()) + 2
    assert rows < 10_000, "records name it by its hash"
