"""What goes to stdout, and what is kept out of it."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click
import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO


CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What would move the cursor, colour or turn around the text behind it: all controls but tab and line break."""


def visible(text: str) -> str:
    """Text from a journal as it may be printed on a terminal: controls in it are shown and not obeyed."""
    return CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def print_json(value: Any, *, indent: int = 2) -> None:
    """One JSON document on stdout; in one line with ``indent=0``."""
    data = msgspec.json.encode(value)
    click.echo(msgspec.json.format(data, indent=indent) if indent else data)


def print_pieces(pieces: Iterable[str]) -> None:
    """JSON text on stdout, as it comes."""
    for piece in pieces:
        sys.stdout.write(piece)
    click.echo()


def write_array(out: TextIO, items: Iterable[Any]) -> None:
    """A JSON array, one item a line, never more than one item in memory."""
    between = "[\n"
    for item in items:
        out.write(between + msgspec.json.encode(item).decode())
        between = ",\n"
    out.write("[]" if between == "[\n" else "\n]")


@contextlib.contextmanager
def stdout_apart(*, apart: bool) -> Iterator[None]:
    """With ``apart``, all that is printed meanwhile goes to stderr, what child processes print included."""
    if not apart:
        yield
        return
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, AttributeError, ValueError):  # a stdout that is no file has no number
            number, other = sys.stdout.fileno(), sys.stderr.fileno()
            kept = os.dup(number)
            os.dup2(other, number)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            stack.callback(sys.stdout.flush)
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield
