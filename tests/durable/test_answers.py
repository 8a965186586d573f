"""Answers that meet: two at once, one and the time-out, one and the park (durable.md §7, ENGINE.md §4)."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine, Secret, UsageError
from stepwell.core import CallbackFailed, CallbackSucceeded, Parked
from stepwell.durable import CallbackTimeoutError
from stepwell.durable.config import CallbackConfig
from stepwell.journal._memory import MemoryStore
from tests.durable.kit import Plug, giver
from tests.durable.twins import Way, coloured, until, violations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from stepwell import RunHandle
    from stepwell.core import AnyRecord
    from stepwell.journal._api import Batch


async def asks(event: Any, context: Any) -> Any:
    callback = await context.create_callback("ask", CallbackConfig(event.get("timeout", 0)))
    try:
        return await callback.result()
    except CallbackTimeoutError as error:
        return str(error)


def outcomes(calls: Sequence[Callable[[], None]]) -> list[str]:
    """What each came to, called at once from threads of their own."""
    said: list[str] = [""] * len(calls)
    together = threading.Barrier(len(calls))

    def work(index: int) -> None:
        together.wait()
        try:
            calls[index]()
        except UsageError as error:
            said[index] = str(error)
        else:
            said[index] = "ok"

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_database"))
    return f"sqlite:////{str(tmp_path / 'store.db').lstrip('/')}"


@pytest.fixture
def memory() -> MemoryStore:
    """One store that several engines of a test look at."""
    return MemoryStore("answers")


def waits(handle: RunHandle) -> bool:
    return handle.status == "waiting"


@pytest.mark.parametrize("driven", [True, False], ids=["driven here", "driven by nobody"])
def test_of_many_threads_that_answer_one_is_heard(url: str, driven: bool) -> None:
    engine = Engine(url, hold=0)
    other = Engine(url, hold=0)
    function = coloured(asks, "def")
    where = engine if driven else other
    for number in range(5):
        run_id = f"r{number}"
        handle = engine.start_run(function, {}, id=run_id)
        callback_id = str(until(engine, handle.callbacks)[0]["id"])
        until(engine, partial(waits, handle))
        calls: list[Callable[[], None]] = [partial(where.send_callback_success, callback_id, f"{n}") for n in range(3)]
        calls.append(partial(where.send_callback_failure, callback_id, "no"))
        said = outcomes(calls)
        assert said.count("ok") == 1
        assert set(said) - {"ok"} <= {"callback already completed: SUCCEEDED", "callback already completed: FAILED"}
        winner = said.index("ok")
        handle.wait(20)
        assert handle.status == ("failed" if winner == 3 else "succeeded")
        if winner < 3:
            assert handle.result() == str(winner)
        assert violations(engine, run_id) == []
    other.stop()
    engine.stop()


ANSWERER = """
import json, sys
from stepwell import Engine, UsageError
url, ids, who = json.loads(sys.argv[1])
engine = Engine(url)
print("ready", flush=True)
sys.stdin.readline()
said = []
for callback_id in ids:
    try:
        engine.send_callback_success(callback_id, who)
        said.append("ok")
    except UsageError as error:
        said.append(str(error))
