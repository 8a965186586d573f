"""with_retry: a block of operations that is tried again as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import durable_execution, with_retry
from stepwell.durable import ChildContextError, StepError, ValidationError, WithRetryConfig
from stepwell.durable.config import ChildConfig
from stepwell.durable.retries import RetryDecision
from tests.durable.kit import FAST, NEVER, Once, Plug, names, records

if TYPE_CHECKING:
    from tests.durable.conftest import Run

QUICK: Any = WithRetryConfig(retry_strategy=FAST)
BARE: Any = WithRetryConfig(retry_strategy=FAST, wrap_with_run_in_child_context=False)


def until(good: int) -> Any:
    """A block whose step succeeds in attempt ``good``."""

    def block(context: Any, attempt: int) -> int:
        def body() -> int:
            if attempt < good:
                raise ValueError(attempt)
            return attempt

        return int(context.step(body, name="s", retry=NEVER))

    return block


@pytest.mark.parametrize(
    "call",
    [
        lambda c: with_retry(c, 3),  # type: ignore[arg-type]
        lambda c: with_retry(None, until(1)),
        lambda c: with_retry(c, until(1), 3),  # type: ignore[arg-type]
        lambda c: with_retry(c, until(1), QUICK, "x" * 257),
        lambda c: with_retry(c, until(1), BARE, "a\nb"),
    ],
)
def test_bad_arguments_write_nothing(run: Run, call: Any) -> None:
    with pytest.raises(ValidationError):
        run(durable_execution(lambda event, context: call(context)), id="r")
    assert names(run.engine, "r") == ["RunStarted", "RunFailed"]


def test_a_long_name_leaves_room_for_its_parts(run: Run) -> None:
    assert run(durable_execution(lambda event, context: with_retry(context, until(2), BARE, "x" * 256)), id="r") == 2
    assert run.keys("r", "WaitStarted") == ["x" * 246 + "-backoff-1"]


@pytest.mark.parametrize("colour", ["def", "async def"])
@pytest.mark.parametrize("config, prefix", [(QUICK, "b/"), (BARE, "")], ids=["wrapped", "bare"])
def test_its_records(run: Run, colour: str, config: Any, prefix: str) -> None:
    async def block(context: Any, attempt: int) -> int:
        def body() -> int:
            if attempt < 2:
                raise ValueError(attempt)
            return attempt

        return int(await context.step(body, name="s", retry=NEVER))

    def plain(event: Any, context: Any) -> Any:
        return with_retry(context, until(2), config, "b")

    async def coloured(event: Any, context: Any) -> Any:
        return await with_retry(context, block, config, "b")

    assert run(durable_execution(plain if colour == "def" else coloured), id="r") == 2
    inside = [
        f"StepStarted {prefix}s", f"StepFailed {prefix}s", f"WaitStarted {prefix}b-backoff-1",
        f"WaitEnded {prefix}b-backoff-1", f"StepStarted {prefix}s#2", f"StepSucceeded {prefix}s#2",
    ]  # fmt: skip
    around = [["ScopeStarted b"], ["ScopeSucceeded b"]] if prefix else [[], []]
    assert names(run.engine, "r") == ["RunStarted", *around[0], *inside, *around[1], "RunSucceeded"]


def test_without_name_waits_are_unnamed(run: Run) -> None:
    assert run(durable_execution(lambda event, context: with_retry(context, until(2), BARE)), id="r") == 2
    assert run.keys("r", "WaitStarted") == ["wait"]


def test_without_name_its_child_context_has_none(run: Run) -> None:
    assert run(durable_execution(lambda event, context: with_retry(context, until(1), QUICK)), id="r") == 1
    (started,) = [r for r in records(run.engine, "r") if r["record"] == "ScopeStarted"]
    assert (started["key"], started["name"]) == ("with_retry", None)


@pytest.mark.parametrize("config, kind", [(QUICK, ChildContextError), (BARE, StepError)], ids=["wrapped", "bare"])
def test_the_last_failure(run: Run, config: Any, kind: type[Exception]) -> None:
    seen: list[Any] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        try:
            with_retry(context, until(9), config, "b")
        except ValueError as error:
            seen.append(isinstance(error, kind))

    run(handler, id="r")
    assert seen == [True]
    assert len(run.keys("r", "StepStarted")) == 3


def test_any_error_of_the_block_counts(run: Run) -> None:
    def block(context: Any, attempt: int) -> int:
        if attempt < 3:
            raise LookupError
        return attempt

    assert run(durable_execution(lambda event, context: with_retry(context, block, QUICK, "b"))) == 3


def test_a_strategy_decides(run: Run) -> None:
    asked: list[int] = []

    def strategy(error: Exception, attempts: int) -> RetryDecision:
        asked.append(attempts)
        return RetryDecision.no_retry()

    config: Any = WithRetryConfig(retry_strategy=strategy)
    with pytest.raises(ValueError, match="1"):
        run(durable_execution(lambda event, context: with_retry(context, until(2), config, "b")))
    assert asked == [1]


def test_finished_attempts_are_not_run_again(run: Run) -> None:
    calls: list[int] = []
    plug = Once(Plug())

    def block(context: Any, attempt: int) -> int:
        context.step(lambda: calls.append(attempt), name="note")
        if attempt == 1:
            raise LookupError
        context.step(plug, name="plug")
        return attempt

    handler = durable_execution(lambda event, context: with_retry(context, block, QUICK, "b"))
    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == 2
    assert calls == [1, 2]


def test_the_child_can_be_configured(run: Run) -> None:
    config: Any = WithRetryConfig(FAST, child_context_config=ChildConfig(sub_type="Block"))
    run(durable_execution(lambda event, context: with_retry(context, until(1), config, "b")), id="r")
    assert run.engine.get_run("r").operations[0].sub_type == "Block"
