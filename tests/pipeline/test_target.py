"""Builders of pipelines as functions that an engine knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell import Engine
from stepwell.client import load_target
from stepwell.durable.serdes import SerDes

APP = """
from dataclasses import dataclass
from stepwell.pipeline import BaseStep, BaseStepContext, StepRegistry, StepResult


@dataclass
class Work(BaseStepContext):
    word: str = ""


class One(BaseStep):
    name, progress_weight = "one", 1

    def execute(self, context):
        return StepResult(data={"word": context.word})


def build(word="x", runtime_ctx=None):
    registry = StepRegistry()
    registry.register(One())
    return registry, Work(runtime_ctx, word)
"""


class Loud(SerDes[Any]):
    """An engine's own way to record values."""

    def serialize(self, value: Any, serdes_context: Any) -> str | None:
        return f"!{value}"

    def deserialize(self, data: str, serdes_context: Any) -> Any:
        return f"{data}?"


@pytest.fixture(params=[None, Loud()], ids=["plain", "own"])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    engine = Engine("memory://target", serdes=request.param)
    yield engine
    engine.stop()


def test_the_value_of_a_run_is_its_summary_each_time_that_it_is_asked_for(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "targeted.py").write_text(APP)
    function = load_target(f"{tmp_path}/targeted.py:build")
    summary = {"success": True, "steps_executed": 1, "steps_total": 1}
    assert engine.run(function, {"word": "a"}, id="r") == summary
    assert engine.run(function, {"word": "a"}, id="r") == summary
    assert engine.get_run("r").result() == summary
    engine.register(function)
    assert engine.run(function, {"word": "a"}, id="r") == summary
    assert engine.get_run("r").result() == summary
