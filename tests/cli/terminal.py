"""A pseudo-terminal for the command line."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Terminal:
    """A program whose stderr, and if asked for stdout, is a terminal."""

    def __init__(self, folder: Path, *args: str, stdout: bool = False, term: str = "xterm") -> None:
        self.seen = ""
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stepwell.cli", *args],
            cwd=folder,
            env={**os.environ, "COLUMNS": "100", "LINES": "20", "TERM": term, "STEPWELL_STORE": "sqlite:///store.db"},
            stdin=subprocess.DEVNULL, stdout=slave if stdout else subprocess.PIPE, stderr=slave,
        )  # fmt: skip
        os.close(slave)

    def until(self, *words: str) -> None:
        """Read the terminal until all the words were on it."""
        while not all(word in self.seen for word in words):
            self.read()

    def read(self) -> None:
        """What comes next; blocks until something does."""
        try:
            self.seen += os.read(self._master, 4096).decode("utf-8", "replace")
        except OSError as error:
            raise AssertionError(self.seen) from error  # the program has ended

    def end(self) -> tuple[int, str]:
        """Read on to the end; exit code and what came on a stdout that is no terminal."""
        with contextlib.suppress(OSError):  # the end of a terminal
            while part := os.read(self._master, 4096):
                self.seen += part.decode("utf-8", "replace")
        out, _ = self.process.communicate(timeout=30)
        os.close(self._master)
        return self.process.returncode, (out or b"").decode()
