"""The test kit: runners with virtual time and crashes, seeded simulation, a clock that tests own, a journal's laws."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepwell.durable.lambda_service import InvocationStatus as InvocationStatus
    from stepwell.testing import invariants as invariants
    from stepwell.testing._clock import VirtualClock as VirtualClock
    from stepwell.testing._durable_runner import DurableRunner as DurableRunner
    from stepwell.testing._simulate_handler import simulate as simulate
    from stepwell.testing.runner import DurableChildContextTestRunner as DurableChildContextTestRunner
    from stepwell.testing.runner import DurableFunctionTestResult as DurableFunctionTestResult
    from stepwell.testing.runner import DurableFunctionTestRunner as DurableFunctionTestRunner

# Name -> module. Imported when first asked for (PEP 562): pytest imports this package at every start.
_NAMES = {
    "DurableChildContextTestRunner": "stepwell.testing.runner",
    "DurableFunctionTestResult": "stepwell.testing.runner",
    "DurableFunctionTestRunner": "stepwell.testing.runner",
    "DurableRunner": "stepwell.testing._durable_runner",
    "InvocationStatus": "stepwell.durable.lambda_service",
    "VirtualClock": "stepwell.testing._clock",
    "simulate": "stepwell.testing._simulate_handler",
}

__all__ = [
    "DurableChildContextTestRunner",
    "DurableFunctionTestResult",
    "DurableFunctionTestRunner",
    "DurableRunner",
    "InvocationStatus",
    "VirtualClock",
    "invariants",
    "simulate",
]


def __getattr__(name: str) -> Any:
    if name == "invariants":
        return import_module("stepwell.testing.invariants")
    module = _NAMES.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
