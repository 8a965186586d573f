"""What the memory store does beyond the contract: views that stand for processes, one clock for the data."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread

import pytest

from stepwell.errors import JournalError, UsageError
from stepwell.journal import RunFilter, Store
from stepwell.journal._memory import MemoryStore
from stepwell.testing._clock import VirtualClock
from stepwell.testing._store_rig import StoreRig


def rig_on(store: MemoryStore) -> StoreRig:
    return StoreRig(lambda clock: store)


def test_it_is_a_store() -> None:
    store: Store = MemoryStore("name")
    assert store.url == "memory://name"
    assert store.kind == "memory"
    store.close()


def test_two_stores_of_one_name_share_nothing() -> None:
    one, two = MemoryStore("same"), MemoryStore("same")
    rig_on(one).start("r")
    assert two.run_get("r") is None


def test_a_view_sees_the_same_data_and_outlives_the_first() -> None:
    first = MemoryStore("x", VirtualClock())
    view = first.view()
    rig = rig_on(first)
    lease = rig.start("r")
    rig.append(lease)
    first.close()
    with pytest.raises(JournalError, match="memory://x is closed"):
        first.run_get("r")
    assert len(view.record_load(lease.rid or 0)) == 2
    assert view.url == first.url


def test_time_is_that_of_the_clock_the_data_was_made_with() -> None:
    clock, ahead = VirtualClock(), VirtualClock()
    ahead.step_wall(3600)
    first = MemoryStore("x", clock)
    view = first.view(ahead)
    assert view.now() == first.now() == clock.now()
    clock.advance(5)
    now = clock.now()
    clock.step_wall(-60)
    assert view.now() == first.now()
    assert first.now() in (now, now - 5_000_000), "held still at the newest reading"
    clock.advance(3600)
    assert view.now() == clock.now()


def test_time_is_held_where_the_clock_steps_back() -> None:
    clock = VirtualClock()
    store = MemoryStore("x", clock)
    before = store.now()
    clock.step_wall(-3600)
    assert store.now() == before
    clock.advance(3599)
    assert store.now() == before
    clock.advance(2)
    assert store.now() == before + 1_000_000


def test_views_watch_each_other_with_their_own_clocks() -> None:
    mine, theirs = VirtualClock(), VirtualClock()
    one = MemoryStore("x", mine)
    two = one.view(theirs)
    rig = rig_on(one)
    one.worker_register(rig.worker("a"))
    two.worker_register(rig.worker("b"))
    assert one.worker_silence() == {"b": 0.0}
    assert two.worker_silence() == {"a": 0.0}
    theirs.advance(40)
    assert one.worker_silence() == {"b": 0.0}
    assert two.worker_silence() == {"a": 40.0}


def test_a_worker_that_leaves_with_runs_in_hand_is_dead() -> None:
    store = MemoryStore("x", VirtualClock())
    rig = rig_on(store)
    store.worker_register(rig.worker("w1"))
    store.worker_register(rig.worker("w2"))
    rig.start("r", "w1")
    store.worker_leave("w1")
    store.worker_leave("w2")
    assert store.view().worker_silence() == {"w1": float("inf")}
    assert rig.due(store.now(), silent=store.view().worker_silence()) == ["r"]
    store.worker_register(rig.worker("w1"))
    assert store.view().worker_silence() == {"w1": 0.0}


def test_a_beat_of_a_worker_that_left_is_no_error() -> None:
    store = MemoryStore("x", VirtualClock())
    store.worker_beat("nobody")
    store.worker_leave("nobody")
    assert store.worker_list() == []


def test_there_are_no_transactions() -> None:
    with pytest.raises(UsageError, match="memory://x"):
        MemoryStore("x").transaction()


def wakes(watcher: MemoryStore, act: Callable[[], object], within: float = 20) -> bool:
    """Whether ``act`` ends a wait of the watcher, begun before it or after it, within so many seconds."""
    watcher.wait(0)
    thread = Thread(target=watcher.wait, args=(60,))
    thread.start()
    act()
    thread.join(within)
    woken = not thread.is_alive()
    watcher.poke()
    thread.join()
    return woken


def test_a_wait_ends_at_what_others_may_want_to_know() -> None:
    store = MemoryStore("x", VirtualClock())
    rig, watcher = rig_on(store), store.view()
    lease = rig.start("held")
    assert wakes(watcher, lambda: rig.start("pending", held=False))
    assert wakes(watcher, lambda: rig.park(lease, None))
    assert wakes(watcher, lambda: store.fact_deliver("held", "signal", 0, b""))
    assert wakes(watcher, watcher.poke)
    assert wakes(watcher, watcher.close)


def test_a_wait_does_not_end_at_a_step() -> None:
    store = MemoryStore("x", VirtualClock())
    rig, watcher = rig_on(store), store.view()
    lease = rig.start("r")
    assert not wakes(watcher, lambda: rig.append(lease, "a", "b"), within=0.05)


def test_a_change_between_poll_and_wait_is_not_missed() -> None:
    store = MemoryStore("x", VirtualClock())
    watcher = store.view()
    watcher.wait(0)
    rig_on(store).start("r", held=False)
    watcher.wait(60)  # returns at once, or the test's own time-out says so


def test_check_tells_of_blobs_that_are_gone() -> None:
    store = MemoryStore("x", VirtualClock())
    rig = rig_on(store)
    lease = rig.start("r")
    rig.commit(rig.batch(lease, rig.record(), blobs=[b"\x01" * 32]))
    assert list(store.check()) == [f"run r refers to blob {'01' * 32}, which is not there"]
    store.blob_put(b"\x01" * 32, iter([b"x"]))
    assert list(store.check()) == []
    assert store.facts()["runs"] == "1"


def test_many_threads_lose_nothing() -> None:
    store = MemoryStore("x")
    rig = rig_on(store)
    leases = [rig.start(f"r{i}") for i in range(8)]

    def write(number: int) -> int:
        view, lease = store.view(), leases[number]
        for i in range(200):
            view.fact_deliver(lease.run_id, "signal", i, b"")
            batch = rig.batch(lease, rig.record(f"{i}"))
            assert view.batch_commit([batch]) == [None]
            lease.seq = batch.seq
        return len(view.record_load(lease.rid or 0))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, range(8))) == [201] * 8
    facts = [fact.n for lease in leases for fact in store.inbox_load(lease.rid or 0)]
    assert len(set(facts)) == 1600
    assert store.run_count(RunFilter()) == 8
