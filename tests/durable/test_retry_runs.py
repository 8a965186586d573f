"""Retries as a run sees them: who decides, what is on record, when the next attempt comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, Retry, StepConfig, durable_execution
from stepwell.durable import StepContext, StepError, ValidationError, durable_step
from stepwell.durable.exceptions import RetryableSerDesError
from stepwell.durable.retries import RetryDecision, RetryPresets, RetryStrategyConfig, create_retry_strategy
from stepwell.durable.serdes import SerDes, SerDesContext
from tests.durable.kit import FAST, NEVER, Once, Plug, names, raiser, records

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.durable.conftest import Run

QUICK = create_retry_strategy(RetryStrategyConfig(max_attempts=3, initial_delay=0.002, jitter_strategy="NONE"))  # type: ignore[arg-type]


def always(calls: list[int]) -> Callable[[], Any]:
    def body() -> Any:
        calls.append(1)
        raise ConnectionError("away")

    return body


@pytest.mark.parametrize("retry", [FAST, QUICK], ids=["Retry", "create_retry_strategy"])
def test_attempts_count_the_first(run: Run, retry: Any) -> None:
    calls: list[int] = []
    with pytest.raises(ConnectionError, match="away"):
        run(durable_execution(lambda event, context: context.step(always(calls), name="s", retry=retry)), id="r")
    assert len(calls) == 3
    assert names(run.engine, "r")[1:] == [
        "StepStarted s", "StepRetryPlanned s", "StepStarted s", "StepRetryPlanned s", "StepStarted s", "StepFailed s",
        "RunFailed",
    ]  # fmt: skip


def test_the_error_says_how_many_attempts_there_were(run: Run) -> None:
    seen: list[int | None] = []

    @durable_execution
    def handler(event: Any, context: Any) -> None:
        try:
            context.step(always([]), name="s", retry=FAST)
        except StepError as error:
            seen.append(error.attempts)

    run(handler)
    assert seen == [3]


def test_the_record_of_a_planned_retry(run: Run) -> None:
    once = Once(ConnectionError("away"))
    run(durable_execution(lambda event, context: context.step(once, name="s", retry=FAST)), id="r")
    planned = [r for r in run.engine.get_run("r").history() if r["record"] == "StepRetryPlanned"]
    assert [(p["key"], p["attempt"], p["until"] - p["at"]) for p in planned] == [("s", 1, 1000)]
    assert planned[0]["error"]


def test_a_strategy_gets_the_error_and_the_attempts_made(run: Run) -> None:
    asked: list[tuple[str, int]] = []

    def strategy(error: Exception, attempts: int) -> RetryDecision:
        asked.append((str(error), attempts))
        return RetryDecision.retry(0.001) if attempts < 3 else RetryDecision.no_retry()

    with pytest.raises(ConnectionError):
        run(durable_execution(lambda event, context: context.step(always([]), retry=strategy)))
    assert asked == [("away", 1), ("away", 2), ("away", 3)]


@pytest.mark.parametrize("bad", [lambda error, n: True, lambda error, n: None, lambda error, n: 1 / 0])
def test_a_strategy_that_cannot_be_used_fails_the_step(run: Run, bad: Any) -> None:
    with pytest.raises(ValidationError) as failed:
        run(durable_execution(lambda event, context: context.step(always([]), name="s", retry=bad)), id="r")
    assert "strategy" in str(failed.value)
    assert run.keys("r", "StepFailed") == ["s"]


@pytest.mark.parametrize(
    "error",
    [TypeError, NameError, ImportError, SyntaxError, NotImplementedError, AssertionError, ValidationError],
)
def test_the_default_does_not_retry_mistakes_in_code(run: Run, error: type[Exception]) -> None:
    with pytest.raises(error):
        run(durable_execution(lambda event, context: context.step(raiser(error("no")), name="s")), id="r")
    assert run.keys("r", "StepRetryPlanned") == []


def test_the_default_retries_what_may_mend(run: Run) -> None:
    handle = run.engine.start_run(durable_execution(lambda event, context: context.step(always([]), name="s")), id="r")
    with pytest.raises(TimeoutError):
        handle.wait(0.02)
    assert run.keys("r", "StepRetryPlanned") == ["s"]


def test_an_explicit_strategy_retries_whatever_it_says(run: Run) -> None:
    once = Once(TypeError("no"))
    assert run(durable_execution(lambda event, context: context.step(once, name="s", retry=FAST))) == 2


def counting(calls: list[str], name: str) -> Any:
    def strategy(error: Exception, attempts: int) -> RetryDecision:
        calls.append(name)
        return RetryDecision.no_retry()

    return strategy


@pytest.mark.parametrize("level", ["step", "config", "function", "engine"])
def test_who_decides(level: str) -> None:
    asked: list[str] = []
    engine = Engine("memory://who-decides", retry=counting(asked, "engine"))
    given: dict[str, Any] = {}
    if level == "step":
        given = {"retry": counting(asked, "step"), "config": StepConfig(counting(asked, "config"))}
    if level == "config":
        given = {"config": StepConfig(counting(asked, "config"))}
    retry = None if level == "engine" else counting(asked, "function")
    handler = durable_execution(retry=retry)(lambda event, context: context.step(always([]), name="s", **given))
    try:
        with pytest.raises(ConnectionError):
            engine.run(handler)
    finally:
        engine.stop()
    assert asked == [level]


def test_filters_by_type_and_text(run: Run) -> None:
    config = RetryStrategyConfig(3, 0.001, 1, retryable_errors=["busy"], retryable_error_types=[KeyError])
    strategy = create_retry_strategy(config)

    def attempts(error: Exception) -> int:
        calls: list[int] = []

        def body() -> None:
            calls.append(1)
            raise error

        with pytest.raises(type(error)):
            run(durable_execution(lambda event, context: context.step(body, name="s", retry=strategy)))
        return len(calls)

    assert attempts(RuntimeError("it is busy")) == 3
    assert attempts(KeyError("x")) == 3
    assert attempts(RuntimeError("idle")) == 1


def test_jitter_depends_on_run_key_and_attempt_only() -> None:
    retry = Retry(2, delay=0.02, jitter="full")

    def delays(name: str) -> list[int]:
        engine = Engine(f"memory://jitter-{name}")
        try:
            for step in ("a", "b"):
                once = Once(ConnectionError())
                handler = durable_execution(lambda event, context: context.step(once, name=step, retry=retry))  # noqa: B023
                engine.run(handler, id=f"r{step}")
            found = [r for s in "ab" for r in engine.get_run(f"r{s}").history() if r["record"] == "StepRetryPlanned"]
            return [r["until"] - r["at"] for r in found]
        finally:
            engine.stop()

    one, two = delays("one"), delays("two")
    assert one == two
    assert one[0] != one[1]
    assert all(0 <= delay <= 20_000 for delay in one)


def test_a_crash_during_an_attempt_uses_no_budget(run: Run) -> None:
    attempts: list[int] = []
    errors: list[BaseException] = [ConnectionError("1"), Plug(), ConnectionError("2")]

    @durable_step
    def body(context: StepContext) -> int:
        attempts.append(context.attempt)
        if errors:
            raise errors.pop(0)
        return context.attempt

    handler = durable_execution(lambda event, context: context.step(body(), retry=FAST))
    with pytest.raises(Plug):
        run(handler, id="r")
    assert run(handler, id="r") == 3
    assert attempts == [1, 2, 2, 3]
    assert [r["attempt"] for r in records(run.engine, "r") if r["record"] == "StepStarted"] == [1, 2, 3]


class Flaky(SerDes[Any]):
    """Fails to write, twice."""

    calls = 0

    def serialize(self, value: Any, serdes_context: SerDesContext) -> str:
        self.calls += 1
        if self.calls < 3:
            raise RetryableSerDesError("store is away")
        return str(value)

    def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:
        return int(data)


def test_a_retryable_serdes_error_goes_to_the_strategy(run: Run) -> None:
    handler = durable_execution(lambda event, context: context.step(lambda: 4, name="s", retry=FAST, serdes=Flaky()))
    assert run(handler, id="r") == 4
    assert run.keys("r", "StepRetryPlanned") == ["s", "s"]


def test_none_preset_is_one_attempt(run: Run) -> None:
    calls: list[int] = []
    with pytest.raises(ConnectionError):
        run(durable_execution(lambda event, context: context.step(always(calls), retry=RetryPresets.none())))
    assert calls == [1]


def test_on_of_the_short_form(run: Run) -> None:
    retry = Retry(3, delay=0.001, on=(KeyError,))
    calls: list[int] = []
    with pytest.raises(ConnectionError):
        run(durable_execution(lambda event, context: context.step(always(calls), retry=retry)))
    assert calls == [1]


@pytest.mark.parametrize("hold", [0, 60])
def test_a_retry_parks_the_run(hold: float) -> None:
    engine, once = Engine(f"memory://parks-{hold}", hold=hold), Once(ConnectionError())
    try:
        engine.run(durable_execution(lambda event, context: context.step(once, name="s", retry=FAST)), id="r")
        assert "Parked" in [r["record"] for r in engine.get_run("r").history()]
    finally:
        engine.stop()


def test_retry_of_a_failed_run_gives_a_fresh_budget(run: Run) -> None:
    calls: list[int] = []

    def body() -> int:
        calls.append(1)
        if len(calls) <= 4:
            raise ConnectionError
        return len(calls)

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        return [context.step(body, name="s", retry=FAST), context.attempt_of_run]

    with pytest.raises(ConnectionError):
        run(handler, id="r")
    assert run.engine.get_run("r").retry() == [5, 2]


def test_retry_does_not_run_finished_steps(run: Run) -> None:
    good: list[int] = []
    bad = Once(ConnectionError())

    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda: good.append(1), name="good")
        return context.step(bad, name="bad", retry=NEVER)

    with pytest.raises(ConnectionError):
        run(handler, id="r")
    assert run.engine.get_run("r").retry() == 2
    assert good == [1]
