"""At most once: an attempt that a crash interrupted may or may not have run, and is not simply run again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, StepConfig, StepSemantics, durable_execution
from stepwell.durable import StepContext, StepError, StepInterruptedError, durable_step
from stepwell.durable.retries import RetryDecision
from tests.durable.kit import FAST, NEVER, Once, Plug, names, records

if TYPE_CHECKING:
    from tests.durable.conftest import Run

CONFIG = StepConfig(step_semantics=StepSemantics.AT_MOST_ONCE_PER_RETRY)
TEXT = "step 'charge' was interrupted in attempt 1; it may or may not have run"


@pytest.mark.parametrize("given", [{"config": CONFIG}, {"at_most_once": True}], ids=["config", "keyword"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), Plug()], ids=repr)
def test_the_default_does_not_repeat_it(run: Run, given: dict[str, Any], error: BaseException) -> None:
    charge = Once(error)
    handler = durable_execution(lambda event, context: context.step(charge, name="charge", **given))
    with pytest.raises(type(error)):
        run(handler, id="r")
    with pytest.raises(StepInterruptedError) as failed:
        run(handler, id="r")
    assert isinstance(failed.value, StepError)
    assert TEXT in str(failed.value)
    assert charge.calls == 1
    assert names(run.engine, "r") == ["RunStarted", "StepStarted charge", "StepFailed charge", "RunFailed"]


def test_an_explicit_strategy_decides(run: Run) -> None:
    asked: list[tuple[bool, str, int]] = []
    attempts: list[int] = []
    plug = Once(Plug())

    def strategy(error: Exception, made: int) -> RetryDecision:
        asked.append((isinstance(error, StepInterruptedError), str(error), made))
        return RetryDecision.retry(0.002)

    @durable_step
    def charge(context: StepContext) -> int:
        attempts.append(context.attempt)
        return plug()

    handler = durable_execution(lambda event, context: context.step(charge(), at_most_once=True, retry=strategy))
    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == 2
    assert attempts == [1, 2]
    assert asked == [(True, TEXT, 1)]
    assert run.keys("r", "StepRetryPlanned") == ["charge"]


def test_the_start_is_durable_before_the_body(run: Run) -> None:
    seen: list[list[str]] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        context.step(lambda: seen.append(names(run.engine, "r")), name="s", at_most_once=True)

    run(handler, id="r")
    assert seen == [["RunStarted", "StepStarted s"]]


def test_a_finished_one_gives_its_value(run: Run) -> None:
    charge, plug = Once(ValueError("unused")), Once(Plug())
    charge.calls = 1

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        found = context.step(charge, name="charge", at_most_once=True)
        context.step(plug, name="plug")
        return found

    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == 2
    assert charge.calls == 2


def test_ordinary_errors_are_retried_as_ever(run: Run) -> None:
    once = Once(ConnectionError())
    assert (
        run(durable_execution(lambda event, context: context.step(once, name="s", at_most_once=True, retry=FAST))) == 2
    )


def test_the_handler_may_catch_it(run: Run) -> None:
    charge = Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> str:
        try:
            context.step(charge, name="charge", at_most_once=True, retry=NEVER)
        except StepInterruptedError as error:
            return str(error)
        return "charged"

    with pytest.raises(Plug):
        run(handler, id="r")
    assert TEXT in run(handler, id="r")


def test_a_later_attempt_that_is_lost_says_its_number(run: Run) -> None:
    errors: list[BaseException] = [ConnectionError(), Plug()]

    def charge() -> None:
        if errors:
            raise errors.pop(0)

    retry = lambda error, made: RetryDecision.retry(0.001) if made < 2 else RetryDecision.no_retry()  # noqa: E731
    handler = durable_execution(
        lambda event, context: context.step(charge, name="charge", at_most_once=True, retry=retry)
    )
    with pytest.raises(Plug):
        run(handler, id="r")
    with pytest.raises(StepInterruptedError, match="in attempt 2"):
        run(handler, id="r")


def test_in_branches() -> None:
    engine, charge = Engine("memory://amo-branches"), Once(Plug())

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        batch = context.parallel([lambda c: c.step(charge, name="charge", at_most_once=True)], "p")
        return [error.type for error in batch.get_errors()]

    try:
        with pytest.raises(Plug):
            engine.run(handler, id="r")
        assert len(engine.run(handler, id="r")) == 1
        assert charge.calls == 1
        assert [r["key"] for r in records(engine, "r") if r["record"] == "StepFailed"] == ["p[0]/charge"]
    finally:
        engine.stop()
