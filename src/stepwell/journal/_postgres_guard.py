"""What a step's body may not say on the connection that it is lent: anything that begins or ends a transaction."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PART = re.compile(
    r"""
      (?P<line>--[^\n]*)
    | (?P<block>/\*)
    | (?P<escaped>\b[eE]'(?:[^'\\]|\\.|'')*')
    | (?P<string>'(?:[^']|'')*')
    | (?P<name>"(?:[^"]|"")*")
    | (?P<dollar>\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$)
    | (?P<end>;)
    | (?P<word>[^\W\d][\w$]*)
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK = re.compile(r"/\*|\*/")

WORDS = 4
"""As many of a statement's words tell what it is."""
_ENDS = frozenset({"commit", "end", "abort", "begin", "start"})


def forbidden(sql: str) -> str | None:
    """The first statement that would begin or end a transaction, by its first words; None if there is none.

    Strings, quoted names, dollar quotes and comments, nested ones too, are not looked into.
    """
    for words in _statements(sql):
        first = words[0]
        second = words[1] if len(words) > 1 else ""
        rest = words[1:]
        if first in _ENDS:
            return first.upper()
        if first == "rollback" and not _to_savepoint(rest):
            return "ROLLBACK"
        if first == "prepare" and second == "transaction":
            return "PREPARE TRANSACTION"
    return None


def _to_savepoint(rest: list[str]) -> bool:
    # ROLLBACK [WORK | TRANSACTION] TO [SAVEPOINT] name
    if rest and rest[0] in ("work", "transaction"):
        rest = rest[1:]
    return bool(rest) and rest[0] == "to"


def _statements(sql: str) -> Iterator[list[str]]:
    """The first words of each statement, in lower case."""
    words: list[str] = []
    position, before = 0, ""
    while match := _PART.search(sql, position):
        position = match.end()
        if match["block"]:
            position = _block_end(sql, position)
        elif match["end"]:
            if words:
                yield words
            words = []
        elif match["word"]:
            word = match["word"].lower()
            if (before, word) == ("begin", "atomic") and words[0] == "create":
                break  # a function whose body is SQL: nothing in it, semicolons and END included, is said now
            before = word
            if len(words) < WORDS:
                words.append(word)
    if words:
        yield words


def _block_end(sql: str, position: int) -> int:
    depth = 1
    while depth:
        match = _BLOCK.search(sql, position)
        if match is None:
            return len(sql)
        depth += 1 if match[0] == "/*" else -1
        position = match.end()
    return position
