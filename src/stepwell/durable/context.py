"""The contexts of durable functions, and the decorators that make functions ready for them."""

from stepwell.durable._bound import (
    durable_parallel_branch,
    durable_step,
    durable_wait_for_callback,
    durable_with_child_context,
)
from stepwell.durable._context import DurableContext
from stepwell.durable._context_async import AsyncDurableContext
from stepwell.durable._operations import ExecutionContext
from stepwell.durable._outside import Callback, RunRef
from stepwell.durable._pending import Pending
from stepwell.durable._step_context import StepContext

__all__ = [
    "AsyncDurableContext",
    "Callback",
    "DurableContext",
    "ExecutionContext",
    "Pending",
    "RunRef",
    "StepContext",
    "durable_parallel_branch",
    "durable_step",
    "durable_wait_for_callback",
    "durable_with_child_context",
]
