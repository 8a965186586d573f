"""Checks of the store conformance suite: time, and which workers are alive (ENGINE.md §1 and §2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from stepwell.journal._liveness import local_worker
from stepwell.testing._clock import VirtualClock
from stepwell.testing._store_rig import HOUR, MINUTE, SECOND, StoreRig

if TYPE_CHECKING:
    from stepwell.journal._api import Store, WorkerInfo

NOBODY = 2**22 + 7
"""A pid above the greatest that Linux gives."""


@dataclass
class _Pair:
    """A worker ``a`` that is watched, and the process of ``b`` that watches it, each with clocks of its own."""

    a: Store
    b: Store
    a_clock: VirtualClock
    b_clock: VirtualClock

    def silence(self) -> float | None:
        return self.b.worker_silence().get("a")


class WorkerChecks(StoreRig):
    """Silence is what an observer's own monotonic clock says of beats that it saw."""

    def pair(self, a: WorkerInfo | None = None, b: WorkerInfo | None = None, *, apart: float = 0.0) -> _Pair:
        """Two processes, their wall clocks ``apart`` seconds from each other, each with a worker."""
        a_clock, b_clock = VirtualClock(), VirtualClock()
        b_clock.step_wall(apart)
        pair = _Pair(self.open(a_clock), self.open(b_clock), a_clock, b_clock)
        pair.a.worker_register(a or self.worker("a"))
        pair.b.worker_register(b or self.worker("b"))
        return pair

    def check_worker_list(self) -> None:
        """Every process sees the workers that registered and did not leave, as they described themselves."""
        a = self.worker("a", queues=("q", "r"), functions=("f",), pid=77, start="123.4")
        pair = self.pair(a)
        for store in (pair.a, pair.b):
            self.equal(sorted(store.worker_list(), key=lambda i: i.id), [a, self.worker("b")], "workers")
        pair.a.worker_leave("a")
        for store in (pair.a, pair.b):
            self.equal(store.worker_list(), [self.worker("b")], "workers after one left")
        self.equal(pair.silence(), None, "silence of the worker that left")

    def check_worker_registers_again(self) -> None:
        """A worker that registers twice is one worker, described anew."""
        self.store.worker_register(self.worker("a"))
        anew = replace(self.worker("a"), queues=("q",))
        self.store.worker_register(anew)
        self.equal(self.store.worker_list(), [anew], "workers")

    def check_worker_silence_grows_and_ends(self) -> None:
        """Silence is counted from the observer's first sight, grows with its monotonic clock, and a beat ends it."""
        pair = self.pair()
        self.equal(pair.silence(), 0.0, "silence at first sight")
        pair.b_clock.advance(10)
        self.near(pair.silence(), 10.0, "silence after ten seconds")
        pair.b_clock.advance(25)
        self.near(pair.silence(), 35.0, "silence after 35 seconds")
        pair.a.worker_beat("a")
        self.equal(pair.silence(), 0.0, "silence after a beat")
        pair.b_clock.advance(4)
        self.near(pair.silence(), 4.0, "silence four seconds after the beat was seen")

    def near(self, found: float | None, wanted: float, what: str) -> None:
        """Fail unless both are within a thousandth of a second."""
        self.expect(found is not None and abs(found - wanted) < 0.001, f"{what}: {found}, expected {wanted}")

    def check_worker_own_is_not_silent(self) -> None:
        """A process never judges its own workers, however many it has."""
        pair = self.pair()
        pair.b.worker_register(self.worker("b2"))
        pair.silence()
        pair.b_clock.advance(1000)
        self.equal(set(pair.b.worker_silence()), {"a"}, "workers that the process of b and b2 judges")

    def check_worker_watched_by_nobody_in_particular(self) -> None:
        """A process without a worker of its own (a command line) can judge as well."""
        pair = self.pair()
        watcher = VirtualClock()
        store = self.open(watcher)
        self.equal(dict(store.worker_silence()), {"a": 0.0, "b": 0.0}, "silence at first sight")
        watcher.advance(9)
        pair.a.worker_beat("a")
        silence = store.worker_silence()
        self.near(silence["a"], 0.0, "silence of the worker that beat")
        self.near(silence["b"], 9.0, "silence of the other")

    def check_worker_first_sight_is_late(self) -> None:
        """An observer that comes long after the last beat waits a whole ttl all the same: it compares no clocks."""
        pair = self.pair()
        pair.a_clock.advance(100_000)
        pair.b_clock.advance(100_000)
        self.equal(pair.silence(), 0.0, "silence at first sight")
        pair.b_clock.advance(29)
        self.near(pair.silence(), 29.0, "silence 29 seconds later")

    def check_worker_silence_ignores_wall_clocks(self) -> None:
        """Wall clocks that step, on either side, are no silence."""
        pair = self.pair()
        pair.silence()
        pair.b_clock.step_wall(7200)
        pair.a_clock.step_wall(-7200)
        self.equal(pair.silence(), 0.0, "silence after the clocks stepped")
        pair.b_clock.advance(3)
        pair.b_clock.step_wall(-100_000)
        self.near(pair.silence(), 3.0, "silence after three seconds")

    def check_clocks_an_hour_apart(self) -> None:
        """Two workers whose clocks are an hour apart: neither takes the other's run while beats come; when they stop,
        the run is due after its ttl, on the observer's monotonic clock, whichever of the two is ahead.
        """
        for i, apart in enumerate((3600.0, -3600.0)):
            a, b = self.worker("a"), self.worker("b")
            pair = self.pair(a, b, apart=apart)
            self.start(f"r{i}", "a", store=pair.a, ttl=30.0)
            for _ in range(20):
                for clock in (pair.a_clock, pair.b_clock):
                    clock.advance(10)
                pair.a.worker_beat("a")
                due = self.due(pair.b.now(), store=pair.b, silent=pair.b.worker_silence())
                self.equal(due, [], f"due for a worker {apart} seconds off, while beats come")
            pair.b_clock.advance(29)
            due = self.due(pair.b.now(), store=pair.b, silent=pair.b.worker_silence())
            self.equal(due, [], "due 29 seconds after the last beat")
            pair.b_clock.advance(1.001)
            due = self.due(pair.b.now(), store=pair.b, silent=pair.b.worker_silence())
            self.equal(due, [f"r{i}"], "due 30 seconds after the last beat")
            self.claim(f"r{i}", "b", store=pair.b)
            pair.a.worker_leave("a")
            pair.b.worker_leave("b")

    def check_timers_with_clocks_an_hour_apart(self) -> None:
        """A worker on a host that is an hour ahead ends nobody's wait early. On SQLite all processes share the host's
        clock; there the time asked with decides, which `check_due_by_time` shows.
        """
        if self.store.kind == "sqlite":
            return
        ahead_clock = VirtualClock()
        ahead_clock.step_wall(3600)
        ahead = self.open(ahead_clock)
        gap = abs(ahead.now() - self.store.now())
        self.expect(gap < MINUTE, f"the store's time differs by {gap} µs between two processes")
        self.park(self.start("r"), self.store.now() + HOUR // 2)
        self.equal(self.due(ahead.now(), store=ahead), [], "due for the worker that is ahead")

    def check_time_never_goes_back(self) -> None:
        """The store's time stands still while the host's clock is set back, and goes on from there."""
        times = [self.store.now()]
        for step in (0.0, -3600.0, -1.0):
            self.clock.step_wall(step)
            times.append(self.store.now())
            self.clock.advance(1)
            times.append(self.store.now())
        self.equal(times, sorted(times), "readings of the store's time")

    def check_time_goes_on(self) -> None:
        """When time passes, the store's time passes."""
        before = self.store.now()
        self.clock.advance(90)
        passed = self.store.now() - before
        self.expect(passed >= 90 * SECOND, f"{passed} µs passed while the clock went on by 90 s")

    def check_worker_there_and_quiet(self) -> None:
        """A worker whose process is seen to exist on the observer's own host, boot and pid namespace, not stopped,
        counts a tenth: a C call that keeps the GIL for a minute loses no run.
        """
        pair = self.pair(local_worker(worker_id="a"), local_worker(worker_id="b"))
        pair.silence()
        pair.b_clock.advance(100)
        self.near(pair.silence(), 10.0, "silence after 100 seconds")

    def check_worker_dead_here(self) -> None:
        """A worker whose process is gone from the observer's own host, boot and pid namespace is dead at once."""
        here = local_worker(worker_id="a")
        pair = self.pair(replace(here, pid=NOBODY), local_worker(worker_id="b"))
        self.equal(pair.silence(), float("inf"), "silence")

    def check_worker_watched_from_its_own_place(self) -> None:
        """A process without a worker of its own (a command line) sees the processes around it just as well: the dead
        are dead at once, and who is there and quiet counts a tenth.
        """
        here = local_worker(worker_id="a")
        pair = self.pair(here, replace(here, id="b", pid=NOBODY))
        watcher = VirtualClock()
        store = self.open(watcher)
        self.equal(dict(store.worker_silence()), {"a": 0.0, "b": float("inf")}, "silence at first sight")
        watcher.advance(100)
        self.near(store.worker_silence()["a"], 10.0, "silence after 100 seconds")
        pair.b.worker_leave("b")

    def check_worker_pid_used_again(self) -> None:
        """The same pid with another start time is another process: the worker is dead."""
        here = local_worker(worker_id="a")
        pair = self.pair(replace(here, start="1"), local_worker(worker_id="b"))
        self.equal(pair.silence(), float("inf"), "silence")

    def check_worker_elsewhere_is_not_looked_for(self) -> None:
        """Where boot, host or pid namespace differ, a pid says nothing: the worker is not dead before its ttl."""
        here = local_worker(worker_id="a", queues=(), functions=())
        for field in ("host", "boot", "pidns"):
            other = replace(here, pid=NOBODY, **{field: "another"})
            pair = self.pair(other, local_worker(worker_id="b"))
            pair.silence()
            pair.b_clock.advance(20)
            self.near(pair.silence(), 20.0, f"silence of a worker with another {field}")
            pair.a.worker_leave("a")
            pair.b.worker_leave("b")
