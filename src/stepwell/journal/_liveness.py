"""Is a worker alive? What can be said of a process on this machine, and of one that is only seen by its beats.

Three kinds of evidence (ENGINE.md §2), from strong to weak: a worker known dead (its record lock is free, its process
is gone), a process that exists and is not stopped although its beat stands still (a C call may hold the GIL for
minutes), and the beat number alone, timed on the observer's own monotonic clock. Clocks of hosts are never compared.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stepwell.journal._api import WorkerInfo

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from stepwell.journal._api import Clock

PATIENCE = 10
"""How many times longer than its lease a process may be silent that exists, is not stopped, and is seen to do so."""

_PROC = Path("/proc")


def local_worker(*, worker_id: str, queues: Sequence[str] = (), functions: Sequence[str] = ()) -> WorkerInfo:
    """A worker in this process, named so that others on this machine can look whether it lives.

    Where the system has no ``/proc``, ``boot`` and ``pidns`` are empty and the worker is judged by its beats alone.
    """
    pid = os.getpid()
    stat = _stat_read(pid)
    return WorkerInfo(
        id=worker_id,
        host=os.uname().nodename,
        boot=_boot_id(),
        pidns=_pid_namespace(),
        pid=pid,
        start=stat[1] if stat else "",
        queues=tuple(queues),
        functions=tuple(functions),
    )


def same_place(a: WorkerInfo, b: WorkerInfo) -> bool:
    """Pids of one mean the same processes to the other: same host, same boot, same pid namespace, all three known.

    The namespace is not a detail: two containers share the boot id and often the host name, and without it they would
    take each other's live runs.
    """
    return bool(a.boot and a.pidns) and (a.host, a.boot, a.pidns) == (b.host, b.boot, b.pidns)


def process_state(info: WorkerInfo) -> Literal["gone", "stopped", "there"]:
    """What became of the worker's process. Means something only to an observer in the `same_place`.

    In doubt (another user's process behind ``hidepid``) it is ``there``: the answer ``gone`` takes runs away.
    """
    stat = _stat_read(info.pid)
    if stat is None:
        return "there" if _pid_exists(info.pid) else "gone"
    state, start, threads = stat
    if info.start and start != info.start:
        return "gone"  # the number was given to another process
    if state in "ZX" and threads <= 1:
        return "gone"
    return "stopped" if state in "Tt" else "there"


class Silence:
    """How long each worker has been silent, on the observer's monotonic clock. Not thread-safe: its store locks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, tuple[WorkerInfo, int, float]] = {}

    def observe(self, observer: WorkerInfo | None, info: WorkerInfo, beat: int, *, known_dead: bool = False) -> float:
        """Take note of a worker's beat number; how long the worker counts as silent, in seconds.

        ``observer`` is a worker of this process, by which it is known whether pids can be compared (None: they cannot).
        Whoever only looks (a command line) is described as a worker, too, or it would take the dead for the living.
        Infinity: it is dead. 0: it is seen for the first time, or with a new beat. Else the seconds since its beat
        was first seen to stand still, of which only a tenth counts while its process exists and is not stopped.
        """
        if known_dead:
            return float("inf")
        here = observer is not None and same_place(observer, info)
        state = process_state(info) if here else "unknown"
        if state == "gone":
            return float("inf")
        now = self._clock.monotonic()
        last = self._seen.get(info.id)
        if last is None or last[:2] != (info, beat):
            self._seen[info.id] = (info, beat, now)
            return 0.0
        elapsed = now - last[2]
        return elapsed / PATIENCE if state == "there" else elapsed

    def retain(self, workers: Collection[str]) -> None:
        """Forget all workers but these."""
        for worker in self._seen.keys() - set(workers):
            del self._seen[worker]


@cache
def _boot_id() -> str:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str((_PROC / "self/ns/pid").stat().st_ino)
    except OSError:
        return ""


def _stat_read(pid: int) -> tuple[str, str, int] | None:
    """State letter, start time in kernel ticks since boot, number of threads; None if the kernel does not say."""
    try:
        text = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    # The command's name stands in parentheses and may hold spaces and parentheses itself.
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19], int(fields[17])


def _pid_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
