"""The driver: lives of runs, scopes, leases, timers, threads, cancellation. It knows no door."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.runtime._api import Program as Program
    from stepwell.runtime._host import Host as Host
    from stepwell.runtime._inbox import CANCEL as CANCEL
    from stepwell.runtime._inbox import encode_cancel as encode_cancel
    from stepwell.runtime._life import Life as Life
    from stepwell.runtime._live import Ending as Ending
    from stepwell.runtime._live import current_life as current_life
    from stepwell.runtime._run_journal import load as load

# Name -> module. Imported when first asked for (PEP 562): decorating a function needs one hook, not the driver.
_NAMES = {
    "CANCEL": "_inbox",
    "Ending": "_live",
    "Host": "_host",
    "Life": "_life",
    "Program": "_api",
    "current_life": "_live",
    "encode_cancel": "_inbox",
    "load": "_run_journal",
}

__all__ = ["CANCEL", "Ending", "Host", "Life", "Program", "current_life", "encode_cancel", "load"]


def __getattr__(name: str) -> Any:
    module = _NAMES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value
