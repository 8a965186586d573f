"""The store's tables: made, migrated, or refused because another version of Stepwell made them."""

from __future__ import annotations

import logging
from hashlib import blake2b
from typing import TYPE_CHECKING

from stepwell.errors import JournalError, SchemaTooNew, SchemaTooOld
from stepwell.journal._open import NoStoreYet
from stepwell.journal._postgres_link import Refused, rows
from stepwell.journal._postgres_wire import Statement
from stepwell.journal._sql import SCHEMA, migrations, queries

if TYPE_CHECKING:
    from stepwell.journal._postgres_address import Address
    from stepwell.journal._postgres_link import Link

_warned: set[str] = set()


class Sql:
    """The named queries of this store, in its own schema."""

    def __init__(self, address: Address) -> None:
        self._schema = address.schema
        self._texts = queries("postgres")
        self._statements: dict[str, Statement] = {}

    def text(self, *names: str) -> str:
        """The queries of these names, one after the other."""
        return self.here(" ".join(self._texts[name] for name in names))

    def here(self, text: str) -> str:
        """SQL as it is written in the files, with the store's schema for ``stepwell``."""
        from stepwell.journal._postgres_address import SCHEMA_WORD

        return SCHEMA_WORD.sub(f'"{self._schema}"', text)

    def statement(self, name: str) -> Statement:
        """The query of this name, ready to be bound."""
        found = self._statements.get(name)
        if found is None:
            found = self._statements[name] = Statement(name, self.text(name))
        return found

    def batch(self, gate: str, *, extras: bool, facts: bool = False) -> Statement:
        """One batch in one statement: its gate, its row, what else it brings, what it tells other runs."""
        name = f"batch_one_{gate}{'_extras' * extras}{'_facts' * facts}"
        found = self._statements.get(name)
        if found is None:
            parts = [self.text("batch_row")]
            if extras:
                parts.append(self.text("batch_extras"))
            if facts:
                parts.append(self.text("batch_facts"))
            text = f"with gate as ({self.text(f'batch_gate_{gate}')}), {', '.join(parts)} {self.text('batch_answer')}"
            found = self._statements[name] = Statement(name, text)
        return found


def schema_open(link: Link, sql: Sql) -> int:
    """Make the tables, or bring them up to date, if need be; the version found in the end. A link that only reads
    changes nothing.

    Raises:
        NoStoreYet: there are none, and the link only reads.
        SchemaTooNew: a newer version of Stepwell made them.
        SchemaTooOld: they are of an older version and this role may not change them, or the link only reads.
        JournalError: there are none and this role may not make them.
    """
    found = link.patiently(lambda _: _found(link, sql))
    place = f"{link.address.place}, schema {link.address.schema}"
    if link.mode.read_only:
        found = _readable(found, place)
    elif found is None or found < SCHEMA:
        found = link.patiently(lambda _: _migrate(link, sql))
    if found > SCHEMA:
        raise SchemaTooNew(
            f"the store at {place} has schema version {found}, this Stepwell knows up to {SCHEMA}: upgrade stepwell",
            found=found,
            expected=SCHEMA,
        )
    _warn_unsafe(link, sql)
    return found


def _readable(found: int | None, place: str) -> int:
    if not found:
        hint = "any command that writes makes it: stepwell run app.py:handler"
        raise NoStoreYet(f"there is no store of Stepwell at {place} yet", hint=hint)
    if found < SCHEMA:
        message = (
            f"the store at {place} has schema version {found}, this Stepwell needs {SCHEMA}: any command that writes, "
            "`stepwell worker` say, migrates it"
        )
        raise SchemaTooOld(message, found=found, expected=SCHEMA)
    return found


def _found(link: Link, sql: Sql) -> int | None:
    if rows(link.run(sql.statement("schema_there"), {}))[0][0] != "t":
        return None
    answer = rows(link.run(sql.statement("schema_found"), {}))
    return int(answer[0][0] or 0) if answer else 0


def _migrate(link: Link, sql: Sql) -> int:
    """All missing migrations, in one transaction that only one process can be in."""
    number = int.from_bytes(blake2b(f"stepwell {link.address.schema}".encode(), digest_size=8).digest(), signed=True)
    found: int | None = None
    try:
        with link.transaction():
            link.run(sql.statement("schema_lock"), {"number": number})
            found = _found(link, sql)
            if found is None:
                link.script(sql.text("schema_make"))
            for step, _, text in migrations("postgres"):
                if step > (found or 0):
                    link.script(sql.here(text))
            newest = max(SCHEMA, found or 0)
            link.run(sql.statement("schema_set"), {"text": str(newest)})
    except Refused as refused:
        raise _cannot(link, found, refused) from refused
    return newest


def _cannot(link: Link, found: int | None, refused: Refused) -> JournalError:
    place = f"{link.address.place}, schema {link.address.schema}"
    advice = "let a role that may create tables there open the store once"
    if found is None:
        return JournalError(f"cannot make the store's tables at {place}: {refused.reason}: {advice}")
    return SchemaTooOld(
        f"the store at {place} has schema version {found}, this Stepwell needs {SCHEMA}: {refused.reason}: {advice}",
        found=found,
        expected=SCHEMA,
    )


def unsafe_settings(link: Link, sql: Sql) -> list[str]:
    """Settings by which an acknowledged commit can be lost in a power cut."""
    fsync, synchronous, pages = rows(link.run(sql.statement("settings"), {}))[0]
    unsafe = []
    if fsync == "off":
        unsafe.append("fsync = off")
    if synchronous == "off":
        unsafe.append("synchronous_commit = off")
    if pages == "off":
        unsafe.append("full_page_writes = off")
    return unsafe


def _warn_unsafe(link: Link, sql: Sql) -> None:
    unsafe = link.patiently(lambda _: unsafe_settings(link, sql))
    place = link.address.place
    if unsafe and place not in _warned:
        _warned.add(place)
        logging.getLogger("stepwell.journal").warning(
            "PostgreSQL at %s runs with %s: steps that were recorded as finished can be lost in a crash and run again",
            place,
            ", ".join(unsafe),
        )
