"""Runs the steps of an action one after the other, without an engine: what the steps do by themselves."""

from __future__ import annotations

from collections.abc import Callable
from threading import RLock
from typing import Any

from stepwell.pipeline.actions.action import BaseAction
from stepwell.pipeline.steps import StepRegistry, StepResult
from stepwell.pipeline.steps.context import LINK


class Recorded:
    """The side of a run that steps see: it keeps what ``once`` was asked for, and the events."""

    def __init__(self, run_id: str = "run-1") -> None:
        self.run_id = run_id
        self.attempt = 1
        self.sink = self
        self.values: dict[str, Any] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.latest: dict[str, Any] = {}
        self.calls: list[str] = []
        self.step = ""
        self._lock = RLock()

    def once(self, key: str, fn: Callable[[], Any]) -> Any:
        name = f"{self.step}/{key}"
        if name not in self.values:
            value = fn()
            with self._lock:
                self.values[name] = value
                self.calls.append(key)
        return self.values[name]

    def cancelled(self) -> bool:
        return False

    def event(self, event: str, data: Any, file: str | None) -> None:
        self.events.append((event, dict(data)))

    def progress(self, category: str | None, current: int, total: int, percent: float) -> None:
        pass

    def metrics(self, category: str | None, value: Any) -> None:
        self.latest.setdefault(str(category), {}).update(value)

    def masked(self, value: Any) -> Any:
        return value


class Driven:
    """An action whose steps are run here.

    ``failure`` is the text of the step that failed; then everything was rolled back.
    """

    def __init__(self, action: BaseAction[Any], link: Recorded | None = None, *, fail_after: str | None = None) -> None:
        self.link = link or Recorded()
        self.context: Any = action.create_context()
        self.context.__dict__[LINK] = self.link
        registry: StepRegistry[Any] = StepRegistry()
        action.setup_steps(registry)
        self.failure: str | None = None
        self.results: dict[str, StepResult] = {}
        finished = []
        for step in registry:
            self.context.current_step = self.link.step = step.name
            if step.can_skip(self.context):
                continue
            try:
                result: Any = step.execute(self.context)
            except Exception as error:
                result = StepResult(success=False, error=str(error) or type(error).__name__)
            self.results[step.name] = result
            finished.append((step, result))
            if result.success and step.name == fail_after:
                self.failure = f"failed after {step.name}"
            elif not result.success:
                self.failure = result.error
            if self.failure is not None:
                for done, its in reversed(finished):
                    self.context.current_step = self.link.step = done.name
                    done.rollback(self.context, its)
                break
        else:
            self.output = action.result(self.context)
            action.finished(self.context)
