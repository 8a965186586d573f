"""What a lower floor must start above itself, by name: `DurableFunction.run` needs an engine.

Names, not imports, so that the floors hold; each is imported when it is first called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_TABLE = {
    "run": "stepwell.client:run",
    "run_async": "stepwell.client:run_async",
    "start": "stepwell.client:start",
    "pipeline_target": "stepwell.pipeline._target:function_of",
    "pipeline_object": "stepwell.pipeline._shown:run_object",
    "pipeline_again": "stepwell.pipeline._shown:failed_keys",
}


def hook(name: str) -> Any:
    """The function behind a hook."""
    module, _, attribute = _TABLE[name].partition(":")
    return getattr(import_module(module), attribute)
