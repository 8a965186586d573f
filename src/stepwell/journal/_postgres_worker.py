"""Leases of workers: beats on a connection of their own, and who has been silent for how long (ENGINE.md §2)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import msgspec

from stepwell.journal._api import WorkerInfo
from stepwell.journal._liveness import Silence, local_worker
from stepwell.journal._postgres_link import rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepwell.journal._api import Clock
    from stepwell.journal._postgres_link import Link
    from stepwell.journal._postgres_schema import Sql
    from stepwell.journal._postgres_time import StoreTime

DEAD = float("inf")


class Workers:
    """The worker table, as this process writes and reads it. Thread-safe."""

    def __init__(self, link: Link, sql: Sql, times: StoreTime, clock: Clock) -> None:
        self._link = link
        self._sql = sql
        self._times = times
        self._clock = clock
        self._lock = threading.Lock()
        self._own: dict[str, WorkerInfo] = {}
        self._silence = Silence(clock)
        self._opened = 0

    def _run(self, name: str, values: Mapping[str, Any]) -> list[tuple[str | None, ...]]:
        statement = self._sql.statement(name)
        return self._link.patiently(lambda _: rows(self._link.run(statement, values)))

    def register(self, info: WorkerInfo) -> None:
        """The worker lives, in this process."""
        self._run("worker_register", _values(info))
        with self._lock:
            self._own[info.id] = info

    def beat(self, worker: str) -> None:
        """One more sign of life; the server tells its time with it."""
        info = self._own.get(worker)
        if info is None:
            return
        statement = self._sql.statement("worker_beat")

        def attempt(_: bool) -> None:
            asked = self._times.monotonic()
            answer = rows(self._link.run(statement, _values(info)))
            self._times.sample(int(answer[0][0] or 0), asked, self._times.monotonic())

        self._link.patiently(attempt)

    def leave(self, worker: str) -> None:
        """The worker is no more; what it still holds is anybody's."""
        self._run("worker_leave", {"worker": worker})
        with self._lock:
            self._own.pop(worker, None)

    def listed(self) -> list[WorkerInfo]:
        """All that registered and did not leave."""
        return [msgspec.json.decode(info or "", type=WorkerInfo) for (info,) in self._run("worker_list", {})]

    def silence(self) -> Mapping[str, float]:
        """Seconds of silence of each worker that is not of this process."""
        beats = self._run("worker_beats", {})
        with self._lock:
            if self._opened != self._link.opened:
                # While the server was away nobody's beat could be seen: what was not watched is no silence.
                self._opened = self._link.opened
                self._silence = Silence(self._clock)
            observer = next(iter(self._own.values()), None) or local_worker(worker_id="")
            silent: dict[str, float] = {}
            for worker, text, beat, left in beats:
                if worker is None or worker in self._own:
                    continue
                if left == "t":
                    silent[worker] = DEAD
                    continue
                # An owner that never registered is judged like one that never beats.
                info = WorkerInfo(worker, "", "", "", 0, "") if text is None else _info(text)
                silent[worker] = self._silence.observe(observer, info, int(beat or 0))
            self._silence.retain(silent)
        return silent


def _values(info: WorkerInfo) -> dict[str, Any]:
    return {"worker": info.id, "info": msgspec.json.encode(info).decode()}


def _info(text: str) -> WorkerInfo:
    return msgspec.json.decode(text, type=WorkerInfo)
