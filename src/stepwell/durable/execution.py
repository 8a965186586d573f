"""Declaring durable functions."""

from stepwell.durable._function import DurableFunction, durable_execution
from stepwell.durable.lambda_service import InvocationStatus

__all__ = ["DurableFunction", "InvocationStatus", "durable_execution"]
