"""What comes from outside while the run is about to park: it is queued for the journal, and not on record yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from stepwell import durable_execution
from tests.client.virtual import Virtual

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.journal import Ticket
    from stepwell.runtime import Life


@pytest.fixture(params=[0, 60])
def virtual(request: pytest.FixtureRequest) -> Iterator[Virtual]:
    made = Virtual(request.node.name, hold=request.param)
    yield made
    made.engine.stop()


@pytest.fixture
def queued(virtual: Virtual, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What comes next from outside is queued, and on record when the run next commits something."""
    host = virtual.engine.host
    real = host.take_inbox
    later: list[tuple[Life, Ticket]] = []

    def take(life: Life) -> None:
        monkeypatch.setattr(host, "take_inbox", real)
        ticket = life.outside.inbox_ticket()
        assert ticket is not None
        later.append((life, ticket))

    commit = host.writer.commit

    def commit_and_react(ticket: Ticket) -> None:
        try:
            commit(ticket)
        finally:
            while later:
                life, news = later.pop()
                life.outside.react(news)

    monkeypatch.setattr(host.writer, "commit", commit_and_react)
    return lambda: monkeypatch.setattr(host, "take_inbox", take)


def played(virtual: Virtual, handler: Any) -> str:
    """Status of the run after as many lives as it takes, without any time going by."""
    handle = virtual.engine.enqueue(handler, None, id="r")
    for _ in range(3):
        if virtual.live(handle) is None:
            break
    return str(virtual.engine.find("r").status)


def test_an_answer(virtual: Virtual, queued: Callable[[], None]) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        callback = context.create_callback("ask")
        if not context.is_replaying():
            queued()
            virtual.engine.send_callback_success(callback.callback_id, "yes")
        return callback.result()

    assert played(virtual, handler) == "succeeded"


def test_a_signal(virtual: Virtual, queued: Callable[[], None]) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        context.step(lambda _: None, name="first")
        if not context.is_replaying():
            queued()
            virtual.engine.get_run("r").signal("go", 1)
        return context.wait_signal("go")

    assert played(virtual, handler) == "succeeded"


def test_a_cancel(virtual: Virtual, queued: Callable[[], None]) -> None:
    @durable_execution
    def handler(event: Any, context: Any) -> Any:
        callback = context.create_callback("ask")
        queued()
        virtual.engine.get_run("r").cancel("enough")
        return callback.result()

    assert played(virtual, handler) == "cancelled"
