"""A pipeline's run as the engine drives it: a durable function whose handler interprets the steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from stepwell import serde
from stepwell.client._retry import SCRIPT_QUEUE
from stepwell.durable._door import at_once
from stepwell.durable._function import DurableFunction
from stepwell.durable.serdes import PassThroughSerDes

TEXT: Any = PassThroughSerDes()
"""Event and result are texts of the library's format already."""


class _Codec:
    """The event stays a text; the result is a dict."""

    def encode(self, value: Any, place: str) -> str:
        """The text itself."""
        text: str = value
        return text

    def decode(self, text: str, key: str) -> Any:
        """See the class."""
        return serde.decode(text, key=key) if key == "result" else text


class PipelineFunction(DurableFunction):
    """See the module. ``begin`` gives the interpreter of a life: its event and its context are passed."""

    door = "pipeline"
    listed = False

    def __init__(
        self, begin: Callable[[str, Any], Any], name: str, *, is_async: bool = False, target: str | None = None,
        queue: str = SCRIPT_QUEUE,
    ) -> None:  # fmt: skip
        def pipeline(event: str, context: Any) -> Any:
            return at_once(begin(event, context).run(event))

        async def pipeline_async(event: str, context: Any) -> Any:
            return await begin(event, context).run(event)

        super().__init__(pipeline_async if is_async else pipeline, name=name, serdes=TEXT, queue=queue)
        self.identity = f"stepwell.pipeline:{name}"
        self.target = target

    def codec_of(self, settings: Mapping[str, Any], run_id: str) -> Any:
        """Of event and result, whatever the engine's own is."""
        return _Codec()
