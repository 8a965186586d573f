"""The context of steps and what surrounds it, outside of a run."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import pytest

from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps import BaseStepContext, Retry, StepResult


@dataclass
class Good(BaseStepContext):
    config_path: str
    loaded_data: dict[str, Any] = field(default_factory=dict)


@dataclass
class Own(BaseStepContext):
    run_id: str = "mine"
    attempt: int = 7


class Heard:
    """A runtime context of somebody else's."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log(self, event: str, data: Any, file: str | None = None) -> None:
        self.calls.append(("log", event, data, file))

    def set_progress(self, current: int, total: int, category: str | None = None) -> None:
        self.calls.append(("progress", current, total, category))

    def set_metrics(self, value: Any, category: str | None = None) -> None:
        self.calls.append(("metrics", value, category))


def test_a_subclass_may_have_fields_without_default() -> None:
    made = Good(RuntimeContext(), "here")
    assert made.config_path == "here"
    assert (made.step_results, made.errors, made.current_step) == ([], [], None)


def test_none_is_replaced_by_a_runtime_context() -> None:
    nothing: Any = None
    assert isinstance(Good(nothing, "x").runtime_ctx, RuntimeContext)


def test_what_it_serves_outside_of_a_run() -> None:
    made = Good(RuntimeContext(), "x")
    assert (made.run_id, made.attempt, made.cancelled) == (None, 1, False)
    with pytest.raises(RuntimeError, match="only a step that an Orchestrator executes"):
        made.once("k", lambda: 1)
    assert not {"once", "cancelled", "run_id", "attempt"} & set(dir(BaseStepContext))
    with pytest.raises(AttributeError, match="'Good' object has no attribute 'other'"):
        made.other  # type: ignore[attr-defined]  # noqa: B018


def test_a_field_of_the_same_name_wins() -> None:
    made = Own(RuntimeContext())
    assert (made.run_id, made.attempt) == ("mine", 7)


def test_the_step_under_way_is_the_category() -> None:
    heard = Heard()
    made = Good(heard, "x", current_step="resize")
    made.log("e", {"a": 1}, "f.txt")
    made.set_progress(1, 4)
    made.set_progress(2, 4, "own")
    made.set_progress(3, 4, step="own")
    made.set_metrics({"n": 1})
    made.set_metrics({"n": 2}, step="own")
    assert heard.calls == [
        ("log", "e", {"a": 1}, "f.txt"),
        ("progress", 1, 4, "resize"),
        ("progress", 2, 4, "own"),
        ("progress", 3, 4, "own"),
        ("metrics", {"n": 1}, "resize"),
        ("metrics", {"n": 2}, "own"),
    ]


@pytest.mark.parametrize("current, total", [(1, 0), (-1, 2), (3, 2), (0, -1)])
def test_progress_outside_of_its_limits_is_refused(current: int, total: int) -> None:
    heard = Heard()
    with pytest.raises(ValueError, match="total > 0 and 0 <= current <= total"):
        Good(heard, "x").set_progress(current, total)
    assert heard.calls == []


def test_bad_arguments() -> None:
    made = Good(RuntimeContext(), "x")
    bad: Any = [1]
    with pytest.raises(TypeError, match=r"^data must be a mapping, got list$"):
        made.log("e", bad)
    with pytest.raises(ValueError, match=r"^category is required outside a step$"):
        made.set_metrics({"a": 1})
    made.set_progress(1, 2)


def test_views_of_the_runtime_context(caplog: pytest.LogCaptureFixture) -> None:
    runtime = RuntimeContext(job_id=7)
    with caplog.at_level(logging.INFO, "stepwell.pipeline"):
        runtime.log("loaded", {"rows": 3}, "a.csv")
        runtime.log_message("hello", "warning")
    runtime.set_progress(1, 3, "load")
    runtime.set_metrics({"a": 1, "b": 1}, "load")
    runtime.set_metrics({"b": 2}, "load")
    assert [record.getMessage() for record in caplog.records] == [
        "loaded {'rows': 3} (a.csv)",
        "message {'content': 'hello'}",
    ]
    assert caplog.records[1].levelno == logging.WARNING
    assert runtime.progress == {"load": (1, 3, 33.33)}
    assert runtime.metrics == {"load": {"a": 1, "b": 2}}
    with pytest.raises(ValueError, match="level must be one of"):
        runtime.log("e", {}, level="loud")


def test_results() -> None:
    made = StepResult(True, {"a": 1}, None, {"b": 2})
    assert (made.data, made.rollback_data, made.skipped) == ({"a": 1}, {"b": 2}, False)
    assert made.timestamp.tzinfo is UTC
    assert StepResult().data is not StepResult().data
    wrong: Any = {"colour": 1}
    with pytest.raises(TypeError):
        StepResult(**wrong)


@pytest.mark.parametrize("given", [{"max_attempts": 0}, {"delay": -1}, {"max_delay": -0.1}, {"backoff": -2}])
def test_a_retry_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(given))):
        Retry(**given)


def test_importing_the_steps_is_light() -> None:
    heavy = {"pydantic", "fsspec", "PIL", "rich", "click", "yaml", "sqlite3", "asyncio"}
    code = f"import sys, stepwell.pipeline.steps; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
