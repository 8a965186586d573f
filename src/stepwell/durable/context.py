"""The contexts of durable functions, and the decorators that make functions ready for them."""

from stepwell.durable._bound import durable_parallel_branch, durable_step, durable_with_child_context
from stepwell.durable._context import DurableContext
from stepwell.durable._context_async import AsyncDurableContext
from stepwell.durable._operations import ExecutionContext
from stepwell.durable._step_context import StepContext

__all__ = [
    "AsyncDurableContext",
    "DurableContext",
    "ExecutionContext",
    "StepContext",
    "durable_parallel_branch",
    "durable_step",
    "durable_with_child_context",
]