print(json.dumps(said), flush=True)
engine.stop()
"""


def test_of_two_processes_that_answer_one_is_heard(url: str) -> None:
    engine = Engine(url, hold=0)
    function = coloured(asks, "def")
    handles = [engine.start_run(function, {}, id=f"r{n}") for n in range(12)]
    ids = [str(until(engine, handle.callbacks)[0]["id"]) for handle in handles]
    people = [
        subprocess.Popen(
            [sys.executable, "-c", ANSWERER, json.dumps([url, ids, who])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for who in ("ann", "ben")
    ]  # fmt: skip
    try:
        for one in people:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in people:
            assert one.stdin is not None
            one.stdin.write("go\n")
            one.stdin.flush()
        said = [json.loads(one.communicate(timeout=60)[0]) for one in people]
    finally:
        for one in people:
            one.kill()
            one.communicate()
    for handle, ann, ben in zip(handles, *said, strict=True):
        assert {ann, ben} == {"ok", "callback already completed: SUCCEEDED"}
        assert handle.result(20) == ("ann" if ann == "ok" else "ben")
        assert violations(engine, handle.id) == []
    engine.stop()


# -- an answer and the time-out, an answer and the park


def looking(memory: MemoryStore, **options: Any) -> Engine:
    store: Any = memory.view()
    return Engine(store, **options)


class Meddling:
    """A store at which something happens right before a batch with a certain record is written. Once."""

    def __init__(self, memory: MemoryStore, kind: type, meddle: Callable[[Batch], None]) -> None:
        self._real: Any = memory.view()
        self._kind = kind
        self._meddle: Callable[[Batch], None] | None = meddle
        self.happened = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def batch_commit(self, batches: Sequence[Batch]) -> Any:
        for batch in batches:
            records: Sequence[AnyRecord] = batch.records
            if self._meddle is not None and any(isinstance(record, self._kind) for record in records):
                meddle, self._meddle = self._meddle, None
                meddle(batch)
                self.happened = True
        return self._real.batch_commit(batches)


@pytest.mark.parametrize("look", ["nobody looks", "the beat looks"])
@pytest.mark.parametrize("hold", [0, 60])
def test_an_accepted_answer_is_not_lost_to_the_time_out(
    memory: MemoryStore, colour: str, hold: float, look: str
) -> None:
    outside = looking(memory)
    looked: list[Any] = []

    def answer(batch: Batch) -> None:
        callback_id = outside.get_run("r").callbacks()[0]["id"]
        outside.send_callback_success(callback_id, "in time")
        if look == "the beat looks":
            looked.append(engine.host.lives["r"].outside.inbox_ticket())

    store: Any = Meddling(memory, CallbackFailed, answer)
    engine = Engine(store, hold=hold)
    assert engine.run(coloured(asks, colour), {"timeout": 0.02}, id="r", timeout=20) == "in time"
    assert store.happened
    assert violations(engine, "r") == []
    assert [r["record"] for r in engine.get_run("r").history()].count("CallbackFailed") == 0
    engine.stop()
    outside.stop()


@pytest.mark.parametrize("look", ["nobody looks", "the beat looks"])
@pytest.mark.parametrize("timeout, hold", [(0, 0), (0, 60), (30, 60)])
def test_an_answer_that_comes_while_the_run_parks(
    memory: MemoryStore, colour: str, timeout: float, hold: float, look: str
) -> None:
    outside = looking(memory)

    def answer(batch: Batch) -> None:
        callback_id = outside.get_run("r").callbacks()[0]["id"]
        outside.send_callback_success(callback_id, "in time")
        life = engine.host.lives["r"]
        if look == "the beat looks" and life.over is None:
            life.outside.inbox_ticket()

    store: Any = Meddling(memory, Parked, answer)
    engine = Engine(store, hold=hold)
    assert engine.run(coloured(asks, colour), {"timeout": timeout}, id="r", timeout=20) == "in time"
    assert store.happened
    assert violations(engine, "r") == []
    engine.stop()
    outside.stop()


@pytest.mark.parametrize("timeout, hold", [(0, 0), (30, 0), (30, 60)])
def test_an_answer_that_is_being_written_while_the_run_parks(
    memory: MemoryStore, colour: str, timeout: float, hold: float
) -> None:
    """Another thread has taken it out of the inbox; the run that has not seen it must not sleep over it."""
    outside = looking(memory)
    writing = threading.Event()
    threads: list[threading.Thread] = []

    async def body(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", CallbackConfig(timeout))
        await context.step(giver(1), name="s")
        if not threads:
            outside.send_callback_success(callback.callback_id, "in time")
            life = engine.host.lives["r"]
            threads.append(threading.Thread(target=engine.host.take_inbox, args=(life,)))
            threads[0].start()
            assert writing.wait(20)
        return await callback.result()

    def until_it_parks(batch: Batch) -> None:
        life = engine.host.lives["r"]
        writing.set()
        until(outside, lambda: life._parked)

    store: Any = Meddling(memory, CallbackSucceeded, until_it_parks)
    engine = Engine(store, hold=hold)
    assert engine.run(coloured(body, colour), {}, id="r", timeout=20) == "in time"
    threads[0].join()
    assert store.happened
    assert violations(engine, "r") == []
    engine.stop()
    outside.stop()


def test_what_rides_is_not_lost_with_a_time_out_that_came_to_nothing(memory: MemoryStore, colour: str) -> None:
    """The end of a callback whose answer was quicker is not written; what had been recorded before it, is."""
    outside = looking(memory)
    seen: list[Any] = []

    async def body(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", CallbackConfig(0.01))
        until(engine, lambda: engine.store.now() > engine.get_run("r")._run.ops["ask"].until)
        seen.append(await context.uuid())
        answer = await callback.result()
        if len(seen) == 1:
            raise Plug
        return [answer, str(seen[-1])]

    def answer(batch: Batch) -> None:
        outside.send_callback_success(outside.get_run("r").callbacks()[0]["id"], "in time")

    store: Any = Meddling(memory, CallbackFailed, answer)
    engine = Engine(store, hold=60)
    function = coloured(body, colour)
    with pytest.raises(Plug):
        engine.run(function, {}, id="r")
    assert engine.run(function, {}, id="r") == ["in time", str(seen[0])]
    assert store.happened
    assert seen[0] == seen[1]
    engine.stop()
    outside.stop()


def test_a_heartbeat_that_meets_the_time_out_moves_it(memory: MemoryStore, colour: str) -> None:
    outside = looking(memory)

    async def body(event: Any, context: Any) -> Any:
        callback = await context.create_callback("ask", CallbackConfig(heartbeat_timeout=0.05))
        try:
            return await callback.result()
        except CallbackTimeoutError as error:
            return error.error_type

    def beat(batch: Batch) -> None:
        outside.send_callback_heartbeat(outside.get_run("r").callbacks()[0]["id"])

    store: Any = Meddling(memory, CallbackFailed, beat)
    engine = Engine(store, hold=60)
    assert engine.run(coloured(body, colour), {}, id="r", timeout=20) == "Callback.Heartbeat"
    history = engine.get_run("r").history()
    created, beaten, ended = (
        next(r for r in history if r["record"] == name)
        for name in ("CallbackCreated", "CallbackBeat", "CallbackFailed")
    )
    assert ended["at"] >= beaten["at"] + 50_000 > created["at"] + 50_000
    engine.stop()
    outside.stop()


# -- what is said


@pytest.mark.parametrize("hold", [60])
def test_secrets_in_answers_are_masked(colour: str, hold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush-hush-token")

    async def body(event: Any, context: Any) -> Any:
        Secret.env("TOKEN").reveal()
        first = await context.create_callback("a", CallbackConfig(30))
        second = await context.create_callback("b", CallbackConfig(30))
        try:
            await second.result()
        except Exception as error:
            return [await first.result(), str(error)]

    way = Way(colour, hold, f"secrets-{colour}")
    handle = way.start(body)
    way.engine.send_callback_success(way.callback(handle, "a"), '{"t": "hush-hush-token"}')
    way.engine.send_callback_failure(way.callback(handle, "b"), "no hush-hush-token")
    assert handle.result(20) == ['{"t":"***"}', "no ***"]
    assert "hush-hush" not in repr(handle.history())
    way.engine.stop()


def test_who_answered_is_on_record(way: Way) -> None:
    async def body(event: Any, context: Any) -> Any:
        callback = await context.create_callback("a", CallbackConfig(30))
        return [await callback.result(), await context.step(giver(1), name="s")]

    handle = way.start(body)
    way.engine.send_callback_success(way.callback(handle), "x")
    handle.wait(20)
    ended = next(r for r in handle.history() if r["record"] == "CallbackSucceeded")
    assert ended["by"]
