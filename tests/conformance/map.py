"""Handlers of the outside suite ``map``, as its requirement files describe them."""

from __future__ import annotations

from typing import Any

from stepwell.durable import BatchResult, DurableContext, durable_execution
from stepwell.durable.concurrency.models import BatchItem, BatchItemStatus, CompletionReason
from stepwell.durable.config import CompletionConfig, MapConfig, NestingType
from stepwell.durable.serdes import DEFAULT_JSON_SERDES, SerDes, SerDesContext
from tests.conformance.handlers import Handlers

HANDLERS = Handlers()


def one_by_one(**more: Any) -> MapConfig[Any]:
    return MapConfig(max_concurrency=1, **more)


def told(result: BatchResult[Any], *parts: str) -> dict[str, Any]:
    """What a handler tells of a map's result."""
    everything = {
        "completionReason": result.completion_reason.value,
        "status": result.status.value,
        "successCount": result.success_count,
        "failureCount": result.failure_count,
        "totalCount": result.total_count,
    }
    return {part: everything[part] for part in parts or everything}


def obey(context: DurableContext, item: str) -> str:
    """An item's body: it does what the item says."""
    if item == "fail":
        raise RuntimeError("the item failed")
    return item


def shout(context: DurableContext, item: str) -> str:
    return item.upper()


@HANDLERS.case("9-1")
@durable_execution
def basic(event: list[str], context: DurableContext) -> list[str]:
    def greet(item_context: DurableContext, item: str) -> str:
        return item_context.step(lambda _: f"Hello, {item}!", name="greet")

    return context.map(event, greet, name="map", config=one_by_one()).get_results()


@HANDLERS.case("9-2")
@durable_execution
def items_only(event: list[int], context: DurableContext) -> list[int]:
    return context.map(event, lambda _, item: item * 2, config=one_by_one()).get_results()


@HANDLERS.case("9-3")
@durable_execution
def indexed(event: list[int], context: DurableContext) -> list[int]:
    return context.map(event, lambda _, item, index: item + index, name="indexed", config=one_by_one()).get_results()


@HANDLERS.case("9-4")
@durable_execution
def empty(event: list[int], context: DurableContext) -> list[int]:
    return context.map(event, lambda _, item: item, name="empty").get_results()


@HANDLERS.case("9-5")
@durable_execution
def fail_fast(event: Any, context: DurableContext) -> Any:
    config = one_by_one(completion_config=CompletionConfig(tolerated_failure_count=0))
    return told(context.map(["ok", "fail", "ok"], obey, name="failfast", config=config))


@HANDLERS.case("9-6")
@durable_execution
def throwing(event: Any, context: DurableContext) -> None:
    config = one_by_one(completion_config=CompletionConfig(tolerated_failure_count=0))
    context.map(["fail", "ok"], obey, name="throwing", config=config).throw_if_error()


@HANDLERS.case("9-7")
@durable_execution
def min_successful(event: Any, context: DurableContext) -> Any:
    config = one_by_one(completion_config=CompletionConfig(min_successful=2))
    result = context.map(["a", "b", "c", "d"], obey, name="min-successful", config=config)
    return told(result, "completionReason", "successCount", "totalCount")


@HANDLERS.case("9-8")
@durable_execution
def tolerated(event: Any, context: DurableContext) -> Any:
    config = one_by_one(completion_config=CompletionConfig(tolerated_failure_count=1))
    return told(context.map(["ok", "fail", "ok"], obey, name="tolerated", config=config))


@HANDLERS.case("9-9")
@durable_execution
def tolerated_exceeded(event: Any, context: DurableContext) -> Any:
    config = one_by_one(completion_config=CompletionConfig(tolerated_failure_count=1))
    result = context.map(["fail", "fail", "ok"], obey, name="tolerated-exceeded", config=config)
    return told(result, "completionReason", "successCount", "failureCount", "totalCount")


@HANDLERS.case("9-10")
@durable_execution
def percentage_exceeded(event: Any, context: DurableContext) -> Any:
    config = one_by_one(completion_config=CompletionConfig(tolerated_failure_percentage=25))
    result = context.map(["fail", "fail", "ok", "ok"], obey, name="tolerated-pct", config=config)
    return told(result, "completionReason", "successCount", "failureCount", "totalCount")


