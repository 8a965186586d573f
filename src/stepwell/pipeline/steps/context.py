"""`BaseStepContext`: the object that all steps of a pipeline share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from stepwell.pipeline._sink import quiet
from stepwell.pipeline.context import RuntimeContext, checked_data, checked_percent
from stepwell.pipeline.steps.base import StepResult

if TYPE_CHECKING:
    from stepwell.pipeline._sink import Sink

T = TypeVar("T")


@runtime_checkable
class Runtime(Protocol):
    """What a runtime context has to offer; `RuntimeContext` does."""

    def log(self, event: str, data: Mapping[str, Any], file: str | None = None) -> None:
        """Something happened."""

    def set_progress(self, current: int, total: int, category: str | None = None) -> None:
        """How far it has come."""

    def set_metrics(self, value: Mapping[str, Any], category: str | None = None) -> None:
        """Figures."""


class Link(Protocol):
    """The side of the run that a step sees while it is executed."""

    run_id: str | None
    attempt: int
    sink: Sink

    def once(self, key: str, fn: Callable[[], Any]) -> Any:
        """See `BaseStepContext.once`."""

    def cancelled(self) -> bool:
        """Whether the run is being cancelled."""


@dataclass
class BaseStepContext:
    """Shared state of a pipeline's steps. A subclass adds fields; they are recorded after each step and come back
    when the run is taken up by another process. Not recorded are fields declared with
    ``field(metadata={"transient": True})`` (connections, models: make them again in `BaseStep.restore`) and
    ``field(metadata={"secret": True})``, whose values appear in no record of the run.

    After each step each field is compared with what is on record. One that holds the same object as before costs
    nothing if such an object cannot change: text, bytes, a number, a date, a path, a tuple or frozenset of these. A
    list, a dict or anything else may have changed inside, and is serialized to find out: 1 to 3 ms a megabyte and step.
    Keep what is large and stays as it is in a tuple, or in a file whose path is the field.

    Args:
        runtime_ctx: logger, environment, clients: a `RuntimeContext`, or any object with ``log``, ``set_progress``
            and ``set_metrics``; None makes a `RuntimeContext`.
        step_results: how the steps so far ended, in order.
        errors: what went wrong without ending the run, and what could not be rolled back.
        current_step: name of the step under way.
    """

    runtime_ctx: Runtime
    step_results: list[StepResult] = field(default_factory=list, kw_only=True)
    errors: list[str] = field(default_factory=list, kw_only=True)
    current_step: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.runtime_ctx is None:
            self.runtime_ctx = RuntimeContext()  # type: ignore[unreachable]  # None is what many pass

    def log(self, event: str, data: Mapping[str, Any], file: str | None = None) -> None:
        """Say that something happened; kept beside the run, and passed on to the runtime context.

        Raises:
            TypeError: ``data`` is no mapping.
        """
        data = checked_data(data)
        link = link_of(self)
        if link is None:
            self.runtime_ctx.log(event, data, file)
            return
        link.sink.event(event, data, file)
        with quiet():
            shown = data if isinstance(self.runtime_ctx, RuntimeContext) else link.sink.masked(dict(data))
            self.runtime_ctx.log(event, shown, file)

    def set_progress(self, current: int, total: int, category: str | None = None, *, step: str | None = None) -> None:
        """How far the step has come.

        Args:
            current: from 0 to ``total``.
            total: more than 0.
            category: whose progress it is; default the step under way.
            step: the same.

        Raises:
            ValueError: unless ``total > 0 and 0 <= current <= total``.
        """
        percent = checked_percent(current, total)
        category = category or step or self.current_step
        link = link_of(self)
        if link is None:
            self.runtime_ctx.set_progress(current, total, category)
            return
        link.sink.progress(category, current, total, percent)
        with quiet():
            self.runtime_ctx.set_progress(current, total, category)

    def set_metrics(self, value: Mapping[str, Any], category: str | None = None, *, step: str | None = None) -> None:
        """Merge figures into those of a category.

        Args:
            value: name -> figure.
            category: whose figures they are; default the step under way.
            step: the same.

        Raises:
            TypeError: ``value`` is no mapping.
            ValueError: outside a step, and no category is given.
        """
        value = checked_data(value, "metrics")
        category = category or step or self.current_step
        if category is None:
            raise ValueError("category is required outside a step")
        link = link_of(self)
        if link is None:
            self.runtime_ctx.set_metrics(value, category)
            return
        link.sink.metrics(category, value)
        with quiet():
            self.runtime_ctx.set_metrics(value, category)

    # Served by __getattr__, so that a subclass may have fields with these names; its fields win.
    if TYPE_CHECKING:

        @property
        def cancelled(self) -> bool:
            """Whether the run is being cancelled: a long body should look now and then, and return."""

        @property
        def run_id(self) -> str | None:
            """The run's id; None outside a run."""

        @property
        def attempt(self) -> int:
            """Which attempt of the step this is, from 1."""

        def once(self, key: str, fn: Callable[[], T]) -> T:
            """Call ``fn`` and record what it returns; after a crash the recorded value is returned instead. In the
            step's rollback: the recorded value, or where there is none what ``fn`` returns, which is not recorded.

            Args:
                key: names it within the step; a key used twice in one step gives the first value.
                fn: called without arguments, at most until its value is on record. Threads may call side by side.

            Raises:
                RuntimeError: outside a step that an Orchestrator executes.
            """

    else:

        def __getattr__(self, name):  # noqa: ANN001, ANN204
            if name not in _SERVED:
                message = f"{type(self).__name__!r} object has no attribute {name!r}"
                raise AttributeError(message, name=name, obj=self)
            link = link_of(self)
            if name == "once":
                return link.once if link is not None else _once_outside
            if name == "cancelled":
                return link is not None and link.cancelled()
            if name == "attempt":
                return 1 if link is None else link.attempt
            return None if link is None else link.run_id


_SERVED = frozenset({"once", "cancelled", "run_id", "attempt"})
LINK = "_stepwell_link"
"""The attribute of a context that leads to its run, while one is under way."""


def link_of(context: BaseStepContext) -> Link | None:
    """The run that this context belongs to now."""
    link: Link | None = context.__dict__.get(LINK)
    return link


def _once_outside(key: str, fn: Callable[[], T]) -> T:
    message = f"once({key!r}): only a step that an Orchestrator executes can record it"
    raise RuntimeError(message)
