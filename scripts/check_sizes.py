"""Check that modules and functions stay small and that no module has a name that means nothing.

    python scripts/check_sizes.py

Prints each problem with its place; exit code 1 if there is one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

MODULE_LINES = 500
FUNCTION_LINES = 60
"""From `def` to the last line, docstring left out."""

LONG_MODULES: dict[str, str] = {
    "src/stepwell/journal/_api.py": "the seam between engine and stores is one page that both sides read",
}
EMPTY_NAMES = {"util", "utils", "common", "helper", "helpers", "base", "manager", "managers"}
GIVEN_NAMES: dict[str, str] = {
    "src/stepwell/pipeline/steps/base.py": "the printed file tree of pipelines has it",
    "src/stepwell/pipeline/steps/utils": "the printed file tree of pipelines has it",
}


def problems(
    root: Path, long_modules: Mapping[str, str] = LONG_MODULES, given_names: Mapping[str, str] = GIVEN_NAMES
) -> Iterator[str]:
    """Yield one line for each thing in `root`/src that is too long or badly named."""
    unused = {*long_modules, *given_names}
    for path in sorted((root / "src").rglob("*")):
        name = path.relative_to(root).as_posix()
        if not (path.suffix == ".py" or path.is_dir()) or path.name == "__pycache__":
            continue
        if path.stem.strip("_") in EMPTY_NAMES:
            if name not in given_names:
                yield f"{name}: a name that says what is in it, please, not {path.stem!r}"
            unused.discard(name)
        if path.is_file():
            source = path.read_text(encoding="utf-8")
            if (lines := len(source.splitlines())) > MODULE_LINES:
                if name not in long_modules:
                    yield f"{name}: {lines} lines, limit {MODULE_LINES}; split it by concept"
                unused.discard(name)
            yield from _long_functions(name, source)
    for name in sorted(unused):
        yield f"{name}: has a reason in scripts/check_sizes.py and needs none any more"


def _long_functions(name: str, source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (lines := _lines(node)) > FUNCTION_LINES:
            yield f"{name}:{node.lineno}: {node.name} has {lines} lines, limit {FUNCTION_LINES}"


def _lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    lines = _height(function)
    if ast.get_docstring(function, clean=False) is not None:
        lines -= _height(function.body[0])
    return lines


def _height(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


if __name__ == "__main__":
    found = list(problems(Path(__file__).resolve().parent.parent))
    print("\n".join(found) or "sizes and names: all fine")
    sys.exit(1 if found else 0)