@HANDLERS.case("9-11")
@durable_execution
def concurrent(event: Any, context: DurableContext) -> list[str]:
    return context.map(["r0", "r1", "r2"], obey, name="concurrent", config=MapConfig(max_concurrency=2)).get_results()


@HANDLERS.case("9-12")
@durable_execution
def flat(event: Any, context: DurableContext) -> list[str]:
    def body(item_context: DurableContext, item: str) -> str:
        return item_context.step(lambda _: item, name="give")

    config = one_by_one(nesting_type=NestingType.FLAT)
    return context.map(["fa", "fb"], body, name="flat", config=config).get_results()


@HANDLERS.case("9-13")
@durable_execution
def named_items(event: list[int], context: DurableContext) -> list[int]:
    config = one_by_one(item_namer=lambda item, index: f"item-{item}")
    return context.map(event, lambda _, item: item * 10, name="named-items", config=config).get_results()


class Wrapped(SerDes[str]):
    def serialize(self, value: str, serdes_context: SerDesContext) -> str:
        return f"wrapped:{value}"

    def deserialize(self, data: str, serdes_context: SerDesContext) -> str:
        return data.removeprefix("wrapped:")


@HANDLERS.case("9-14")
@durable_execution
def item_serdes(event: Any, context: DurableContext) -> list[str]:
    return context.map(["x", "y"], shout, name="serdes", config=one_by_one(item_serdes=Wrapped())).get_results()


@HANDLERS.case("9-15")
@durable_execution
def suspend(event: Any, context: DurableContext) -> list[str]:
    def body(item_context: DurableContext, item: str, index: int) -> str:
        if index == 1:
            item_context.wait(1)
        return item_context.step(lambda _: item, name="give")

    return context.map(["r0", "r1"], body, name="suspend", config=one_by_one()).get_results()


@HANDLERS.case("9-16")
@durable_execution
def large(event: Any, context: DurableContext) -> Any:
    result = context.map(["a", "b", "c", "d"], lambda _, item: item * 70_000, name="large", config=one_by_one())
    return told(result, "successCount", "totalCount")


@HANDLERS.case("9-17")
@durable_execution
def then_wait(event: Any, context: DurableContext) -> list[str]:
    result = context.map(["a", "b"], shout, name="then-wait", config=one_by_one())
    context.wait(1)
    return result.get_results()


@HANDLERS.case("9-18")
@durable_execution
def fail_then_wait(event: Any, context: DurableContext) -> Any:
    config = one_by_one(completion_config=CompletionConfig(tolerated_failure_count=1))
    result = context.map(["ok", "fail"], obey, name="fail-then-wait", config=config)
    context.wait(1)
    return told(result)


class Joined(SerDes[BatchResult[str]]):
    """A whole result in one line."""

    def serialize(self, value: BatchResult[str], serdes_context: SerDesContext) -> str:
        return f"OPSERDE:{','.join(value.get_results())}"

    def deserialize(self, data: str, serdes_context: SerDesContext) -> BatchResult[str]:
        parts = data.removeprefix("OPSERDE:").split(",")
        items = [BatchItem(index, BatchItemStatus.SUCCEEDED, part) for index, part in enumerate(parts)]
        return BatchResult(items, CompletionReason.ALL_COMPLETED)


@HANDLERS.case("9-19")
@durable_execution
def whole_serdes(event: Any, context: DurableContext) -> list[str]:
    return context.map(
        ["x", "y"], shout, name="op-serde", config=one_by_one(serdes=Joined(), item_serdes=DEFAULT_JSON_SERDES)
    ).get_results()


@HANDLERS.case("9-20")
@durable_execution
def whole_serdes_replayed(event: Any, context: DurableContext) -> list[str]:
    result = context.map(
        ["x", "y"], shout, name="op-serde-replay", config=one_by_one(serdes=Joined(), item_serdes=DEFAULT_JSON_SERDES)
    )
    context.wait(1)
    return result.get_results()
