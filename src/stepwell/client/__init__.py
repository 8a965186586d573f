"""Starting runs, waiting for them, looking at them and putting them right: what people's code and the CLI call."""

from stepwell.client._drive import Parked
from stepwell.client._engine import Engine
from stepwell.client._functions import load_module, load_target
from stepwell.client._handle import RunHandle
from stepwell.client._module import engine_for, run, run_async, start
from stepwell.client._views import exit_code, list_rows, run_object

__all__ = [
    "Engine",
    "Parked",
    "RunHandle",
    "engine_for",
    "exit_code",
    "list_rows",
    "load_module",
    "load_target",
    "run",
    "run_async",
    "run_object",
    "start",
]
