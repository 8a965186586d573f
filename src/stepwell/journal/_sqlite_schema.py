"""The schema of an SQLite store: which one a file has, and the way to the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.errors import Corrupt, JournalError, SchemaTooNew, SchemaTooOld
from stepwell.journal._sql import SCHEMA, migrations

if TYPE_CHECKING:
    import sqlite3

RID_SHIFT = 24
"""``record.k`` is rid << RID_SHIFT | seq."""
MAX_SEQ = (1 << RID_SHIFT) - 1
"""The greatest seq of a run."""


def record_range(rid: int) -> tuple[int, int]:
    """``(low, high)``: all rows of the run have low < k <= high."""
    low = rid << RID_SHIFT
    return low, low | MAX_SEQ


def schema_found(connection: sqlite3.Connection) -> int:
    """Number of the schema in the file, 0 if there is none.

    Raises:
        sqlite3.DatabaseError: the file is no database.
    """
    connection.execute("pragma schema_version").fetchone()  # reads the header
    if connection.execute("select 1 from sqlite_master where type = 'table' and name = 'meta'").fetchone() is None:
        return 0
    columns = [row[1] for row in connection.execute("pragma table_info(meta)").fetchall()]
    if columns != ["key", "value"]:
        return -1
    row = connection.execute("select value from meta where key = 'schema'").fetchone()
    return -1 if row is None or not str(row[0]).isdecimal() else int(row[0])


def schema_check(connection: sqlite3.Connection, path: str, *, read_only: bool) -> int:
    """The file's schema, if this version may use it.

    Raises:
        SchemaTooNew: it is of a newer version of Stepwell.
        SchemaTooOld: it is older, and may not be migrated now.
        Corrupt: its tables are not Stepwell's.
    """
    found = schema_found(connection)
    if found < 0:
        hint = "give another path; this file was left as it is"
        raise Corrupt(f"{path} has a table 'meta' that is not Stepwell's", hint=hint)
    if found > SCHEMA:
        message = f"{path} has schema {found}, and this version of Stepwell knows {SCHEMA}: install a newer one"
        raise SchemaTooNew(message, found=found, expected=SCHEMA)
    if read_only and found == 0:
        hint = "the first run makes them; name another store with --store or STEPWELL_STORE"
        raise JournalError(f"{path} is no store of Stepwell: it has none of its tables", hint=hint)
    if read_only and found < SCHEMA:
        message = (
            f"{path} has schema {found}, not {SCHEMA}: any command that writes, `stepwell worker` say, migrates it"
        )
        raise SchemaTooOld(message, found=found, expected=SCHEMA)
    return found


def schema_migrate(connection: sqlite3.Connection, path: str) -> None:
    """Bring the file to the newest schema, each step in a transaction. Under the fair lock.

    Raises:
        SchemaTooNew, Corrupt: as `schema_check`.
        sqlite3.Error: a step failed; it was rolled back.
    """
    found = schema_check(connection, path, read_only=False)
    for number, _, sql in migrations("sqlite"):
        if number > found:
            mark = f"insert or replace into meta (key, value) values ('schema', '{number}')"
            try:
                connection.executescript(f"begin immediate;\n{sql};\n{mark};\ncommit;")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("rollback")
                raise
