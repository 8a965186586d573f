"""What SQLite and the system say when something goes wrong with a file, in one line each, with what to do."""

from __future__ import annotations

import errno
import sqlite3

from stepwell.errors import Corrupt, JournalBusy, JournalError

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
"""Somebody else is at the file; it helps to wait."""
IN_DOUBT = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL)
"""Whether the commit that met this is durable is not known until it is submitted again (ENGINE.md §3)."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def primary_code(error: BaseException) -> int:
    """SQLite's result code without its extension; 0 for another error."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def trouble(path: str, error: BaseException) -> JournalError:
    """What went wrong with the file."""
    code, number = primary_code(error), getattr(error, "errno", None)
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    if code == sqlite3.SQLITE_NOTADB:
        hint = "give the path of a store, or of a file that is not there yet; this one was left as it is"
        return Corrupt(f"{path} is no SQLite database", hint=hint)
    if code == sqlite3.SQLITE_CORRUPT:
        return Corrupt(f"{path} is damaged: {text}", hint="`stepwell doctor` says more; restore it from a backup")
    if code == sqlite3.SQLITE_FULL or number in _NO_SPACE:
        return JournalError(f"{path} cannot be written: the disk is full", hint="make room, then resume the run")
    if code == sqlite3.SQLITE_IOERR:
        hint = "look at the disk and its space, then resume the run"
        return JournalError(f"{path} cannot be read or written: {text}", hint=hint)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM) or number in (errno.EACCES, errno.EROFS, errno.EPERM):
        return JournalError(f"{path} cannot be written: {text}", hint="check the rights of the file and its folder")
    if code in BUSY:
        message = f"{path} is locked by a program that is not Stepwell: {text}"
        return JournalBusy(message, holder="another program", hint="close that program's connection, then try again")
    if number == errno.ENOENT:
        hint = "the first run makes it; name another store with --store or STEPWELL_STORE"
        return JournalError(f"{path} cannot be opened: {text}", hint=hint)
    if code == sqlite3.SQLITE_CANTOPEN or isinstance(error, OSError):
        return JournalError(f"{path} cannot be opened: {text}", hint="give a file in a folder that you may write")
    return JournalError(f"{path}: {text}", hint="`stepwell doctor` looks at the store")
