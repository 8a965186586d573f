"""Waking: who hears of what, and how many NOTIFY are sent (ENGINE.md §7)."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from stepwell.journal._api import End, Park, Release, Unpark
from stepwell.journal._postgres import PostgresStore
from stepwell.journal._postgres_wait import APART, PostgresTeller
from stepwell.testing._clock import START
from stepwell.testing._store_rig import HOUR, StoreRig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Rig(StoreRig):
    def __init__(self, url: str) -> None:
        super().__init__(lambda clock: PostgresStore(url, clock))
        self.url = url


@pytest.fixture
def rig(postgres_database: str) -> Iterator[Rig]:
    found = Rig(postgres_database)
    try:
        yield found
    finally:
        for store in found._stores:
            store.close()


@pytest.fixture
def ear(rig: Rig) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(rig.url, autocommit=True) as connection:
        connection.execute('listen "stepwell:stepwell"')
        yield connection


def heard(ear: psycopg.Connection[Any], seconds: float = 0.0) -> int:
    """How many notifications have come, after a trip to the server that brings all that were sent before."""
    ear.execute("select 1")
    return len(list(ear.notifies(timeout=seconds)))


def settle(rig: Rig) -> None:
    """Past the distance between two NOTIFY, so that the next one goes with its commit."""
    assert isinstance(rig.store, PostgresStore)
    with rig.store._teller._condition:
        rig.store._teller._last = float("-inf")
        rig.store._teller._owed = False


def test_who_is_told(rig: Rig, ear: psycopg.Connection[Any]) -> None:
    """Commits that make a run claimable or end one tell others, in the commit itself; a step never does."""
    lease = rig.start("held")
    other = rig.start("other")
    third = rig.start("third")
    hot = rig.hot("other")
    cases: list[tuple[Callable[[], object], int]] = [
        (lambda: rig.append(lease), 0),
        (lambda: rig.start("started and held"), 0),
        (lambda: rig.start("pending", held=False), 1),
        (lambda: rig.commit(rig.batch(lease, change=Park(None, "x", 0, release=False))), 0),
        (lambda: rig.commit(rig.batch(lease, change=Unpark())), 0),
        (lambda: rig.store.fact_deliver("held", "signal", START, b""), 1),
        (lambda: rig.store.fact_deliver("nobody", "signal", START, b""), 0),
        (lambda: rig.store.run_claim(hot, "w2", rig.taken(hot, "w2")), 0),
        (lambda: rig.commit(rig.batch(lease, change=Park(START + 10**9 * HOUR, "x", 1, release=True))), 0),
        (lambda: rig.commit(rig.batch(third, change=Release("interrupted"))), 1),
        (lambda: rig.commit(rig.batch(rig.claim("third", "w1"), change=Release("blocked"))), 0),
        (lambda: rig.commit(rig.batch(rig.claim("held", "w1"), rig.record(), change=End("succeeded"))), 1),
        (lambda: rig.commit(rig.batch(rig.start("p"), change=Park(START, "x", 0, release=True))), 1),
        (lambda: rig.commit(*(rig.start_batch(f"many {i}", held=False) for i in range(9))), 1),
    ]
    for number, (act, wanted) in enumerate(cases):
        settle(rig)
        heard(ear)
        act()
        assert heard(ear) == wanted, number
    assert other.rid is not None


def test_few_are_sent_and_the_last_is_not_lost(rig: Rig, ear: psycopg.Connection[Any]) -> None:
    """Of many commits in a row at most one in 5 ms tells; what the last one had to say is said soon after."""
    settle(rig)
    began = time.monotonic()
    for i in range(40):
        rig.start(f"r{i}", held=False)
    took = time.monotonic() - began
    rig.store.close()
    assert 1 <= heard(ear) <= took / APART + 2


def test_what_is_owed_is_sent_later() -> None:
    sent = threading.Event()
    teller = PostgresTeller("c", "t", sent.set)
    assert teller.may_tell()
    assert not teller.may_tell()
    assert not teller.may_tell()
    assert sent.wait(10)
    teller.close()
    teller.close()


def test_what_is_owed_goes_with_a_later_commit() -> None:
    sent = threading.Event()
    teller = PostgresTeller("c", "t", sent.set)
    with teller._condition:  # the sender has to wait
        assert teller.may_tell()
        assert not teller.may_tell()
        teller._last -= APART
        assert teller.may_tell()
    teller.close()
    assert not sent.is_set()


def test_what_is_owed_is_sent_at_the_close() -> None:
    sent = threading.Event()
    teller = PostgresTeller("c", "t", sent.set)
    assert teller.may_tell()
    assert not teller.may_tell()
    teller.close()
    assert sent.is_set()


def waiting(store: Any) -> tuple[threading.Thread, threading.Event]:
    ended = threading.Event()

    def wait() -> None:
        store.wait(60)
        ended.set()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread, ended


def listens(store: Any) -> None:
    """Open the listener and use up what this thread has not seen yet."""
    assert store.facts()["waking"] == "listen"
    store.wait(0)


def test_another_process_is_woken(rig: Rig) -> None:
    other = rig.open()
    rig.start("r")
    listens(other)
    threads = [waiting(other) for _ in range(3)]
    settle(rig)
    rig.store.fact_deliver("r", "signal", START, b"s")
    for thread, ended in threads:
        assert ended.wait(10)
        thread.join()


def test_own_waiters_are_woken(rig: Rig) -> None:
    """By the commit itself, whether a NOTIFY went with it or not."""
    listens(rig.store)
    rig.start("first", held=False)
    rig.store.wait(0)
    threads = [waiting(rig.store) for _ in range(3)]
    rig.start("second", held=False)
    for thread, ended in threads:
        assert ended.wait(10)
        thread.join()


def test_a_change_between_two_waits_is_not_missed(rig: Rig) -> None:
    listens(rig.store)
    rig.store.wait(0.001)
    rig.start("r", held=False)
    began = time.monotonic()
    rig.store.wait(60)
    assert time.monotonic() - began < 30


def test_a_wait_ends_when_the_store_closes(rig: Rig) -> None:
    listens(rig.store)
    thread, ended = waiting(rig.store)
    rig.store.close()
    assert ended.wait(10)
    thread.join()


def test_two_schemas_do_not_wake_each_other(rig: Rig, ear: psycopg.Connection[Any]) -> None:
    store = PostgresStore(f"{rig.url}?schema=other")
    other = StoreRig(lambda clock: store)
    other.start("r", held=False)
    store.close()
    assert heard(ear) == 0


def test_the_listener_comes_back(rig: Rig) -> None:
    other = rig.open()
    assert isinstance(other, PostgresStore)
    listens(other)
    rig.start("r")
    with psycopg.connect(rig.url, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'stepwell listen'"
        )
    other.wait(60)  # the loss is a hint
    other._waiter._retry_at = float("-inf")
    other.wait(60)  # listens again: a hint, too
    thread, ended = waiting(other)
    settle(rig)
    rig.store.fact_deliver("r", "signal", START, b"s")
    assert ended.wait(10)
    thread.join()
