"""JSON as the standard has it, in files of annotations: what is wrong in one is named with line and column.

The decoder of Python takes more (`NaN`, keys that come twice, numbers without end) and does not say where that was. It
is searched for only when something is wrong.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NoReturn

from stepwell.errors import BadArguments
from stepwell.pipeline.datasets._checks import kind, malformed, told
from stepwell.pipeline.datasets._files import read_text

_MOST_DIGITS = 400
"""Of a whole number: floats end before."""


class _Refused(Exception):
    """The decoder met something that JSON does not have, or that no number here can be."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        BadArguments: it is malformed; line and column are named.
    """
    text = read_text(path)
    try:
        value = _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise _not_json(path, text, error.pos, error.msg) from error
    except RecursionError as error:
        raise malformed(path, 1, "not JSON: nested too deeply") from error
    except _Refused as error:
        raise _not_json(path, text, *_first_refused(text)) from error
    if not isinstance(value, dict):
        raise malformed(path, 1, f"expected an object, got {kind(value)}")
    return value


def _not_json(path: Path, text: str, position: int, problem: str) -> BadArguments:
    before = text[:position]
    line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
    return malformed(path, line, f"not JSON: {problem} (column {column})")


def _no_constant(name: str) -> NoReturn:
    raise _Refused(name)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Refused(text)
    return value


def _short(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise _Refused(text)
    return int(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Refused
    return value


_JSON = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, parse_int=_short, object_pairs_hook=_once)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+')


def _first_refused(text: str) -> tuple[int, str]:
    """Where the first thing stands that made the decoder refuse a text, and what it is."""
    opened: list[set[str] | None] = []
    """The keys seen in each object that is open, `None` for a list."""
    before = ""
    for found in _TOKEN.finditer(text):
        token = found.group()
        problem = None
        if token in ("{", "["):
            opened.append(set() if token == "{" else None)
        elif token in ("}", "]"):
            opened.pop()
        elif token.startswith('"'):
            keys = opened[-1] if opened else None
            if keys is not None and before != ":":
                key = json.loads(token, strict=False)
                problem = f"the key {told(key)} comes twice" if key in keys else None
                keys.add(key)
        elif token not in (":", ","):
            problem = _problem(token)
        if problem is not None:
            return found.start(), problem
        before = token
    raise AssertionError("the decoder refused what is not found")


def _problem(token: str) -> str | None:
    try:
        _short(token) if token.removeprefix("-").isdecimal() else _JSON.decode(token)
    except _Refused:
        too_large = any(letter.isdecimal() for letter in token)
        return f"{told(token)} is too large a number" if too_large else f"{token} is not a JSON value"
    return None
