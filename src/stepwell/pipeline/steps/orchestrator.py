"""`Orchestrator`: runs the steps of a registry as one durable run, and rolls them back when one fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic

from stepwell.pipeline.steps.base import C

if TYPE_CHECKING:
    from stepwell.client import Engine
    from stepwell.pipeline.steps.registry import StepRegistry


class Orchestrator(Generic[C]):
    """Executes the steps of a registry in order, with progress and automatic rollback, as one durable run.

    Args:
        registry: the steps; the list is taken once, when `execute` begins.
        context: what they share.
        progress_callback: called ``(percent, 100)`` after each step.
        run_id: names the run. A run with this id that is unfinished is resumed; one that has ended gives its outcome.
            Default: each `execute` is a new run.
        name: of the pipeline; default the class name of the context.
        engine: what the run is kept with; default the store of ``STEPWELL_STORE``.

    Raises:
        TypeError: the context is no dataclass with the fields of `BaseStepContext`.
    """

    def __init__(
        self,
        registry: StepRegistry[C],
        context: C,
        progress_callback: Callable[[int, int], Any] | None = None,
        *,
        run_id: str | None = None,
        name: str | None = None,
        engine: Engine | None = None,
    ) -> None:
        from stepwell.pipeline.steps.context import BaseStepContext

        given: object = context
        if not isinstance(given, BaseStepContext) or "__dataclass_fields__" not in vars(type(given)):
            message = f"context must be a dataclass that extends BaseStepContext, got {type(given).__name__}"
            raise TypeError(message)
        self.registry = registry
        self.context = context
        self.progress_callback = progress_callback
        self.name = name or type(context).__name__
        self._given_id = run_id
        self._run_id = run_id
        self._engine = engine

    @property
    def run_id(self) -> str | None:
        """The given id, or after the start the generated one."""
        return self._run_id

    def execute(self) -> dict[str, Any]:
        """Run the steps, or take up their run where it stopped. Blocks.

        Returns:
            ``{'success': True, 'steps_executed': n, 'steps_total': m}``.

        Raises:
            StepFailed: a step failed, and what was done was rolled back.
            RunCancelled: the run was cancelled, and what was done was rolled back.
            DuplicateRun: a live process holds the run.
            BadArguments: a field of the context cannot be recorded; nothing was written.
            JournalError: the store cannot be used; the run goes on when it can.
        """
        from stepwell.pipeline._execution import Execution, terminable

        with terminable():
            execution = Execution(self, is_async=False)
            self._run_id = execution.run_id
            return execution.go()

    async def execute_async(self) -> dict[str, Any]:
        """As `execute`, for async callers: async steps run on their loop, others on threads."""
        from stepwell.pipeline._execution import Execution

        execution = Execution(self, is_async=True)
        self._run_id = execution.run_id
        return await execution.go_async()
