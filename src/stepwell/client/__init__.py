"""Starting runs, waiting for them, looking at them and putting them right: what people's code and the CLI call."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.client._check import Checked as Checked
    from stepwell.client._check import check_run as check_run
    from stepwell.client._drive import Parked as Parked
    from stepwell.client._engine import Engine as Engine
    from stepwell.client._functions import load_module as load_module
    from stepwell.client._functions import load_target as load_target
    from stepwell.client._handle import RunHandle as RunHandle
    from stepwell.client._history import aws_events as aws_events
    from stepwell.client._module import engine_for as engine_for
    from stepwell.client._module import run as run
    from stepwell.client._module import run_async as run_async
    from stepwell.client._module import start as start
    from stepwell.client._rehearsed import Change as Change
    from stepwell.client._views import exit_code as exit_code
    from stepwell.client._views import list_rows as list_rows
    from stepwell.client._views import run_json as run_json
    from stepwell.client._views import run_object as run_object
    from stepwell.client._views import shown_rows as shown_rows

# Name -> module. Imported when first asked for (PEP 562): who only decorates a function does not pay for the engine.
_NAMES = {
    "Change": "_rehearsed",
    "Checked": "_check",
    "Engine": "_engine",
    "Parked": "_drive",
    "RunHandle": "_handle",
    "aws_events": "_history",
    "check_run": "_check",
    "engine_for": "_module",
    "exit_code": "_views",
    "list_rows": "_views",
    "load_module": "_functions",
    "load_target": "_functions",
    "run": "_module",
    "run_async": "_module",
    "run_json": "_views",
    "run_object": "_views",
    "shown_rows": "_views",
    "start": "_module",
}

__all__ = [
    "Change",
    "Checked",
    "Engine",
    "Parked",
    "RunHandle",
    "aws_events",
    "check_run",
    "engine_for",
    "exit_code",
    "list_rows",
    "load_module",
    "load_target",
    "run",
    "run_async",
    "run_json",
    "run_object",
    "shown_rows",
    "start",
]


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
