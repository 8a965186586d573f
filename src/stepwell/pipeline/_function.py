"""A pipeline's run as the engine drives it: a durable function whose handler interprets the steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stepwell.durable._door import at_once
from stepwell.durable._function import DurableFunction
from stepwell.durable.serdes import PassThroughSerDes

OWN_QUEUE = "pipeline-script"
"""Where the runs of bare Orchestrators stand: no worker serves it, only their own script continues them."""
TEXT: Any = PassThroughSerDes()
"""Event and result are texts of the library's format already."""


class PipelineFunction(DurableFunction):
    """See the module. ``begin`` gives the interpreter of a life: its event and its context are passed."""

    door = "pipeline"
    listed = False

    def __init__(
        self, begin: Callable[[str, Any], Any], name: str, *, is_async: bool = False, target: str | None = None,
        queue: str = OWN_QUEUE,
    ) -> None:  # fmt: skip
        def pipeline(event: str, context: Any) -> Any:
            return at_once(begin(event, context).run(event))

        async def pipeline_async(event: str, context: Any) -> Any:
            return await begin(event, context).run(event)

        super().__init__(pipeline_async if is_async else pipeline, name=name, serdes=TEXT, queue=queue)
        self.identity = f"stepwell.pipeline:{name}"
        self.target = target
