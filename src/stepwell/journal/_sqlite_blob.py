"""Large values in an SQLite store: chunks of at most 1 MiB, written ahead of the record that refers to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from stepwell.journal._sqlite_file import SqliteFile

CHUNK = 1 << 20
"""Most bytes in a chunk."""
CHUNKS_AT_ONCE = 4
"""Most chunks in a transaction, so that no step of another run waits long for it."""


class Blobs:
    """A part of `SqliteStore`. `blob_put` is called under the writer's mutex."""

    file: SqliteFile
    sql: Mapping[str, str]

    def now(self) -> int:
        """The store's time."""
        raise NotImplementedError

    def blob_put(self, digest: bytes, chunks: Iterator[bytes]) -> None:
        """Store a blob in chunks, or touch the one that is there (then no chunk is asked for).

        Raises:
            JournalError: it is not stored; what was written of it is taken away by `gc` after a day.
        """
        sql = self.sql

        def touch(write: sqlite3.Connection, again: bool) -> bool:
            values = {"hash": digest, "now": self.now()}
            if write.execute(sql["blob_touch"], values).rowcount == 1:
                return True
            write.execute(sql["blob_begin"], values)
            return False

        if self.file.writing(touch):
            return
        count = size = 0
        ready: list[tuple[bytes, int, bytes]] = []
        for chunk in _cut(chunks):
            ready.append((digest, count, chunk))
            count, size = count + 1, size + len(chunk)
            if len(ready) == CHUNKS_AT_ONCE:
                self._chunks_put(ready)
                ready = []

        def finish(write: sqlite3.Connection, again: bool) -> None:
            write.executemany(sql["blob_chunk_put"], ready)
            write.execute(sql["blob_chunk_cut"], {"hash": digest, "count": count})
            write.execute(sql["blob_finish"], {"hash": digest, "size": size, "now": self.now()})

        self.file.writing(finish)

    def _chunks_put(self, ready: list[tuple[bytes, int, bytes]]) -> None:
        self.file.writing(lambda write, again: write.executemany(self.sql["blob_chunk_put"], ready))

    def blob_get(self, digest: bytes) -> bytes | None:
        """The blob, or None if it is not there whole."""
        rows = self.file.read(self.sql["blob_get"], (digest,))
        return b"".join(row[0] or b"" for row in rows) if rows else None


def _cut(chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK):
            yield chunk[start : start + CHUNK]
