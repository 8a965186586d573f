"""The host's own threads: the beat that keeps its leases, the look at what became of them, and the tick that flushes
what rides too long.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from stepwell.errors import Fenced, JournalError
from stepwell.runtime._api import LifeOver

if TYPE_CHECKING:
    from collections.abc import Callable

    from stepwell.runtime._host import Host
    from stepwell.runtime._life import Life

TICK = 0.05
"""Seconds between two looks at what rides."""
LOOK = 0.25
"""Seconds between two looks at the held runs' inboxes and epochs."""


class Pulse:
    """The threads. None ever comes from the bodies' pool, and none dies of an error."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._stop = threading.Event()
        self._armed = threading.Event()
        self._threads: list[threading.Thread] = []
        self.ticking = False
        self._seen: dict[int, float] = {}

    def start(self) -> None:
        """Begin to beat. Idempotent."""
        if self._threads:
            return
        threads = ((self._beat, "stepwell-beat"), (self._looks, "stepwell-look"), (self._tick, "stepwell-tick"))
        for work, name in threads:
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """End the threads. Idempotent."""
        self._stop.set()
        self._armed.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()
        self._threads = []

    def arm(self) -> None:
        """Something rides: look at it until nothing does."""
        self.ticking = True
        self._armed.set()

    def _tick(self) -> None:
        while not self._stop.is_set():
            self._armed.wait()
            self._armed.clear()
            while not self._stop.wait(TICK):
                self.ticking = False
                if not self.flush(self._host.clock.monotonic()) and not self.ticking:
                    break
                self.ticking = True

    def flush(self, now: float) -> bool:
        """Commit what has been riding for ``start_flush`` seconds; True if anything rides still."""
        host, seen = self._host, self._seen
        lives = [life for life in list(host.lives.values()) if life.line.riding]
        ripe = [life for life in lives if now - seen.setdefault(id(life), now) >= host.start_flush - TICK / 2]
        current = {id(life) for life in lives}
        for key in [key for key in seen if key not in current]:
            del seen[key]
        for life in ripe:
            seen.pop(id(life), None)
        usable = [life.line for life in ripe if life.over is None]
        host.writer.flush(usable)
        return bool(lives)

    def _beat(self) -> None:
        """Nothing else, so that nothing is waited for: a look may write, and stand behind a transactional step."""
        host = self._host
        beat_every = host.lease / 6
        next_beat = 0.0
        while not self._stop.wait(min(LOOK, beat_every)):
            now = host.clock.monotonic()
            if now >= next_beat:
                self._kept(lambda: host.store.worker_beat(host.worker))
                next_beat = now + beat_every

    def _looks(self) -> None:
        while not self._stop.wait(LOOK):
            self._kept(self.look)

    def _kept(self, work: Callable[[], None]) -> None:
        try:
            work()
        except JournalError:
            pass  # the store is away for now; the lives find out at their next commit
        except Exception as error:
            self._host.complain(f"the beat met {error!r}")

    def look(self) -> None:
        """Find leases that were lost, inboxes that have grown, drivers that are gone, deadlines that have passed."""
        host = self._host
        if host.unreleased:
            host.release_again()
        lives = {life.lease.rid: life for life in list(host.lives.values()) if life.lease.rid is not None}
        if not lives:
            return
        held = {rid: (epoch, inbox) for rid, epoch, inbox in host.store.hot_held(host.worker)}
        now = host.store.now()
        for rid, life in lives.items():
            if life.run.id not in host.lives or life.ended:
                continue
            if rid not in held:
                self._maybe_lost(life)
                continue
            epoch, inbox = held[rid]
            if epoch != life.lease.epoch:
                life.stop(LifeOver("lease lost", Fenced(f"run {life.run.id} was taken over")))
            elif inbox > life.lease.inbox:
                host.take_inbox(life)
            elif life.deadline is not None and now >= life.deadline and not life.rolling_back and life.over is None:
                life.unwind("timed_out")
            elif life.abandoned():
                host.give_back(life)

    def _maybe_lost(self, life: Life) -> None:
        """Not among the held runs: it may just have ended, parked or begun; ask again before believing it."""
        hot = self._host.store.hot_get(life.run.id)
        if hot is not None and life.over is None and not life.ended and hot.epoch > life.lease.epoch:
            life.stop(LifeOver("lease lost", Fenced(f"run {life.run.id} was taken over")))
