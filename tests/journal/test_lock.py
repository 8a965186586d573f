"""ENGINE.md §2 and §6: the fair lock between processes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from stepwell.errors import JournalBusy, JournalError, UsageError
from stepwell.journal import _lock
from stepwell.journal._lock import FairLock
from tests.journal.sqlite_rows import in_child

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OTHER = """
import sys
from stepwell.journal._lock import FairLock
lock = FairLock.for_path(sys.argv[1])
for line in sys.stdin:
    word, _, doing = line.strip().partition(" ")
    if word == "acquire":
        lock.acquire(doing)
    elif word == "release":
        lock.release()
    elif word == "worker":
        print(lock.worker_hold(), flush=True)
        continue
    elif word == "held":
        print(lock.worker_held(int(doing)), flush=True)
        continue
    print(word, flush=True)
"""


class Other:
    """Another process with the same lock, told what to do."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{words}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def do(self, words: str) -> str:
        self.tell(words)
        return self.answer()

    def end(self) -> None:
        self.process.kill()
        with self.process:
            pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a store.db"


@pytest.fixture
def lock(path: Path) -> Iterator[FairLock]:
    lock = FairLock.for_path(path)
    yield lock
    lock.leave()


@pytest.fixture
def others(path: Path) -> Iterator[list[Other]]:
    others = [Other(path) for _ in range(3)]
    yield others
    for other in others:
        other.end()


def queued(lock: FairLock) -> bool:
    """Whether somebody waits: holds the turnstile."""
    return lock._holder_pid(_lock.TURNSTILE) is not None


def until_queued(lock: FairLock) -> None:
    while not queued(lock):
        os.sched_yield()


def test_one_lock_for_a_file_however_its_path_is_written(tmp_path: Path, path: Path, lock: FairLock) -> None:
    link = tmp_path / "link.db"
    path.touch()
    link.symlink_to(path)
    again = FairLock.for_path(os.path.relpath(link))
    assert again is lock
    again.leave()
    with lock:
        pass  # one user has left, the other goes on


def test_it_is_opened_anew_after_the_last_user_has_left(path: Path) -> None:
    first = FairLock.for_path(path)
    first.leave()
    with pytest.raises(JournalError, match="open it again"), first:
        pass
    second = FairLock.for_path(path)
    with second:
        assert second is not first
    second.leave()


def test_others_wait_and_get_it_in_order(lock: FairLock, others: list[Other]) -> None:
    a, b, _ = others
    with lock:
        a.tell("acquire")
        until_queued(lock)
        b.tell("acquire")
    assert a.answer() == "acquire"
    assert a.do("release") == "release"
    assert b.answer() == "acquire"
    assert b.do("release") == "release"


def test_who_has_just_released_does_not_overtake(lock: FairLock, others: list[Other]) -> None:
    a, b, _ = others
    a.do("acquire")
    b.tell("acquire")
    until_queued(lock)
    a.do("release")
    a.tell("acquire")  # at once, and again
    assert b.answer() == "acquire"
    until_queued(lock)
    b.do("release")
    assert a.answer() == "acquire"


def test_a_holder_that_is_killed_holds_nothing(lock: FairLock, others: list[Other]) -> None:
    a, b, _ = others
    a.do("acquire")
    b.tell("acquire")
    until_queued(lock)
    b.end()  # who waited, too
    a.end()
    with lock:
        assert lock.holder() is None


