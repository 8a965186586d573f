"""Handlers of the outside suite ``child``, as its requirement files describe them."""

from __future__ import annotations

from typing import Any

from stepwell.durable import ChildContextError, DurableContext, StepConfig, StepContext, durable_execution, durable_step
from stepwell.durable.config import ChildConfig
from stepwell.durable.retries import RetryPresets
from tests.conformance.crash import crashing, end_process, first_life
from tests.conformance.handlers import Handlers
from tests.conformance.step import Uppercase, after_one_second

HANDLERS = Handlers()
LARGE = 300_000


@durable_step
def given(context: StepContext, value: Any) -> Any:
    return value


@durable_step
def fail(context: StepContext) -> None:
    raise RuntimeError("the step failed")


def returning(value: Any) -> Any:
    """A child's body with one step."""

    def child(context: DurableContext) -> Any:
        return context.step(given(value))

    return child


def failing(context: DurableContext) -> None:
    context.step(fail(), config=StepConfig(RetryPresets.none()))


def waiting(value: Any, *, step: bool) -> Any:
    def child(context: DurableContext) -> Any:
        found = context.step(given(value)) if step else value
        context.wait(1)
        return found

    return child


@HANDLERS.case("3-1")
@durable_execution
def basic(event: str, context: DurableContext) -> Any:
    return context.run_in_child_context(returning(event))


@HANDLERS.case("3-2")
@durable_execution
def named(event: dict[str, str], context: DurableContext) -> Any:
    return context.run_in_child_context(returning(event["value"]), name=event["name"])


@HANDLERS.case("3-3")
@durable_execution
def sequential(event: str, context: DurableContext) -> Any:
    def child(inner: DurableContext) -> Any:
        first = inner.step(given(event), name="first")
        return inner.step(given(first), name="second")

    return context.run_in_child_context(child, name="child")


@HANDLERS.case("3-4")
@durable_execution
def fails(event: Any, context: DurableContext) -> Any:
    return context.run_in_child_context(failing, name="child")


@HANDLERS.case("3-5")
@durable_execution
def caught(event: str, context: DurableContext) -> Any:
    try:
        context.run_in_child_context(failing, name="child")
    except ChildContextError:
        return context.step(given(event), name="recover")
    return None


@HANDLERS.case("3-6")
@durable_execution
def nested(event: str, context: DurableContext) -> Any:
    def outer(child: DurableContext) -> Any:
        child.step(given(event))
        return child.run_in_child_context(returning(event), name="inner")

    return context.run_in_child_context(outer, name="outer")


@HANDLERS.case("3-7")
@durable_execution
def retried(event: str, context: DurableContext) -> Any:
    @durable_step
    def second_time(step_context: StepContext) -> str:
        if step_context.attempt == 1:
            raise RuntimeError("not yet")
        return event

    def child(inner: DurableContext) -> Any:
        return inner.step(second_time(), config=StepConfig(after_one_second(3)))

    return context.run_in_child_context(child, name="child")


@HANDLERS.case("3-8")
@durable_execution
def exhausted(event: Any, context: DurableContext) -> Any:
    def child(inner: DurableContext) -> Any:
        return inner.step(fail(), config=StepConfig(after_one_second(2)))

    return context.run_in_child_context(child, name="child")


@HANDLERS.case("3-9")
@durable_execution
def replayed(event: str, context: DurableContext) -> Any:
    value = context.run_in_child_context(returning(event))
    context.wait(1)
    return value


@HANDLERS.case("3-10")
@durable_execution
def step_and_wait(event: str, context: DurableContext) -> Any:
    return context.run_in_child_context(waiting(event, step=True), name="child")


@HANDLERS.case("3-11")
@durable_execution
def large(event: str, context: DurableContext) -> int:
    def child(inner: DurableContext) -> str:
        inner.logger.with_is_replaying(lambda: False).info(event)
        return str(inner.step(given("x"))) * LARGE

    text = context.run_in_child_context(child, name="large")
    context.wait(1)
    assert text == "x" * LARGE
    return len(text)


@HANDLERS.case("3-12")
@crashing
@durable_execution
def interrupted(event: str, context: DurableContext) -> Any:
    @durable_step
    def crash_once(step_context: StepContext) -> str:
        if first_life(context):
            end_process(step_context)
        return event

    return context.run_in_child_context(lambda inner: inner.step(crash_once()), name="child")


@HANDLERS.case("3-13")
@durable_execution
def wait_inside(event: str, context: DurableContext) -> Any:
    value = context.run_in_child_context(waiting(event, step=False), name="child")
    return context.step(given(value))


@HANDLERS.case("3-14")
@durable_execution
def custom_serdes(event: str, context: DurableContext) -> Any:
    return context.run_in_child_context(returning(event), name="child", config=ChildConfig(serdes=Uppercase()))


@HANDLERS.case("3-15")
@durable_execution
def raises(event: Any, context: DurableContext) -> Any:
    def child(inner: DurableContext) -> None:
        raise RuntimeError("the child failed")

    return context.run_in_child_context(child, name="child")


@HANDLERS.case("3-16")
@durable_execution
def null_result(event: Any, context: DurableContext) -> None:
    return context.run_in_child_context(lambda _: None, name="child")


@HANDLERS.case("3-17")
@durable_execution
def logger_only(event: str, context: DurableContext) -> Any:
    def child(inner: DurableContext) -> str:
        inner.logger.with_is_replaying(lambda: False).info(event)
        return event

    value = context.run_in_child_context(child, name="child")
    context.wait(1)
    return value


@HANDLERS.case("3-18")
@durable_execution
def inside_and_after(event: str, context: DurableContext) -> Any:
    value = context.run_in_child_context(waiting(event, step=True), name="child")
    value = context.step(given(value))
    context.wait(1)
    return value
