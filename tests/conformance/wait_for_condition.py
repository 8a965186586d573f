"""Handlers of the outside suite ``wait_for_condition``, as its requirement files describe them."""

from __future__ import annotations

from typing import Any

from stepwell.durable import DurableContext, WaitForConditionError, durable_execution
from stepwell.durable.config import JitterStrategy
from stepwell.durable.serdes import SerDes, SerDesContext
from stepwell.durable.waits import (
    WaitForConditionConfig,
    WaitForConditionDecision,
    WaitStrategyConfig,
    create_wait_strategy,
)
from tests.conformance.handlers import Handlers

HANDLERS = Handlers()


def increment(state: int, context: Any) -> int:
    return state + 1


def until(threshold: int, initial: int = 0, seconds: int = 1) -> WaitForConditionConfig[int]:
    def strategy(state: int, attempts: int) -> WaitForConditionDecision:
        if state >= threshold:
            return WaitForConditionDecision.stop_polling()
        return WaitForConditionDecision.continue_waiting(seconds)

    return WaitForConditionConfig(strategy, initial)


def fixed(seconds: int, attempts: int, going_on: Any) -> Any:
    return create_wait_strategy(
        WaitStrategyConfig(
            going_on,
            max_attempts=attempts,
            initial_delay_seconds=seconds,
            backoff_rate=1,
            jitter_strategy=JitterStrategy.NONE,
        )
    )


@HANDLERS.case("6-1")
@durable_execution
def basic(event: int, context: DurableContext) -> int:
    return context.wait_for_condition(increment, until(event))


@HANDLERS.case("6-2")
@durable_execution
def at_once(event: int, context: DurableContext) -> int:
    return context.wait_for_condition(lambda state, _: state, until(event, initial=5))


@HANDLERS.case("6-3")
@durable_execution
def named(event: int, context: DurableContext) -> int:
    return context.wait_for_condition(increment, until(event), name="poll-status")


@HANDLERS.case("6-4")
@durable_execution
def initial_state(event: int, context: DurableContext) -> int:
    return context.wait_for_condition(increment, until(event, initial=5))


@HANDLERS.case("6-5")
@durable_execution
def fixed_delay(event: int, context: DurableContext) -> int:
    strategy = fixed(2, 60, lambda state: state < event)
    return context.wait_for_condition(increment, WaitForConditionConfig(strategy, 0))


@HANDLERS.case("6-6")
@durable_execution
def exhausted(event: Any, context: DurableContext) -> int:
    return context.wait_for_condition(increment, WaitForConditionConfig(fixed(1, 3, lambda _: True), 0))


def broken(state: Any, context: Any) -> Any:
    raise RuntimeError("the check failed")


@HANDLERS.case("6-7")
@durable_execution
def check_fails(event: Any, context: DurableContext) -> Any:
    return context.wait_for_condition(broken, until(1))


@HANDLERS.case("6-8")
@durable_execution
def check_fails_caught(event: Any, context: DurableContext) -> Any:
    try:
        return context.wait_for_condition(broken, until(1))
    except WaitForConditionError:
        return "recovered"


@HANDLERS.case("6-9")
@durable_execution
def object_state(event: Any, context: DurableContext) -> Any:
    def check(state: dict[str, Any], _: Any) -> dict[str, Any]:
        attempts = state["attempts"] + 1
        return {"status": "DONE" if attempts >= 2 else "PENDING", "attempts": attempts}

    strategy = fixed(1, 60, lambda state: state["status"] == "PENDING")
    return context.wait_for_condition(check, WaitForConditionConfig(strategy, {"status": "PENDING", "attempts": 0}))


@HANDLERS.case("6-10")
@durable_execution
def null_state(event: Any, context: DurableContext) -> None:
    def stop(state: None, attempts: int) -> WaitForConditionDecision:
        return WaitForConditionDecision.stop_polling()

    return context.wait_for_condition(lambda state, _: None, WaitForConditionConfig(stop, None))


class Reversed(SerDes[str]):
    def serialize(self, value: str, serdes_context: SerDesContext) -> str:
        return f"state={value[::-1]}"

    def deserialize(self, data: str, serdes_context: SerDesContext) -> str:
        assert data.startswith("state=")
        return data.removeprefix("state=")[::-1]


@HANDLERS.case("6-11")
@durable_execution
def custom_serdes(event: Any, context: DurableContext) -> str:
    strategy = fixed(1, 60, lambda state: len(state) < 2)
    config = WaitForConditionConfig(strategy, "", serdes=Reversed())
    return context.wait_for_condition(lambda state, _: state + "x", config)


@HANDLERS.case("6-12")
@durable_execution
def then_a_step(event: int, context: DurableContext) -> int:
    state = context.wait_for_condition(increment, until(event))
    return context.step(lambda _: state * 10, name="multiply")


@HANDLERS.case("6-13")
@durable_execution
def two_in_a_row(event: Any, context: DurableContext) -> int:
    first = context.wait_for_condition(increment, until(2))
    return context.wait_for_condition(increment, until(4, initial=first))