def test_busy_names_the_holder_and_what_it_does(
    lock: FairLock, others: list[Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = others[0]
    a.do("acquire in step 'load' of run r1")
    monkeypatch.setattr(_lock, "PATIENCE", 0.05)
    with pytest.raises(JournalBusy) as caught, lock:
        pass
    holder = f"process {a.process.pid}, in step 'load' of run r1"
    assert caught.value.holder == holder
    assert str(caught.value) == f"{lock.target} is held for over 0.05 s by {holder}"
    assert caught.value.exit_code == 7
    assert caught.value.hint
    a.do("release")
    with lock:  # the place in the queue of the one who gave up is used, or given back
        assert lock.holder() is None
    assert a.do("acquire") == "acquire"
    assert lock.holder() == f"process {a.process.pid}"  # what it did is not said of what it does now


def test_giving_up_does_not_keep_others_out(
    lock: FairLock, others: list[Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = others
    a.do("acquire")
    monkeypatch.setattr(_lock, "PATIENCE", 0.0)
    with pytest.raises(JournalBusy), lock:
        pass
    b.tell("acquire")
    a.do("release")
    assert b.answer() == "acquire"


def test_what_comes_too_late_is_not_taken_from_the_next_thread(
    lock: FairLock, others: list[Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = others
    a.do("acquire")
    enter, entered, go = lock._queue._enter, threading.Event(), threading.Event()

    def slow() -> OSError | None:
        error = enter()
        entered.set()  # the process has the lock, and its thread has not yet seen that nobody wants it
        go.wait()
        return error

    monkeypatch.setattr(lock._queue, "_enter", slow)
    monkeypatch.setattr(_lock, "PATIENCE", 0.01)
    with pytest.raises(JournalBusy), lock:
        pass
    monkeypatch.setattr(_lock, "PATIENCE", 30.0)
    a.do("release")
    entered.wait()
    threading.Timer(0.0, go.set).start()
    with lock:
        b.tell("acquire")
        until_queued(lock)  # it must wait
    assert b.answer() == "acquire"


def test_leaving_while_a_request_is_under_way_keeps_the_file_open(
    path: Path, others: list[Other], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, _ = others
    first = FairLock.for_path(path)
    a.do("acquire")
    monkeypatch.setattr(_lock, "PATIENCE", 0.01)
    with pytest.raises(JournalBusy), first:
        pass
    first.leave()
    second = FairLock.for_path(path)
    assert second is first
    number = second.worker_hold()
    a.do("release")
    assert b.do("acquire") == "acquire"
    b.do("release")
    assert a.do(f"held {number}") == "True"
    second.worker_drop(number)
    second.leave()


def test_an_interrupt_while_waiting_leaves_it_free(lock: FairLock, others: list[Other]) -> None:
    a, b, _ = others
    a.do("acquire")
    main = threading.get_ident()

    def interrupt() -> None:
        while not lock._queue.waiting:
            os.sched_yield()
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt), lock:
        pass
    thread.join()
    a.do("release")
    assert b.do("acquire") == "acquire"
    b.do("release")
    with lock:
        pass


def test_threads_of_one_process_exclude_one_another(lock: FairLock) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        for _ in range(200):
            with lock:
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_a_thread_that_holds_it_is_told_at_once(lock: FairLock) -> None:
    with lock, pytest.raises(UsageError, match=r"this thread writes .* already"):
        lock.acquire()
    with lock:
        pass


def test_another_thread_that_holds_it_is_named(lock: FairLock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock, "PATIENCE", 0.01)
    caught: list[JournalBusy] = []

    def work() -> None:
        try:
            lock.acquire()
        except JournalBusy as error:
            caught.append(error)

    lock.acquire("in step 'x'")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    lock.release()
    assert caught[0].holder == f"another thread of this process (pid {os.getpid()}, in step 'x')"


def test_a_false_deadlock_is_waited_out(lock: FairLock, others: list[Other], monkeypatch: pytest.MonkeyPatch) -> None:
    # The kernel says EDEADLK where two threads of one process wait for what two threads of another hold.
    a = others[0]
    a.do("acquire")
    real, said = fcntl.lockf, threading.Event()

    def lockf(fd: int, command: int, *args: int) -> None:
        if command == fcntl.LOCK_EX and not said.is_set():
            said.set()
            raise OSError(errno.EDEADLK, "Resource deadlock avoided")
        real(fd, command, *args)

    monkeypatch.setattr(fcntl, "lockf", lockf)

    def work() -> None:
        with lock:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    said.wait()
    a.do("release")
    thread.join()


def test_the_system_gives_no_lock(lock: FairLock, others: list[Other], monkeypatch: pytest.MonkeyPatch) -> None:
    others[0].do("acquire")
    real = fcntl.lockf

    def lockf(fd: int, command: int, *args: int) -> None:
        if command == fcntl.LOCK_EX:
            raise OSError(errno.ENOLCK, "No locks available")
        real(fd, command, *args)

    monkeypatch.setattr(fcntl, "lockf", lockf)
    with pytest.raises(OSError, match="No locks available"), lock:
        pass
    monkeypatch.undo()
    others[0].do("release")
    with lock:
        pass


# -- fork


def test_a_forked_child_cannot_use_it_and_takes_nothing_from_its_parent(
    path: Path, lock: FairLock, others: list[Other]
) -> None:
    number = lock.worker_hold()

    def work() -> str:
        with pytest.raises(JournalError, match="before a fork"):
            lock.acquire()
        fresh = FairLock.for_path(path)
        held = fresh.holder()
        seen = fresh.worker_held(number)
        fresh.leave()  # closes the child's only descriptor: no lock of the parent's may go
        return f"{held} {seen}"

    with lock:
        assert in_child(work) == f"process {os.getpid()} True"
        others[0].tell("acquire")
        until_queued(lock)
    assert others[0].answer() == "acquire"


def test_leaving_a_with_in_the_child_is_harmless(lock: FairLock, others: list[Other]) -> None:
    def work() -> str:
        lock.__exit__(None, None, None)
        return "fine"

    with lock:
        assert in_child(work) == "fine"
        others[0].tell("acquire")
        until_queued(lock)
    assert others[0].answer() == "acquire"


# -- workers


def test_a_workers_byte_is_held_for_life(lock: FairLock, others: list[Other]) -> None:
    number = int(others[0].do("worker"))
    assert lock.worker_held(number)
    assert not lock.worker_held(number + 1)
    others[0].end()
    assert not lock.worker_held(number)


def test_a_process_knows_its_own(lock: FairLock) -> None:
    a, b = lock.worker_hold(), lock.worker_hold()
    assert a != b
    lock.worker_drop(a)
    lock.worker_drop(a)
    assert (lock.worker_held(a), lock.worker_held(b)) == (False, True)
    lock.worker_drop(b)


def test_a_number_is_given_once(lock: FairLock, others: list[Other], monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, mine = int(others[0].do("worker")), lock.worker_hold()
    numbers = iter([theirs, mine, 7])
    monkeypatch.setattr("random.randrange", lambda _: next(numbers))
    assert lock.worker_hold() == 7
    for number in (mine, 7):
        lock.worker_drop(number)


def test_the_lock_is_independent_of_the_workers(lock: FairLock, others: list[Other]) -> None:
    number = int(others[0].do("worker"))
    others[0].do("acquire")
    others[0].do("release")
    assert lock.worker_held(number)
    with lock:
        assert lock.worker_held(number)
