"""Signals and published values (durable.md §8)."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, Secret, UsageError, durable_execution
from stepwell.core import SignalTaken
from stepwell.durable import DurableOperationError, SerDesError, ValidationError
from stepwell.errors import RunFailed, UnknownRun
from stepwell.testing import DurableRunner
from tests.durable.kit import NEVER, giver, raiser, records
from tests.durable.twins import Way, at_every_append, coloured, journal, violations

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell import RunHandle

SOON = 30
"""Seconds: near enough for frames to be kept, and not met."""


async def one(event: Any, context: Any) -> Any:
    got = await context.wait_signal("go", timeout=SOON)
    return [got, await context.step(giver("after"), name="after")]


async def three(event: Any, context: Any) -> Any:
    return [await context.wait_signal("n", timeout=SOON) for _ in range(3)]


# -- what is given


def test_a_signal_while_the_run_waits(way: Way) -> None:
    handle = way.start(one)
    assert handle.status == "waiting"
    handle.signal("go", {"n": (1, 2)})
    assert handle.result(20) == [{"n": (1, 2)}, "after"]
    assert violations(way.engine, "r") == []


def test_signals_are_buffered_until_somebody_waits(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        await context.wait_signal("go", timeout=SOON)
        return [await context.wait_signal("n", timeout=SOON) for _ in range(3)]

    handle = way.start(body)
    for n in range(3):
        handle.signal("n", n)
    assert handle.status in ("waiting", "running")
    handle.signal("go")
    assert handle.result(20) == [0, 1, 2]
    assert violations(way.engine, "r") == []


def test_each_is_given_once_in_order_of_arrival(way: Way) -> None:
    handle = way.start(three)
    for n in range(3):
        handle.signal("n", n)
    assert handle.result(20) == [0, 1, 2]


def test_each_name_has_a_queue_of_its_own(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        return [await context.wait_signal(name, timeout=SOON) for name in ("b", "a", "b")]

    handle = way.start(body)
    handle.signal("a", "a1")
    handle.signal("b", "b1")
    handle.signal("b", "b2")
    assert handle.result(20) == ["b1", "a1", "b2"]


@pytest.mark.parametrize("number", [2, 5])
def test_branches_that_wait_at_once_each_get_one(way: Way, number: int) -> None:
    async def branch(child: Any, *_: Any) -> Any:
        return await child.wait_signal("n", timeout=SOON)

    async def body(event: Any, context: Any) -> Any:
        found = await context.map(range(number), branch, "m")
        found.throw_if_error()
        return found.get_results()

    handle = way.start(body)
    for n in range(number):
        handle.signal("n", n)
    assert sorted(handle.result(20)) == list(range(number))
    taken = [r["index"] for r in records(way.engine, "r") if r["record"] == "SignalTaken"]
    assert taken == list(range(number))
    assert violations(way.engine, "r") == []


@pytest.mark.parametrize("threads", [1, 2])
def test_branches_that_share_few_threads_each_get_one(colour: str, threads: int) -> None:
    async def branch(child: Any, *_: Any) -> Any:
        got = await child.wait_signal("n", timeout=SOON)
        return [got, await child.step(giver(got), name="s")]

    async def body(event: Any, context: Any) -> Any:
        found = await context.map(range(6), branch, "m")
        found.throw_if_error()
        return found.get_results()

    for hold in (0, 60):
        engine = Engine(f"memory://signals-{colour}-{threads}-{hold}", hold=hold, max_threads=threads)
        handle = engine.start_run(coloured(body, colour), {}, id="r")
        for n in range(6):
            handle.signal("n", n)
        assert sorted(handle.result(20)) == [[n, n] for n in range(6)]
        assert violations(engine, "r") == []
        engine.stop()


def test_who_gets_no_signal_keeps_nobody_from_it() -> None:
    """The one that gets it commits that; the other must leave the loop to the rest of the run meanwhile."""
    committing, others_ran = threading.Event(), threading.Event()

    async def wait(child: Any) -> Any:
        return await child.wait_signal("n", timeout=SOON)

    async def other(child: Any) -> Any:
        async def body() -> None:
            while not committing.is_set():
                await asyncio.sleep(0)
            others_ran.set()

        return await child.step(body, name="other")

    @durable_execution
    async def all_three(event: Any, context: Any) -> Any:
        return await context.gather(wait, wait, other)

    engine = Engine("memory://signals-commit", hold=60)
    write = engine.store.batch_commit

    def slow(batches: Any) -> Any:
        if any(type(record) is SignalTaken for batch in batches for record in batch.records):
            committing.set()
            assert others_ran.wait(20)
        return write(batches)

    engine.store.batch_commit = slow  # type: ignore[method-assign]
    handle = engine.start_run(all_three, {}, id="r")
    while "r" not in engine.host.lives or len(engine.host.lives["r"].waits) < 2:
        engine.store.wait(0.01)
    handle.signal("n", 1)
    assert others_ran.wait(30)
    handle.signal("n", 2)
    assert sorted(handle.result(60)[:2]) == [1, 2]
    engine.stop()


def test_pendings_wait_for_signals(way: Way) -> None:
    async def branch(child: Any) -> Any:
        return await child.wait_signal("n", timeout=SOON)

    async def body(event: Any, context: Any) -> Any:
        pendings = [context.child_async(branch, f"p{i}") for i in range(3)]
        return [await pending for pending in pendings]

    handle = way.start(body)
    for n in range(3):
        handle.signal("n", n)
    assert sorted(handle.result(20)) == [0, 1, 2]


def test_one_that_nobody_takes_stays(way: Way) -> None:
    handle = way.start(one)
    handle.signal("other", 1)
    handle.signal("go", 1)
    assert handle.result(20) == [1, "after"]
    assert [r["name"] for r in records(way.engine, "r") if r["record"] == "SignalReceived"] == ["other", "go"]


def test_a_step_sends_a_signal_to_its_own_run(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        run = way.engine.get_run(context.run_id)
        await context.step(lambda: run.signal("me", "mine", idempotency_key="once"), name="tell")
        return await context.wait_signal("me", timeout=SOON)

    assert way.run(body) == "mine"


# -- try_signal


def test_try_signal_takes_what_is_there_and_waits_for_nothing(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        before = await context.try_signal("n", "none")
        await context.wait_signal("go", timeout=SOON)
        found = [await context.try_signal("n", "none") for _ in range(3)]
        await context.wait(0.01)
        return [before, *found]

    handle = way.start(body)
    handle.signal("n", 1)
    handle.signal("n", None)
    handle.signal("go")
    assert handle.result(20) == ["none", 1, None, "none"]


def test_that_there_was_none_is_on_record(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        first = await context.try_signal("n")
        await context.wait_signal("go")
        return [first, await context.try_signal("n")]

    with DurableRunner(coloured(body, colour)) as runner:
        handle = runner.start()
        runner.advance(0)
        assert handle.status == "waiting"
        runner.signal(handle, "n", 7)
        runner.signal(handle, "go")
        assert runner.result(handle).result == [None, 7]


# -- time


def test_a_time_out_is_on_record(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.wait_signal("go", timeout=10)
        except TimeoutError as error:
            said = [isinstance(error, DurableOperationError), str(error)]
        else:
            said = ["none"]
        return [*said, await context.wait_signal("go")]

    with DurableRunner(coloured(body, colour)) as runner:
        handle = runner.start()
        runner.advance(9)
        assert handle.status == "waiting"
        runner.advance(2)
        runner.signal(handle, "go", "late")
        assert runner.result(handle).result == [True, "no signal 'go' within 10 s", "late"]


def test_a_time_out_of_nothing(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.wait_signal("go", timeout=0)
        except TimeoutError:
            return "none"
        return "some"

    assert way.run(body) == "none"


def test_a_time_out_nobody_catches_fails_the_run(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        await context.wait_signal("go", timeout=0.01)

    with pytest.raises(RunFailed, match=r"no signal 'go' within 0\.01 s") as failed:
        way.run(body)
    assert isinstance(failed.value, TimeoutError)


def test_one_that_came_is_given_though_the_time_is_over(colour: str) -> None:
    async def body(event: Any, context: Any) -> Any:
        await context.wait_signal("go")
        return await context.wait_signal("n", timeout=0)

    with DurableRunner(coloured(body, colour)) as runner:
        handle = runner.start()
        runner.signal(handle, "n", 1)
        runner.signal(handle, "go")
        assert runner.result(handle).result == 1


# -- who may send


def test_a_key_sends_once(way: Way) -> None:
    handle = way.start(three)
    for n, key in enumerate(["a", "a", "b", "a", "c"]):
        handle.signal("n", n, idempotency_key=key)
    assert handle.result(20) == [0, 2, 4]


def test_the_same_key_for_another_name_or_run_is_another(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        return [await context.wait_signal(name, timeout=SOON) for name in ("a", "b")]

    for run_id in ("r", "r2"):
        handle = way.start(body, id=run_id)
        for name in ("a", "b"):
            handle.signal(name, f"{run_id} {name}", idempotency_key="k")
        assert handle.result(20) == [f"{run_id} a", f"{run_id} b"]


def test_a_run_that_has_ended_takes_none(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        return None

    way.run(body)
    before = journal(way.engine, "r", lives=True)
    with pytest.raises(UsageError, match="run r has ended; it takes no signals"):
        way.engine.get_run("r").signal("go")
    with pytest.raises(UsageError, match="run r has ended"):
        way.engine.get_run("r").signal("go", idempotency_key="k")
    with pytest.raises(UnknownRun):
        way.engine.get_run("nobody").signal("go")
    assert journal(way.engine, "r", lives=True) == before


def test_bad_signals(way: Way) -> None:
    handle = way.start(one)
    with pytest.raises(SerDesError):
        handle.signal("go", object())
    with pytest.raises(UsageError, match="needs a name"):
        handle.signal("")
    with pytest.raises(UsageError, match="idempotency_key"):
        handle.signal("go", 1, idempotency_key="k" * 2000)
    names: tuple[Any, ...] = (3, "x" * 257, "half \ud800")
    for bad in names:
        with pytest.raises(ValidationError, match="name"):
            handle.signal(bad)
    with pytest.raises(ValidationError, match="idempotency_key"):
        handle.signal("go", 1, idempotency_key="half \ud800")
    handle.signal("go", "good")
    assert handle.result(20) == ["good", "after"]


def test_bad_waits_write_nothing(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        said = []
        calls: tuple[Callable[[], Any], ...] = (
            lambda: context.wait_signal(""),
            lambda: context.try_signal(""),
            lambda: context.publish("", 1),
            lambda: context.wait_signal("x", timeout=-1),
            lambda: context.wait_signal("x" * 300),
            lambda: context.wait_signal(3),
            lambda: context.try_signal(3),
            lambda: context.publish(3, 1),
            lambda: context.publish("half \ud800", 1),
        )
        for call in calls:
            try:
                await call()
            except ValidationError as error:
                said.append(str(error))
        return len(said)

    assert way.run(body) == 9
    assert [r["record"] for r in records(way.engine, "r")] == ["RunStarted", "RunSucceeded"]


@pytest.mark.parametrize("hold", [0, 60])
def test_a_signal_while_no_process_runs(colour: str, hold: float, tmp_path: Any) -> None:
    url = f"sqlite:////{str(tmp_path / 'store.db').lstrip('/')}"
    function = coloured(three, colour)
    first = Engine(url, hold=hold)
    handle = first.start_run(function, {}, id="r")
    while handle.status != "waiting":
        first.store.wait(0.02)
    first.stop()
    outside = Engine(url)
    for n in range(3):
        outside.get_run("r").signal("n", n, idempotency_key=f"k{n}")
    outside.get_run("r").signal("n", "again", idempotency_key="k0")
    outside.stop()
    second = Engine(url, hold=hold)
    assert second.run(function, {}, id="r", timeout=20) == [0, 1, 2]
    assert violations(second, "r") == []
    second.stop()


def test_large_signals(way: Way) -> None:
    handle = way.start(one)
    handle.signal("go", "x" * 5_000_000)
    got, _ = handle.result(20)
    assert len(got) == 5_000_000


# -- published values


def test_the_latest_published_value_counts(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        await context.publish("at", {"step": 1})
        await context.publish("other", None)
        await context.publish("at", {"step": 2})
        await context.wait_signal("go", timeout=SOON)
        await context.publish("at", {"step": 3})

    handle = way.start(body)
    assert handle.published("at") == {"step": 2}
    assert handle.published("nothing", "default") == "default"
    assert handle.published("other", "default") is None
    handle.signal("go")
    handle.result(20)
    assert handle.published("at") == {"step": 3}
    assert [r["key"] for r in records(way.engine, "r") if r["record"] == "Recorded"] == ["at", "other", "at#2", "at#3"]


def test_a_secret_is_masked(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush-hush-token")

    async def body(event: Any, context: Any) -> Any:
        text = Secret.env("TOKEN").reveal()
        await context.publish("token", f"it is {text}")
        await context.wait_signal("go", timeout=SOON)

    handle = way.start(body)
    assert handle.published("token") == "it is ***"
    if way.hold:
        handle.signal("go", "hush-hush-token too")
        handle.wait(20)
    assert "hush-hush" not in repr(handle.history())


# -- crashes, twins


async def all_of_them(event: Any, context: Any) -> Any:
    await context.publish("at", 1)
    first = await context.wait_signal("n")
    second = await context.try_signal("n", "none")
    try:
        await context.wait_signal("never", timeout=5)
    except TimeoutError:
        third = "timeout"
    else:
        third = "some"
    await context.publish("at", 2)
    return [first, second, third, await context.step(giver(1), name="end")]


def act(runner: DurableRunner, handle: RunHandle) -> None:
    runner._kit.settle()
    runner.signal(handle, "n", "first")
    runner._kit.settle()
    runner.advance(6)


def test_a_crash_at_every_append(colour: str) -> None:
    assert at_every_append(coloured(all_of_them, colour), act) == ["first", "none", "timeout", 1]


def has_taken(handle: RunHandle, number: int) -> bool:
    return len([r for r in handle.history() if r["record"] == "SignalTaken"]) == number


@pytest.mark.parametrize("body", [one, three])
def test_journals_of_twins_are_equal(body: Any) -> None:
    found = []
    for colour, hold in [("def", 60), ("def", 0), ("async def", 60), ("async def", 0)]:
        way = Way(colour, hold, f"signal-twins-{body.__name__}-{colour}-{hold}")
        handle = way.start(body)
        for n in range(3 if body is three else 1):
            handle.signal("go" if body is one else "n", n)
            if body is three:
                way.until(partial(has_taken, handle, n + 1))
        handle.result(20)
        found.append([r for r in journal(way.engine, "r") if r["record"] != "SignalAwaited"])
        way.engine.stop()
    assert len(found[0]) > 3
    assert found[1:] == [found[0]] * 3


def test_a_failed_run_that_is_retried_takes_signals_again(way: Way) -> None:
    broken = [1]

    async def body(event: Any, context: Any) -> Any:
        first = await context.wait_signal("n", timeout=SOON)
        if broken:
            await context.step(raiser(ValueError("no")), name="s", retry=NEVER)
        return [first, await context.wait_signal("n", timeout=SOON)]

    handle = way.start(body)
    handle.signal("n", 1)
    handle.wait(20)
    assert handle.status == "failed"
    broken.clear()
    handle.retry(wait=False)
    way.until(lambda: handle.status in ("waiting", "running"))
    handle.signal("n", 2)
    assert handle.result(20) == [1, 2]


def test_cancelling_a_run_that_waits_for_a_signal(way: Way) -> None:
    handle = way.start(one)
    handle.cancel("enough")
    handle.wait(20)
    assert handle.status == "cancelled"
    with pytest.raises(UsageError, match="has ended"):
        handle.signal("go")
