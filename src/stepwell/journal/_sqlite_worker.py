"""Workers of an SQLite store: a beat file each, and a byte of the lock file for life (ENGINE.md §2)."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from stepwell.errors import JournalError
from stepwell.journal._api import WorkerInfo
from stepwell.journal._liveness import Silence

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepwell.journal._api import Clock
    from stepwell.journal._sqlite_file import SqliteFile


class _Beat(msgspec.Struct):
    info: WorkerInfo
    beat: int
    number: int


class Workers:
    """The workers' part of `SqliteStore`."""

    path: str
    clock: Clock
    file: SqliteFile

    def _start_workers(self) -> None:
        self._folder = Path(f"{self.path}-workers")
        self._own: dict[str, _Beat] = {}
        self._silence = Silence(self.clock)

    def _stop_workers(self) -> None:
        for worker in list(self._own):
            own = self._own.pop(worker)
            self.file.lock.worker_drop(own.number)

    def worker_register(self, info: WorkerInfo) -> None:
        """The worker lives; its beats can be seen from here on."""
        number = zlib.crc32(info.id.encode()) << 8 | os.getpid() & 0xFF
        own = _Beat(info, 1, number)
        try:
            self._folder.mkdir(exist_ok=True)
            self.file.lock.worker_hold(number)
            self._own[info.id] = own
            self._write(own)
        except OSError as error:
            message = f"{self._folder} cannot be written: {error}; check the rights of the folder"
            raise JournalError(message) from error

    def _write(self, own: _Beat) -> None:
        place = self._folder / own.info.id
        fresh = place.with_name(f".{place.name}.new")
        fresh.write_bytes(msgspec.json.encode(own))
        fresh.replace(place)

    def worker_beat(self, worker: str) -> None:
        """One more sign of life: a file, never a database write."""
        own = self._own.get(worker)
        if own is not None:
            own.beat += 1
            try:
                self._write(own)
            except OSError as error:
                message = f"{self._folder} cannot be written: {error}"
                raise JournalError(message) from error

    def worker_leave(self, worker: str) -> None:
        """The worker ends in good order."""
        own = self._own.pop(worker, None)
        (self._folder / worker).unlink(missing_ok=True)
        if own is not None:
            self.file.lock.worker_drop(own.number)

    def _beats(self) -> list[_Beat]:
        found = []
        try:
            places = sorted(self._folder.iterdir())
        except FileNotFoundError:
            return []
        for place in places:
            if not place.name.startswith("."):
                try:
                    found.append(msgspec.json.decode(place.read_bytes(), type=_Beat))
                except (OSError, msgspec.DecodeError):
                    continue  # it has just left
        return found

    def worker_list(self) -> list[WorkerInfo]:
        """All workers that registered and did not leave."""
        return [beat.info for beat in self._beats()]

    def worker_silence(self) -> Mapping[str, float]:
        """How long each other worker has been silent; a free byte is a dead worker."""
        observer = next(iter(self._own.values())).info if self._own else None
        silent: dict[str, float] = {}
        for beat in self._beats():
            if beat.info.id not in self._own:
                dead = self.file.lock.worker_dead(beat.number)
                silent[beat.info.id] = self._silence.observe(observer, beat.info, beat.beat, known_dead=dead)
        for owner in self._owners():
            if owner not in silent and owner not in self._own:
                silent[owner] = float("inf")  # it left, and its runs were still its own
        return silent

    def _owners(self) -> list[str]:
        return [str(row[0]) for row in self.file.read("select distinct owner from hot where owner is not null")]
