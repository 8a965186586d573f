"""The catalogue of an SQLite store: runs by filter, newest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import msgspec

from stepwell.journal._api import OpenStatus, RunFilter, RunRow
from stepwell.journal._sqlite_read import Reading, prefix_end

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPEN = frozenset(get_args(OpenStatus))
FEW = 500
"""So many runs are picked out by number rather than met on a walk."""
_tags = msgspec.json.Decoder(tuple[str, ...])


class Catalogue(Reading):
    """A part of `SqliteStore`. Thread-safe."""

    def run_get(self, run_id: str) -> RunRow | None:
        """The catalogue's row."""
        sql = self.sql["run_list"].replace("{where}", "run.id = :id")
        rows = self.file.read(sql, {"id": run_id, "limit": 1})
        return _run_row(rows[0]) if rows else None

    def run_list(self, where: RunFilter, *, limit: int, before: int | None = None) -> list[RunRow]:
        """Newest first."""
        condition, values = condition_for(self.sql, where)
        if where.id_prefix is not None:
            # A prefix of few runs is found by the ids; one of many soon fills the page by walking.
            some = self.file.read(self.sql["run_prefixed"], {**_prefix(where.id_prefix), "limit": FEW})
            if len(some) < FEW:
                condition += f" and {self.sql['where_rids']}"
                values["rids"] = msgspec.json.encode([rid for (rid,) in some]).decode()
        if before is not None:
            condition += f" and {self.sql['where_before']}"
            values["before"] = before
        sql = self.sql["run_list_open" if _is_open(where) else "run_list"].replace("{where}", condition)
        return [_run_row(row) for row in self.file.read(sql, {**values, "limit": limit})]

    def run_count(self, where: RunFilter) -> int:
        """How many."""
        condition, values = condition_for(self.sql, where)
        sql = self.sql["run_count_open" if _is_open(where) else "run_count"].replace("{where}", condition)
        return int(self.file.read(sql, values)[0][0])


def condition_for(sql: Mapping[str, str], where: RunFilter) -> tuple[str, dict[str, Any]]:
    """A filter as SQL over ``run`` and ``hot``, and its values."""
    values: dict[str, Any] = {
        "function": where.function,
        "door": where.door,
        "queue": where.queue,
        "parent": where.parent,
        "id_prefix": where.id_prefix,
        "created_from": where.created_from,
        "created_to": where.created_to,
        "ended_before": where.ended_before,
        "tag": None if where.tag is None else msgspec.json.encode(where.tag).decode(),
        "text": None if where.text is None else f"%{_like(where.text)}%",
    }
    values = {name: value for name, value in values.items() if value is not None}
    terms = [sql[f"where_{name}"] for name in values]
    if where.id_prefix is not None:
        values |= _prefix(where.id_prefix)
    if len(where.statuses) == 1 and where.statuses[0] not in _OPEN | {"succeeded"}:
        values["status"] = where.statuses[0]
        terms.append(sql["where_unlucky"])
    elif where.statuses:
        values["statuses"] = msgspec.json.encode(where.statuses).decode()
        terms.append(sql["where_statuses"])
    return " and ".join(terms) or "1", values


def _is_open(where: RunFilter) -> bool:
    return bool(where.statuses) and _OPEN.issuperset(where.statuses)


def _prefix(prefix: str) -> dict[str, Any]:
    return {"id_prefix": prefix, "id_end": prefix_end(prefix)}


def _like(text: str) -> str:
    for special in "\\%_":
        text = text.replace(special, f"\\{special}")
    return text


def _run_row(row: tuple[Any, ...]) -> RunRow:
    columns = list(row)
    columns[9] = () if row[9] is None else _tags.decode(row[9])
    return RunRow(*columns)
