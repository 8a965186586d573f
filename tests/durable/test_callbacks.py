"""Callbacks: what somebody outside answers (durable.md §7)."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Duration, Engine, Retry, UsageError, durable_wait_for_callback
from stepwell.client._answers import LARGEST
from stepwell.durable import (
    CallbackExternalError,
    CallbackSubmitterError,
    CallbackTimeoutError,
    StepError,
    ValidationError,
)
from stepwell.durable.config import CallbackConfig, WaitForCallbackConfig
from stepwell.durable.serdes import DEFAULT_JSON_SERDES, SerDes, SerDesContext
from stepwell.errors import BadArguments, ErrorObject, RunFailed, UnknownRun
from stepwell.testing import DurableRunner
from tests.durable.kit import NEVER, raiser, records
from tests.durable.twins import Way, at_every_append, coloured, journal

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell import RunHandle

LONG = CallbackConfig(timeout=30)
"""A deadline that is near enough for frames to be kept, and is not met."""


async def asks(event: Any, context: Any) -> Any:
    callback = await context.create_callback("ask", LONG)
    await context.step(lambda: "mail", name="mail")
    answer = await callback.result()
    return [answer, await context.step(lambda: "after", name="after")]


async def asks_twice(event: Any, context: Any) -> Any:
    first = await context.create_callback("ask", LONG)
    second = await context.create_callback("ask", LONG)
    return [await second.result(), await first.result(), await second.result()]


# -- the answer


def test_an_answer_while_the_run_waits(way: Way) -> None:
    handle = way.start(asks)
    assert handle.status == "waiting"
    way.engine.send_callback_success(way.callback(handle), "yes")
    assert handle.result(20) == ["yes", "after"]
    assert handle.status == "succeeded"
    (ended,) = [r for r in handle.history() if r["record"] == "CallbackSucceeded"]
    assert (ended["key"], ended["payload"]) == ("ask", "yes")


def test_an_answer_before_anybody_asks_for_it(way: Way) -> None:
    ids: list[str] = []

    async def early(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", LONG)
        ids.append(callback.callback_id)
        await context.step(lambda: way.engine.send_callback_success(callback.callback_id, "early"), name="answer")
        return await callback.result()

    assert way.run(early) == "early"
    assert len(set(ids)) == 1
    lines = [r["record"] for r in records(way.engine, "r", lives=True)]
    assert "Parked" not in lines


@pytest.mark.parametrize("hold", [0, 60])
def test_an_answer_while_no_process_runs(colour: str, hold: float, tmp_path: Any) -> None:
    url = f"sqlite:////{str(tmp_path / 'store.db').lstrip('/')}"
    function = coloured(asks, colour)
    first = Engine(url, hold=hold)
    handle = first.start_run(function, {}, id="r")
    while not (found := handle.callbacks()) or handle.status != "waiting":
        first.store.wait(0.02)
    first.stop()
    outside = Engine(url)
    outside.send_callback_success(found[0]["id"], "yes")
    with pytest.raises(UsageError, match=r"^callback already completed: SUCCEEDED$"):
        outside.send_callback_success(found[0]["id"], "no")
    assert outside.get_run("r").status in ("waiting", "interrupted")
    outside.stop()
    second = Engine(url, hold=hold)
    assert second.run(function, {}, id="r", timeout=20) == ["yes", "after"]
    second.stop()


def test_an_answer_that_is_asked_for_many_times(way: Way) -> None:
    handle = way.start(asks_twice)
    first, second = (found["id"] for found in handle.callbacks())
    way.engine.send_callback_success(second, "2")
    way.engine.send_callback_success(first, "1")
    assert handle.result(20) == ["2", "1", "2"]


@pytest.mark.parametrize("sent, got", [("text", "text"), (b"bytes", "bytes"), (None, None), ("", None), (b"", None)])
def test_the_raw_text_is_the_value(way: Way, sent: Any, got: Any) -> None:
    handle = way.start(asks)
    way.engine.send_callback_success(way.callback(handle), sent)
    assert handle.result(20) == [got, "after"]


def test_a_serdes_reads_it(way: Way) -> None:
    async def typed(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", CallbackConfig(30, serdes=DEFAULT_JSON_SERDES))
        return await callback.result()

    handle = way.start(typed)
    way.engine.send_callback_success(way.callback(handle), '{"a": 1}')
    assert handle.result(20) == {"a": 1}


@pytest.mark.parametrize(
    "error, kind, message",
    [
        (ErrorObject("no", "Denied", "more", None), "Denied", "no"),
        ("just no", "", "just no"),
        (None, "", "the callback failed"),
    ],
)
def test_a_failure_from_outside(way: Way, error: Any, kind: str, message: str) -> None:
    async def asks_for_trouble(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", LONG)
        try:
            await callback.result()
        except CallbackExternalError as refused:
            return [type(refused).__name__, refused.error_type or "", str(refused), refused.data]
        return "never"

    handle = way.start(asks_for_trouble)
    way.engine.send_callback_failure(way.callback(handle), error)
    data = "more" if kind else None
    assert handle.result(20) == ["CallbackExternalError", kind, message, data]


def test_a_failure_nobody_catches_fails_the_run(way: Way) -> None:
    handle = way.start(asks)
    way.engine.send_callback_failure(way.callback(handle), ErrorObject("no", "Denied"))
    with pytest.raises(RunFailed, match="no") as failed:
        handle.result(20)
    assert isinstance(failed.value, CallbackExternalError)
    assert handle.error is not None
    assert handle.error.to_dict() == {"ErrorMessage": "no", "ErrorType": "CallbackExternalError"}


# -- answers that do not count


def test_the_first_answer_wins(way: Way) -> None:
    handle = way.start(asks)
    callback_id = way.callback(handle)
    way.engine.send_callback_failure(callback_id, "no")
    for late in (
        way.engine.send_callback_success,
        way.engine.send_callback_failure,
        way.engine.send_callback_heartbeat,
    ):
        with pytest.raises(UsageError, match=r"^callback already completed: FAILED$"):
            late(callback_id)
    handle.wait(20)
    before = journal(way.engine, "r", lives=True)
    with pytest.raises(UsageError, match=r"^callback already completed: FAILED$"):
        way.engine.send_callback_success(callback_id, "late")
    assert journal(way.engine, "r", lives=True) == before
    assert [r["record"] for r in before].count("CallbackFailed") == 1


@pytest.mark.parametrize("cut", [slice(0, 0), slice(0, 10), slice(0, -1), slice(1, None)])
def test_an_id_that_is_not_known(way: Way, cut: slice) -> None:
    handle = way.start(asks)
    wrong = way.callback(handle)[cut]
    for send in (
        way.engine.send_callback_success,
        way.engine.send_callback_failure,
        way.engine.send_callback_heartbeat,
    ):
        with pytest.raises(UnknownRun):
            send(wrong)
    assert handle.status == "waiting"


@pytest.mark.parametrize("wrong", ["", ".", "x", "..", "räksmörgås", "a.b", "/", "W10.x", "WyJyIiwiayJd.x", "\n.\n"])
def test_an_id_that_is_none(wrong: str) -> None:
    engine = Engine("memory://no-callback")
    with pytest.raises(UnknownRun, match="no callback"):
        engine.send_callback_success(wrong, "x")
    engine.stop()


def test_an_answer_to_a_run_that_has_ended() -> None:
    async def leaves(event: Any, context: Any) -> Any:
        await context.create_callback("ask")
        return "gone"

    for colour in ("def", "async def"):
        way = Way(colour, 0, f"ended-{colour}")
        handle = way.start(leaves)
        assert handle.result(20) == "gone"
        found = [r for r in handle.history() if r["record"] == "CallbackCreated"]
        with pytest.raises(UsageError, match="run r has ended; its callback can no longer be answered"):
            way.engine.send_callback_success(found[0]["callback_id"], "x")
        with pytest.raises(UsageError, match="has ended"):
            way.engine.send_callback_heartbeat(found[0]["callback_id"])
        assert handle.callbacks() == []
        way.engine.stop()


@pytest.mark.parametrize("bad", [b"\xff\xfe", 7, ["x"]])
def test_an_answer_that_is_no_text(way: Way, bad: Any) -> None:
    handle = way.start(asks)
    callback_id = way.callback(handle)
    with pytest.raises(BadArguments, match="the result of a callback is"):
        way.engine.send_callback_success(callback_id, bad)
    assert [found["id"] for found in handle.callbacks()] == [callback_id]


def test_64_mib_and_not_a_byte_more(colour: str) -> None:
    async def weighs(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", LONG)
        answer = await callback.result()
        return [len(answer), answer[:3], answer[-3:]]

    way = Way(colour, 60, f"large-{colour}")
    handle = way.start(weighs)
    callback_id = way.callback(handle)
    text = "abc" + "x" * (LARGEST - 6) + "xyz"
    assert len(text) == 64 * 1024 * 1024
    with pytest.raises(BadArguments, match=r"67,108,865 bytes are more than an answer can have \(64 MiB\)"):
        way.engine.send_callback_success(callback_id, text + "!")
    with pytest.raises(BadArguments, match="64 MiB"):
        way.engine.send_callback_success(callback_id, "ä" * (LARGEST // 2) + "!")
    way.engine.send_callback_success(callback_id, text)
    assert handle.result(60) == [LARGEST, "abc", "xyz"]
    way.engine.stop()


# -- the id


def test_the_id_says_where_it_belongs_and_cannot_be_guessed(way: Way) -> None:
    async def nested(event: Any, context: Any) -> Any:
        async def inner(child: Any) -> Any:
            callback = await child.create_callback("ask", LONG)
            return await callback.result()

        return await context.run_in_child_context(inner, "child")

    handle = way.start(nested)
    callback_id = way.callback(handle)
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", callback_id)
    place, _, chance = callback_id.rpartition(".")
    padded = place + "=" * (-len(place) % 4)
    assert json.loads(base64.urlsafe_b64decode(padded)) == ["r", "child/ask"]
    assert len(base64.urlsafe_b64decode(chance + "==")) >= 16
    other = way.start(nested, id="other")
    assert way.callback(other).rpartition(".")[2] != chance
    way.engine.send_callback_success(callback_id, "done")
    assert handle.result(20) == "done"


def test_the_id_is_the_same_in_every_life(colour: str) -> None:
    seen: list[str] = []

    async def body(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask")
        seen.append(callback.callback_id)
        await context.wait(5)
        await context.step(lambda: 1, name="between")
        return await callback.result()

    with DurableRunner(coloured(body, colour)) as runner:
        runner.crash_at("between", "before")
        handle = runner.start()
        runner.complete(runner.wait_for_callback(handle, "ask"), "yes")
        assert runner.result(handle).result == "yes"
    assert len(seen) >= 3
    assert len(set(seen)) == 1


def test_it_is_listed_while_it_waits(way: Way) -> None:
    handle = way.start(asks)
    (found,) = handle.callbacks()
    assert (found["name"], found["form"]) == ("ask", None)
    assert found["timeout_at"] is not None
    way.engine.send_callback_success(found["id"], "x")
    assert handle.callbacks() == []
    handle.wait(20)


# -- time


async def hurries(event: Any, context: Any) -> Any:
    callback = await context.create_callback("ask", CallbackConfig(timeout=100, heartbeat_timeout=event.get("beat", 0)))
    try:
        return await callback.result()
    except CallbackTimeoutError as error:
        return [str(error), error.error_type]


def test_no_answer_in_time(colour: str) -> None:
    with DurableRunner(coloured(hurries, colour)) as runner:
        handle = runner.start()
        callback_id = runner.wait_for_callback(handle)
        runner.advance(99)
        assert handle.status == "waiting"
        runner.advance(1.5)
        assert runner.result(handle).result == ["Callback timed out", "Callback.Timeout"]
        with pytest.raises(UsageError, match=r"^callback already completed: TIMED_OUT$"):
            runner.complete(callback_id, "late")
        with pytest.raises(UsageError, match=r"^callback already completed: TIMED_OUT$"):
            runner.heartbeat(callback_id)


def test_heartbeats_move_the_deadline(colour: str) -> None:
    with DurableRunner(coloured(hurries, colour)) as runner:
        handle = runner.start({"beat": 10})
        callback_id = runner.wait_for_callback(handle)
        for _ in range(3):
            runner.advance(9)
            assert handle.status == "waiting"
            runner.heartbeat(callback_id)
            runner._kit.settle()
        runner.advance(11)
        assert runner.result(handle).result == ["Callback timed out", "Callback.Heartbeat"]


def test_heartbeats_do_not_move_the_last_deadline(colour: str) -> None:
    with DurableRunner(coloured(hurries, colour)) as runner:
        handle = runner.start({"beat": 60})
        callback_id = runner.wait_for_callback(handle)
        runner.advance(59)
        runner.heartbeat(callback_id)
        runner.advance(40)
        assert handle.status == "waiting"
        runner.heartbeat(callback_id)
        runner.advance(2)
        assert runner.result(handle).result == ["Callback timed out", "Callback.Timeout"]


def test_time_counts_from_the_creation_also_while_the_code_does_other_things(colour: str) -> None:
    async def slow(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", CallbackConfig(timeout=50))
        await context.wait(80)
        return await callback.result()

    with DurableRunner(coloured(slow, colour)) as runner:
        assert "CallbackTimeoutError: Callback timed out" in str(runner.run().error)


@pytest.mark.parametrize("hold", [0, 60])
def test_a_short_deadline_in_real_time(colour: str, hold: float) -> None:
    async def short(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", CallbackConfig(timeout=0.02))
        try:
            return await callback.result()
        except CallbackTimeoutError as error:
            return error.error_type

    way = Way(colour, hold, f"short-{colour}-{hold}")
    assert way.run(short) == "Callback.Timeout"
    found = [r["record"] for r in records(way.engine, "r")]
    assert found == ["RunStarted", "CallbackCreated", "CallbackFailed", "RunSucceeded"]
    way.engine.stop()


# -- wait_for_callback


async def submits(event: Any, context: Any) -> Any:
    sent: list[str] = []
    answer = await context.wait_for_callback(
        lambda callback_id, _: sent.append(callback_id), "ask", WaitForCallbackConfig(timeout=30)
    )
    return [answer, await context.step(lambda: "after", name="after")]


def test_wait_for_callback_is_a_scope_with_a_callback_and_a_step(way: Way) -> None:
    handle = way.start(submits)
    way.engine.send_callback_success(way.callback(handle), "yes")
    assert handle.result(20) == ["yes", "after"]
    scope = handle.get_context("ask")
    assert str(scope.sub_type) == "WaitForCallback"
    inside = [(op.operation_type.name, op.name) for op in scope.child_operations]
    assert inside == [("CALLBACK", "ask create callback id"), ("STEP", "ask submitter")]


def test_its_serdes_reads_the_answer_once(way: Way) -> None:
    class Opened(SerDes[Any]):
        def serialize(self, value: Any, serdes_context: SerDesContext) -> str:
            return f"sealed {value}"

        def deserialize(self, data: str, serdes_context: SerDesContext) -> Any:
            return {"opened": data}

    async def body(event: Any, context: Any) -> Any:
        config = WaitForCallbackConfig(timeout=30, serdes=Opened())
        return await context.wait_for_callback(lambda _id: 5, "ask", config)

    handle = way.start(body)
    way.engine.send_callback_success(way.callback(handle), "letter")
    assert handle.result(20) == {"opened": "letter"}
    said = [r["payload"] for r in handle.history() if r["record"] in ("StepSucceeded", "ScopeSucceeded")]
    assert said == ["sealed 5", '{"opened":"letter"}']


def test_without_a_name_its_parts_have_none(way: Way) -> None:
    async def unnamed(event: Any, context: Any) -> Any:
        return await context.wait_for_callback(lambda _id, _context: None, config=WaitForCallbackConfig(timeout=30))

    handle = way.start(unnamed)
    way.engine.send_callback_success(way.callback(handle), "yes")
    assert handle.result(20) == "yes"
    (scope,) = handle.operations
    assert scope.name is None
    assert [op.name for op in scope.child_operations] == [None, None]
    assert [r["key"] for r in records(way.engine, "r") if r["record"] == "ScopeStarted"] == ["wait_for_callback"]


def test_a_bound_submitter_brings_its_name_and_arguments(way: Way) -> None:
    seen: list[Any] = []

    @durable_wait_for_callback
    def send_mail(callback_id: str, context: Any, to: str) -> None:
        context.logger.info("mail to %s", to)
        seen.append((to, callback_id))

    async def body(event: Any, context: Any) -> Any:
        return await context.wait_for_callback(send_mail("ann"), config=WaitForCallbackConfig(timeout=30))

    handle = way.start(body)
    callback_id = way.callback(handle)
    way.engine.send_callback_success(callback_id, "yes")
    assert handle.result(20) == "yes"
    assert seen == [("ann", callback_id)]
    assert handle.get_context("send_mail").child_operations[1].name == "send_mail submitter"


def test_the_submitter_is_retried(colour: str) -> None:
    tries: list[int] = []

    def submit(callback_id: str, context: Any) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("away")

    async def body(event: Any, context: Any) -> Any:
        config = WaitForCallbackConfig(retry_strategy=Retry(3, delay=5, jitter="none"))
        return await context.wait_for_callback(submit, "ask", config)

    with DurableRunner(coloured(body, colour)) as runner:
        handle = runner.start()
        runner._kit.settle()
        runner.complete(runner.wait_for_callback(handle), "yes")
        assert runner.result(handle).result == "yes"
    assert len(tries) == 3


def test_a_submitter_that_fails_for_good(way: Way) -> None:
    error = ValueError("no mail today")
    error.data = "smtp 550"  # type: ignore[attr-defined]

    async def body(event: Any, context: Any) -> Any:
        config = WaitForCallbackConfig(timeout=30, retry_strategy=NEVER)
        try:
            await context.wait_for_callback(lambda _id, _context: raiser(error)(), "ask", config)
        except CallbackSubmitterError as failed:
            cause = failed.__cause__
            return [
                str(failed),
                failed.data,
                type(cause).__name__,
                isinstance(cause, ValueError),
                isinstance(cause, StepError),
            ]
        return "never"

    assert way.run(body) == ["no mail today", "smtp 550", "StepError", True, True]


def test_its_errors_come_out_unwrapped(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        try:
            await context.wait_for_callback(lambda _id, _context: None, "ask", WaitForCallbackConfig(timeout=30))
        except CallbackExternalError as error:
            return [type(error).__name__, error.error_type, str(error)]
        return "never"

    handle = way.start(body)
    way.engine.send_callback_failure(way.callback(handle), ErrorObject("no", "Denied"))
    assert handle.result(20) == ["CallbackExternalError", "Denied", "no"]


def test_bad_arguments_are_refused_before_anything_is_written(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        @durable_wait_for_callback
        def needs(callback_id: str, context: Any, to: str) -> None: ...

        said = []
        calls: list[Callable[[], Any]] = [
            lambda: context.wait_for_callback(None),
            lambda: context.wait_for_callback(lambda: None),
            lambda: context.wait_for_callback(lambda a, b, c: None),
            lambda: context.wait_for_callback(needs),
            lambda: context.wait_for_callback(lambda _id, _context: None, config=7),
            lambda: context.create_callback("x", 7),
            lambda: context.create_callback("x" * 257),
            lambda: context.create_callback("bell\a"),
            lambda: context.create_callback("half \ud800"),
            lambda: context.create_callback(CallbackConfig()),
        ]
        for call in calls:
            try:
                await call()
            except ValidationError as error:
                said.append(str(error)[:40])
        return said

    assert len(way.run(body)) == 10
    assert [r["record"] for r in records(way.engine, "r")] == ["RunStarted", "RunSucceeded"]


def test_a_long_name_leaves_room_for_its_parts(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        return await context.wait_for_callback(lambda _id: None, "x" * 256, WaitForCallbackConfig(timeout=30))

    handle = way.start(body)
    way.engine.send_callback_success(way.callback(handle), "yes")
    assert handle.result(20) == "yes"
    (scope,) = handle.operations
    names = [op.name for op in scope.child_operations]
    assert names == ["x" * 237 + " create callback id", "x" * 246 + " submitter"]


def test_the_longest_time_has_a_date(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        return await (
            await context.create_callback("ask", CallbackConfig(timeout=Duration.from_days(7000 * 365)))
        ).result()

    handle = way.start(body)
    (waiting,) = handle.callbacks()
    assert 9000 < waiting["timeout_at"].year < 9999
    way.engine.send_callback_success(waiting["id"], "yes")
    assert handle.result(20) == "yes"


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), "5"])
def test_bad_times(bad: Any) -> None:
    with pytest.raises(ValidationError):
        CallbackConfig(timeout=bad)
    with pytest.raises(ValidationError):
        CallbackConfig(heartbeat_timeout=bad)


# -- crashes, and the journals of twins


def answer(runner: DurableRunner, handle: RunHandle) -> None:
    runner.complete(runner.wait_for_callback(handle, "ask"), "yes")


def test_a_callback_survives_a_crash_at_every_append(colour: str) -> None:
    assert at_every_append(coloured(asks, colour), answer) == ["yes", "after"]


def test_wait_for_callback_survives_a_crash_at_every_append(colour: str) -> None:
    assert at_every_append(coloured(submits, colour), answer) == ["yes", "after"]


def test_a_time_out_survives_a_crash_at_every_append(colour: str) -> None:
    def later(runner: DurableRunner, handle: RunHandle) -> None:
        runner.wait_for_callback(handle, "ask")
        runner.advance(101)

    assert at_every_append(coloured(hurries, colour), later) == ["Callback timed out", "Callback.Timeout"]


@pytest.mark.parametrize("body", [asks, submits])
def test_journals_of_twins_are_equal(body: Any) -> None:
    found = []
    for colour, hold in [("def", 60), ("def", 0), ("async def", 60), ("async def", 0)]:
        way = Way(colour, hold, f"twins-{body.__name__}-{colour}-{hold}")
        handle = way.start(body)
        way.engine.send_callback_success(way.callback(handle), "yes")
        handle.result(20)
        found.append(journal(way.engine, "r"))
        way.engine.stop()
    assert len(found[0]) > 4
    assert found[1:] == [found[0]] * 3


def test_nothing_of_a_step_may_ask(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        await context.step(lambda: context.create_callback("inner"), name="outer")

    with pytest.raises(RunFailed, match=r"step 'outer' called context.create_callback\('inner'\) inside its body"):
        way.run(body)
    assert not [r for r in records(way.engine, "r") if r["record"] == "CallbackCreated"]
