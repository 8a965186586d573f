"""Where a PostgreSQL store is: its URL, our own options in it, and how it is named in messages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import psycopg
from psycopg import conninfo, pq

from stepwell.errors import JournalError, UsageError

if TYPE_CHECKING:
    from typing import Any

CONNECT_SECONDS = 5
"""How long one attempt to connect may take; several addresses behind a name get it each."""

SCHEMA_WORD = re.compile(r"\bstepwell\b")
"""Where an SQL file names the schema."""

_SCHEMA = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,49}")
_EXAMPLE = "postgresql://user@host:5432/database"

# A peer that is gone without a word is noticed within half a minute, here and (by the settings) at the server.
_KEEPALIVE: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}


class Address:
    """One database and one schema in it.

    ``?schema=name`` says in which schema the tables are (``stepwell``); ``?listen=postgresql://…`` names an address
    that leads to the server itself where the URL leads to a pooler. Everything else in the URL is libpq's.
    """

    def __init__(self, url: str) -> None:
        """Take the URL apart.

        Raises:
            UsageError: it is not one of PostgreSQL, or an option of ours has no sense.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            # What it says may quote the password.
            raise UsageError(f"the store's URL is none of PostgreSQL: write it as {_EXAMPLE}") from None
        ours: dict[str, str] = {}
        rest: list[tuple[str, str]] = []
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name in ("schema", "listen"):
                ours[name] = value
            else:
                rest.append((name, value))
        self.schema = ours.get("schema", "stepwell")
        if not _SCHEMA.fullmatch(self.schema):
            raise UsageError(
                f"schema {self.schema!r} in the store's URL: use letters, digits, _, $ and -, at most 50 characters"
            )
        self._conninfo = parts._replace(query=urlencode(rest, quote_via=quote)).geturl()
        self._given = _parse(self._conninfo)
        self._listen = ours.get("listen")
        if self._listen is not None:
            _parse(self._listen)
        self.place = self._place()
        self.channel = f"stepwell:{self.schema}"
        self.session = ""
        """What is said on each new connection."""
        self.url = _without_password(url)
        """The URL as it may be shown: no password."""

    def _place(self) -> str:
        found = {option.keyword.decode(): option.val.decode() for option in pq.Conninfo.get_defaults() if option.val}
        found.update({name: str(value) for name, value in self._given.items()})
        host = found.get("host") or found.get("hostaddr") or "local socket"
        user = found.get("user", "")
        return f"{host}:{found.get('port', '5432')}/{found.get('dbname') or user}"

    @property
    def listens_directly(self) -> bool:
        """The URL names an address of its own for LISTEN."""
        return self._listen is not None

    @property
    def database(self) -> str:
        """The database's name."""
        return self.place.rpartition("/")[2]

    def connect(
        self,
        *,
        name: str,
        listen: bool = False,
        autocommit: bool = True,
        cls: type[psycopg.Connection[Any]] = psycopg.Connection,
    ) -> psycopg.Connection[Any]:
        """A new connection; ``listen``: to the address that is for LISTEN.

        Raises:
            psycopg.Error: there is none to be had.
        """
        options: dict[str, Any] = dict(_KEEPALIVE)
        options["connect_timeout"] = CONNECT_SECONDS
        options["application_name"] = f"stepwell {name}"
        # What the URL says itself wins.
        options = {key: value for key, value in options.items() if key not in self._given}
        target = self._listen if listen and self._listen is not None else self._conninfo
        connection = cls.connect(target, autocommit=autocommit, prepare_threshold=None, **options)
        if self.session:
            connection.pgconn.exec_(self.session.encode())
        return connection

    def unusable(self, error: BaseException | str) -> JournalError:
        """The one line for a person when there is no connection to be had."""
        reason = reason_of(error)
        low = reason.lower()
        if "password" in low or "authentication" in low or "pg_hba" in low or "role" in low:
            advice = "check user and password in the URL (or PGPASSWORD, or ~/.pgpass)"
        elif "database" in low and "exist" in low:
            advice = f"make it with `createdb {self.database}`, or correct the URL"
        elif "permission denied" in low or "read-only" in low:
            advice = "use a role that may write there"
        elif "too many" in low or "remaining connection slots" in low:
            advice = "raise max_connections, or stop some of those who are connected"
        else:
            advice = "check that the server runs and that host and port are right"
        return JournalError(f"cannot use PostgreSQL at {self.place}: {reason}: {advice}")


def reason_of(error: BaseException | str) -> str:
    """What PostgreSQL or libpq said, on one line, without the preamble that names the address again."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no reason given"
    for line in lines:
        if "FATAL:" in line:
            text = line
            break
    text = re.sub(r"^(connection failed: )?connection to server at .*? failed: ", "", text)
    text = re.sub(r"^(FATAL|ERROR|PANIC):\s*", "", text)
    return text.rstrip(".:; ")


def _parse(text: str) -> dict[str, Any]:
    if text.startswith(("postgresql://", "postgres://")):
        try:
            found = dict(conninfo.conninfo_to_dict(text))
            if all(port.isdecimal() for port in str(found.get("port") or "0").split(",") if port):
                return found
        except (psycopg.Error, UnicodeError):
            pass  # what libpq says of it may quote the password
    raise UsageError(f"the store's URL is none of PostgreSQL: write it as {_EXAMPLE}")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"{user.partition(':')[0]}{at}{host}"
    query = [
        (name, _without_password(value) if name == "listen" else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
        if name not in ("password", "sslpassword")
    ]
    return parts._replace(netloc=netloc, query=urlencode(query, quote_via=quote)).geturl()
