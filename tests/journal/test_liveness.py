"""ENGINE.md §2: what can be said of a worker's process, and how its silence counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from stepwell.journal import _liveness
from stepwell.journal._liveness import Silence, local_worker, process_state, same_place
from stepwell.testing._clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stepwell.journal._api import WorkerInfo

INF = float("inf")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with process:
        yield process
        process.kill()


@pytest.fixture
def no_proc(tmp_path: Path) -> Iterator[None]:
    """A system without ``/proc``. What is read there once for good is read anew, before and after."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_liveness, "_PROC", tmp_path)
        _liveness._boot_id.cache_clear()
        yield
    _liveness._boot_id.cache_clear()


def of(process: subprocess.Popen[bytes]) -> WorkerInfo:
    stat = _liveness._stat_read(process.pid)
    assert stat is not None
    return replace(local_worker(worker_id="other"), pid=process.pid, start=stat[1])


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)


def test_a_worker_names_host_boot_namespace_pid_and_start() -> None:
    info = local_worker(worker_id="a", queues=["q"], functions=["f"])
    assert (info.id, info.pid, info.queues, info.functions) == ("a", os.getpid(), ("q",), ("f",))
    assert info.host == os.uname().nodename
    assert info.boot
    assert info.pidns
    assert info.start
    assert process_state(info) == "there"


@pytest.mark.parametrize("field", ["host", "boot", "pidns"])
def test_a_place_is_host_boot_and_pid_namespace(field: str) -> None:
    info = local_worker(worker_id="a")
    assert same_place(info, replace(info, id="b", pid=1))
    assert not same_place(info, replace(info, **{field: "another"}))
    nowhere = replace(info, **{field: ""})
    assert same_place(nowhere, nowhere) is (field == "host")


def test_states_of_a_process(sleeper: subprocess.Popen[bytes]) -> None:
    info = of(sleeper)
    assert process_state(info) == "there"
    stop(sleeper)
    assert process_state(info) == "stopped"
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert process_state(info) == "gone"  # a zombie: its parent has not asked for it yet
    sleeper.wait()
    assert process_state(info) == "gone"


def test_a_pid_used_again_is_another_process(sleeper: subprocess.Popen[bytes]) -> None:
    assert process_state(replace(of(sleeper), start="1")) == "gone"


@pytest.mark.usefixtures("no_proc")
def test_a_process_that_hides_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    # As under hidepid: no entry for others' processes.
    info = local_worker(worker_id="a")
    assert process_state(info) == "there"

    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    assert process_state(info) == "there"


@pytest.mark.usefixtures("no_proc")
def test_without_proc_a_worker_is_judged_by_its_beats() -> None:
    info = local_worker(worker_id="a")
    assert (info.boot, info.pidns, info.start) == ("", "", "")
    assert not same_place(info, info)


def test_silence_is_counted_from_the_first_sight_and_ended_by_a_beat() -> None:
    clock = VirtualClock()
    silence, info = Silence(clock), replace(local_worker(worker_id="a"), host="elsewhere")
    me = local_worker(worker_id="me")
    assert silence.observe(me, info, 1) == 0.0
    clock.advance(31)
    assert silence.observe(me, info, 1) == 31.0
    assert silence.observe(me, info, 2) == 0.0
    clock.advance(5)
    clock.step_wall(-3600)
    assert silence.observe(None, info, 2) == 5.0
    assert silence.observe(None, replace(info, pid=info.pid + 1), 2) == 0.0  # the same name, registered anew


def test_a_process_that_is_there_counts_a_tenth_and_one_that_is_stopped_counts_whole(
    sleeper: subprocess.Popen[bytes],
) -> None:
    clock = VirtualClock()
    silence, info, me = Silence(clock), of(sleeper), local_worker(worker_id="me")
    assert silence.observe(me, info, 1) == 0.0
    clock.advance(100)
    assert silence.observe(me, info, 1) == 10.0
    assert silence.observe(None, info, 1) == 100.0  # a stranger cannot know
    stop(sleeper)
    assert silence.observe(me, info, 1) == 100.0
    sleeper.kill()
    sleeper.wait()
    assert silence.observe(me, info, 1) == INF
    assert silence.observe(replace(me, pidns="another"), info, 1) == 100.0  # the pid of a container means nothing here


def test_known_dead_is_dead() -> None:
    assert Silence(VirtualClock()).observe(None, local_worker(worker_id="a"), 1, known_dead=True) == INF


def test_forgotten_workers_are_seen_for_the_first_time() -> None:
    clock = VirtualClock()
    silence, info = Silence(clock), replace(local_worker(worker_id="a"), host="elsewhere")
    silence.observe(None, info, 1)
    clock.advance(9)
    silence.retain(["a", "b"])
    assert silence.observe(None, info, 1) == 9.0
    silence.retain([])
    assert silence.observe(None, info, 1) == 0.0
