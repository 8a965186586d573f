"""Workers of an SQLite store: a beat file each, and a byte of the lock file for life (ENGINE.md §2).

The files lie in ``<database>-workers/``. A file's first 20 bytes are the beat number, the rest says who the worker is,
which byte of the lock file it holds, and of which lock file (a new one knows nothing of the bytes of the old). A beat
overwrites the number in place: it needs neither the database nor room on the disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.errors import JournalError
from stepwell.journal._api import WorkerInfo
from stepwell.journal._liveness import Silence, local_worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stepwell.journal._api import Clock
    from stepwell.journal._sqlite_file import SqliteFile

_DIGITS = 20
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class _Card(msgspec.Struct, frozen=True):
    """What a worker's file says, but for the beat."""

    info: WorkerInfo
    byte: int
    lock: str


class _Own:
    """A worker of this process. ``handle``: its file, kept open for the beats."""

    def __init__(self, card: _Card) -> None:
        self.card = card
        self.beat = 0
        self.handle = -1


class Workers:
    """A part of `SqliteStore`. Thread-safe."""

    file: SqliteFile
    sql: Mapping[str, str]

    def _start_workers(self, clock: Clock) -> None:
        self._folder = Path(f"{os.path.realpath(self.file.path)}-workers")
        self._own: dict[str, _Own] = {}
        self._silence = Silence(clock)
        self._workers_lock = threading.Lock()

    def _stop_workers(self) -> None:
        """Let go of the bytes of workers that have not left: whoever looks sees them dead."""
        with self._workers_lock:
            for own in self._own.values():
                self._release(own)
            self._own.clear()

    def _release(self, own: _Own) -> None:
        if self.file.lock is not None:
            self.file.lock.worker_drop(own.card.byte)
        if own.handle >= 0:
            os.close(own.handle)
            own.handle = -1

    def worker_register(self, info: WorkerInfo) -> None:
        """The worker lives; its beats can be seen from here on.

        Raises:
            JournalError: its file cannot be written.
        """
        lock = self.file.hold()
        with self._workers_lock, self._trouble():
            own = self._own.get(info.id)
            byte = lock.worker_hold() if own is None else own.card.byte
            # The byte first: a file whose byte is free is a dead worker's.
            card = _Card(info, byte, lock.identity)
            if own is None:
                own = self._own[info.id] = _Own(card)
            own.card = card
            self._publish(own)
        self._sweep()

    def worker_beat(self, worker: str) -> None:
        """One more sign of life: a file, never the database.

        Raises:
            JournalError: the file cannot be written.
        """
        self.file.check()
        with self._workers_lock, self._trouble():
            own = self._own.get(worker)
            if own is None:
                return
            own.beat += 1
            if own.handle < 0 or os.fstat(own.handle).st_nlink == 0:
                self._publish(own)  # somebody deleted the file
            else:
                os.pwrite(own.handle, b"%020d" % own.beat, 0)

    def worker_leave(self, worker: str) -> None:
        """The worker ends in good order; what it still holds is anybody's."""
        self.file.check()
        with self._workers_lock:
            with contextlib.suppress(OSError):
                self._place(worker).unlink()
            own = self._own.pop(worker, None)
            if own is not None:
                self._release(own)

    def worker_list(self) -> list[WorkerInfo]:
        """All workers that registered and did not leave."""
        return [card.info for card, _ in self._cards()]

    def worker_silence(self) -> Mapping[str, float]:
        """How long each other worker has been silent; infinity where its byte is free, or its file is gone."""
        silent: dict[str, float] = {}
        cards = self._cards()
        with self._workers_lock:
            mine = {own.card.info.id for own in self._own.values()}
            observer = next((own.card.info for own in self._own.values()), None) or local_worker(worker_id="")
            for card, beat in cards:
                if card.info.id not in mine:
                    dead = self._is_dead(card)
                    silent[card.info.id] = self._silence.observe(observer, card.info, beat, known_dead=dead)
            self._silence.retain(silent.keys())
        for (owner,) in self.file.read(self.sql["hot_owners"]):
            if owner not in mine:
                silent.setdefault(owner, float("inf"))  # it left, and its runs were still its own
        return silent

    # -- files

    def _place(self, worker: str) -> Path:
        plain = _PLAIN.fullmatch(worker) is not None
        name = worker if plain else f"~{hashlib.blake2b(worker.encode('utf-8', 'replace'), digest_size=16).hexdigest()}"
        return self._folder / name

    def _publish(self, own: _Own) -> None:
        place = self._place(own.card.info.id)
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".{place.name}.{os.getpid()}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(handle, b"%020d\n" % own.beat + msgspec.json.encode(own.card))
            fresh.replace(place)
        except BaseException:
            os.close(handle)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        if own.handle >= 0:
            os.close(own.handle)
        own.handle = handle

    def _cards(self) -> list[tuple[_Card, int]]:
        self.file.check()
        found: list[tuple[_Card, int]] = []
        with self._trouble():
            try:
                places = sorted(self._folder.iterdir())
            except FileNotFoundError:
                return []
            for place in places:
                if not place.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError, ValueError, msgspec.DecodeError):
                        text = place.read_bytes()  # it may leave, or register anew, in this moment
                        found.append((msgspec.json.decode(text[_DIGITS:], type=_Card), int(text[:_DIGITS])))
        return found

    def _is_dead(self, card: _Card) -> bool:
        lock = self.file.lock
        return lock is not None and card.lock == lock.identity and not lock.worker_held(card.byte)

    def _sweep(self) -> None:
        """Take away the files of dead workers that hold nothing any more."""
        dead = [card.info.id for card, _ in self._cards() if self._is_dead(card)]
        if dead:
            owners = {row[0] for row in self.file.read(self.sql["hot_owners"])}
            for worker in dead:
                if worker not in owners:
                    with contextlib.suppress(OSError):
                        self._place(worker).unlink()

    @contextlib.contextmanager
    def _trouble(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            text = error.strerror or str(error)
            message = f"{self._folder} cannot be used: {text}"
            raise JournalError(message, hint="check the rights of the folder, and the room on the disk") from error
