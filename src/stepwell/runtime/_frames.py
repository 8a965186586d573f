"""Where in the user's code something was asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import CodeType

_PACKAGE = str(Path(__file__).parent.parent) + os.sep


def user_line() -> str:
    """``file.py:12`` of the innermost frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"  # noqa: PTH119


_fingerprints: dict[int, tuple[object, str]] = {}


def fingerprint(func: object) -> str | None:
    """A short hash of a function's code, to notice that an unnamed step became another one (durable.md §3.2).

    Compared only under the same minor version of Python, which is therefore part of it. None: it has no Python code.
    """
    code = getattr(func, "__code__", None)
    if code is None:
        return None
    # By identity, keeping the code object alive: hashing a code object by value would cost more than this saves.
    known = _fingerprints.get(id(code))
    if known is None:
        known = _fingerprints[id(code)] = (code, _digest(code))
    return known[1]


def _digest(code: CodeType) -> str:
    from hashlib import blake2b

    parts = (code.co_code, repr(code.co_names).encode(), *(_constant(value) for value in code.co_consts))
    return f"{sys.version_info.minor}:{blake2b(bytes(1).join(parts), digest_size=6).hexdigest()}"


def _constant(value: object) -> bytes:
    if isinstance(value, frozenset):
        return repr(sorted(map(repr, value))).encode()  # its own repr differs from process to process
    return b"code" if hasattr(value, "co_code") else repr(value).encode()
