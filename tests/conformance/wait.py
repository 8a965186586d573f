"""Handlers of the outside suite ``wait``, as its requirement files describe them."""

from __future__ import annotations

from typing import Any

from stepwell.durable import DurableContext, durable_execution
from stepwell.durable.config import Duration
from tests.conformance.handlers import Handlers

HANDLERS = Handlers()


@HANDLERS.case("2-1")
@durable_execution
def basic(event: Any, context: DurableContext) -> None:
    context.wait(Duration.from_seconds(2))


@HANDLERS.case("2-2")
@durable_execution
def named(event: Any, context: DurableContext) -> None:
    context.wait(Duration.from_seconds(2), name="custom_wait_name")


@HANDLERS.case("2-3")
@durable_execution
def sequential(event: Any, context: DurableContext) -> dict[str, int]:
    context.wait(Duration.from_seconds(2), name="wait-1")
    context.wait(Duration.from_seconds(2), name="wait-2")
    return {"completedWaits": 2}


@HANDLERS.case("2-4")
@durable_execution
def one_minute(event: Any, context: DurableContext) -> None:
    context.wait(Duration.from_minutes(1))


@HANDLERS.case("2-5")
@durable_execution
def one_hour(event: Any, context: DurableContext) -> None:
    context.wait(Duration.from_hours(1))
