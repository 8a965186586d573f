"""What the tests of this folder share: a context, a step that is told what to do, and a pipeline in one line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stepwell import Engine
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps import BaseStep, BaseStepContext, Orchestrator, StepRegistry, StepResult


@dataclass
class Context(BaseStepContext):
    """A list, a number, a text."""

    seen: list[str] = field(default_factory=list)
    number: int = 0
    text: str = ""
    handle: Any = field(default=None, metadata={"transient": True})


class Step(BaseStep[Context]):
    """Does what it is told, and keeps a list of what was asked of it in ``calls``."""

    name = ""
    progress_weight = 1.0

    def __init__(self, name: str, weight: float = 1.0, do: Callable[[Any], Any] | None = None) -> None:
        self.name = name
        self.progress_weight = weight
        self.do = do
        self.calls: list[str] = []

    def execute(self, context: Context) -> StepResult:
        self.calls.append("execute")
        given = self.do(context) if self.do is not None else None
        context.seen.append(self.name)
        return StepResult(data={"by": self.name}, rollback_data={"by": self.name}) if given is None else given

    def rollback(self, context: Context, result: StepResult) -> None:
        self.calls.append("rollback")
        context.seen.append(f"-{self.name}")


def registry(*steps: BaseStep[Any]) -> StepRegistry[Any]:
    """A registry of these."""
    made = StepRegistry[Any]()
    for step in steps:
        made.register(step)
    return made


def raising(error: BaseException) -> Callable[[Any], Any]:
    """A body that raises this."""

    def do(_context: Any) -> Any:
        raise error

    return do


class Pipeline:
    """An Orchestrator with its callback's calls in ``percents``."""

    def __init__(
        self, engine: Engine, *steps: BaseStep[Any], context: Any = None, callback: Callable[[int, int], Any] | None = None,
        run_id: str | None = None, name: str | None = None,
    ) -> None:  # fmt: skip
        self.percents: list[int] = []
        self.context: Any = context if context is not None else Context(RuntimeContext())
        self._callback = callback
        self.made = Orchestrator(
            registry(*steps), self.context, self._told, run_id=run_id, engine=engine, name=name or "tested"
        )

    def _told(self, current: int, total: int) -> None:
        assert total == 100
        self.percents.append(current)
        if self._callback is not None:
            self._callback(current, total)

    def execute(self) -> dict[str, Any]:
        return self.made.execute()


def events(engine: Engine, run_id: str | None, kind: str = "event") -> list[Any]:
    """What a run said of itself, in order."""
    from stepwell import serde

    assert run_id is not None
    row = engine.find(run_id)
    return [
        serde.decode(note.data) for _, note in engine.store.note_load(row.rid, kind=kind, key=None, after=0, limit=1000)
    ]


def records(engine: Engine, run_id: str | None) -> list[dict[str, Any]]:
    """A run's records without what differs from run to run."""
    assert run_id is not None
    left_out = {"at", "seq", "epoch", "worker", "pid", "host", "why"}
    return [{k: v for k, v in r.items() if k not in left_out} for r in engine.get_run(run_id).history()]
