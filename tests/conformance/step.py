"""Handlers of the outside suite ``step``, as its requirement files describe them."""

from __future__ import annotations

from typing import Any

from stepwell.durable import (
    DurableContext,
    StepConfig,
    StepContext,
    StepError,
    StepSemantics,
    durable_execution,
    durable_step,
)
from stepwell.durable.config import JitterStrategy
from stepwell.durable.retries import RetryDecision, RetryPresets, RetryStrategyConfig, create_retry_strategy
from stepwell.durable.serdes import SerDes, SerDesContext
from tests.conformance.crash import crashing, end_process, first_life
from tests.conformance.handlers import Handlers

HANDLERS = Handlers()
NO_RETRY = StepConfig(RetryPresets.none())


class TransientError(Exception):
    pass


def after_one_second(attempts: int) -> Any:
    return create_retry_strategy(
        RetryStrategyConfig(
            max_attempts=attempts, initial_delay_seconds=1, backoff_rate=1, jitter_strategy=JitterStrategy.NONE
        )
    )


@durable_step
def greet(context: StepContext, name: str) -> str:
    return f"Hello, {name}!"


@durable_step
def fail(context: StepContext) -> str:
    raise RuntimeError("Something went wrong")


@durable_step
def fail_before(context: StepContext, attempt: int, value: str) -> str:
    """Fails in every attempt before this one."""
    if context.attempt < attempt:
        raise TransientError(f"attempt {context.attempt} failed")
    return value


@HANDLERS.case("1-1")
@durable_execution
def basic(event: str, context: DurableContext) -> str:
    return context.step(greet(event))


@HANDLERS.case("1-2")
@durable_execution
def named(event: str, context: DurableContext) -> str:
    return context.step(greet(event), name="custom_step_name")


@HANDLERS.case("1-3")
@durable_execution
def sequential(event: Any, context: DurableContext) -> str:
    first = context.step(lambda _: "first", name="step_one")
    return context.step(lambda _: f"{first}_second", name="step_two")


@HANDLERS.case("1-4")
@durable_execution
def complex_object(event: dict[str, Any], context: DurableContext) -> Any:
    user = {"name": event["name"], "tags": event["tags"]}
    return context.step(lambda _: {"user": user, "count": len(event["tags"])}, name="build_response")


@HANDLERS.case("1-5")
@durable_execution
def null_result(event: Any, context: DurableContext) -> None:
    return context.step(lambda _: None, name="do_nothing")


class Uppercase(SerDes[str]):
    def serialize(self, value: str, serdes_context: SerDesContext) -> str:
        return value.upper()

    def deserialize(self, data: str, serdes_context: SerDesContext) -> str:
        return data


@HANDLERS.case("1-6")
@durable_execution
def custom_serdes(event: str, context: DurableContext) -> str:
    return context.step(lambda _: event, name="return_input", config=StepConfig(serdes=Uppercase()))


@HANDLERS.case("1-7")
@durable_execution
def step_logger(event: str, context: DurableContext) -> str:
    @durable_step
    def logged(step_context: StepContext) -> str:
        step_context.logger.info("Greeting step started for: %s", event)
        greeting = f"Hello, {event}!"
        step_context.logger.info("Greeting step completed with: %s", greeting)
        return greeting

    return context.step(logged())


@HANDLERS.case("1-8")
@durable_execution
def step_and_wait(event: Any, context: DurableContext) -> str:
    value = context.step(lambda _: "computed", name="compute")
    context.wait(2)
    return value


@HANDLERS.case("1-9")
@durable_execution
def skips_succeeded(event: Any, context: DurableContext) -> str:
    def body(step_context: StepContext) -> str:
        step_context.logger.info("step executed")
        return "cached_value"

    value = context.step(body, name="once")
    context.wait(1)
    return value


@HANDLERS.case("1-10")
@durable_execution
def throws_again(event: Any, context: DurableContext) -> str:
    caught = ""
    try:
        context.step(fail(), config=NO_RETRY)
    except StepError as error:
        caught = str(error)
    context.wait(1)
    return caught


@HANDLERS.case("1-11")
@durable_execution
def retried(event: Any, context: DurableContext) -> str:
    return context.step(fail_before(2, "Operation succeeded"), config=StepConfig(after_one_second(3)))


@HANDLERS.case("1-12")
@durable_execution
def exhausted(event: Any, context: DurableContext) -> str:
    return context.step(fail(), config=StepConfig(after_one_second(4)))


@HANDLERS.case("1-13")
@durable_execution
def default_retry(event: Any, context: DurableContext) -> str:
    return context.step(fail_before(3, "at last"))


@HANDLERS.case("1-14")
@durable_execution
def backoff(event: Any, context: DurableContext) -> str:
    config = RetryStrategyConfig(
        max_attempts=5, initial_delay_seconds=2, backoff_rate=3, jitter_strategy=JitterStrategy.NONE
    )
    return context.step(fail_before(3, "at last"), config=StepConfig(create_retry_strategy(config)))


@HANDLERS.case("1-15")
@durable_execution
def specific_error(event: Any, context: DurableContext) -> str:
    config = RetryStrategyConfig(
        initial_delay_seconds=1, jitter_strategy=JitterStrategy.NONE, retryable_error_types=[TransientError]
    )
    return context.step(fail_before(2, "at last"), config=StepConfig(create_retry_strategy(config)))


@HANDLERS.case("1-16")
@durable_execution
def specific_error_fails(event: Any, context: DurableContext) -> str:
    def strategy(error: Exception, attempts_made: int) -> RetryDecision:
        return RetryDecision.no_retry() if isinstance(error, TransientError) else RetryDecision.retry(1)

    return context.step(fail_before(2, "never"), config=StepConfig(strategy))


@durable_step
def log_and_crash(step_context: StepContext, event: str, *, crash: bool) -> str:
    step_context.logger.info(event)
    if crash:
        end_process(step_context)
    return "succeeded on second attempt"


@HANDLERS.case("1-17")
@crashing
@durable_execution
def at_most_once(event: str, context: DurableContext) -> str:
    config = StepConfig(step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY)
    return context.step(log_and_crash(event, crash=True), "at_most_once_flaky_step", config)


@HANDLERS.case("1-18")
@crashing
@durable_execution
def at_most_once_retried(event: str, context: DurableContext) -> str:
    config = StepConfig(after_one_second(3), StepSemantics.AT_MOST_ONCE_PER_RETRY)
    return context.step(log_and_crash(event, crash=first_life(context)), "at_most_once_flaky_step", config)


@HANDLERS.case("1-19")
@durable_execution
def fails_for_good(event: Any, context: DurableContext) -> str:
    return context.step(fail(), config=NO_RETRY)


@HANDLERS.case("1-20")
@durable_execution
def caught_and_handled(event: Any, context: DurableContext) -> str:
    try:
        return context.step(fail(), config=NO_RETRY)
    except StepError:
        return context.step(lambda _: "fallback_result", name="fallback")
