"""Write the pages of docs/reference that list public names from their docstrings; with --check, fail where one differs.

python scripts/docs_names.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent.parent / "docs" / "reference"
PARTS = (
    "config", "context", "execution", "retries", "waits", "serdes", "filesystem_serdes", "preview", "exceptions",
    "types", "plugin", "logger", "concurrency.models", "lambda_service",
)  # fmt: skip
MODULES = (
    "stepwell", "stepwell.durable", *(f"stepwell.durable.{part}" for part in PARTS), "stepwell.observe",
    "stepwell.testing", "stepwell.testing.runner",
)  # fmt: skip
IN_FULL = ("DurableContext", "StepContext", "Engine", "RunHandle", "Pending", "Callback")
"""Classes whose methods stand in the page."""
PIPELINE = (
    "stepwell.pipeline", "stepwell.pipeline.steps", "stepwell.pipeline.steps.utils", "stepwell.pipeline.datasets",
)  # fmt: skip
PIPELINE_IN_FULL = (
    "BaseStep", "StepResult", "BaseStepContext", "StepRegistry", "Orchestrator", "ParallelSteps", "Retry",
    "RuntimeContext", "StepFailed", "Dataset", "Image", "Annotation", "ConversionReport", "Loss",
)  # fmt: skip
PAGES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "durable.md": ("Public names", MODULES, IN_FULL),
    "pipeline.md": ("Pipelines: public names", PIPELINE, PIPELINE_IN_FULL),
}
"""File -> title, modules, classes in full."""


def sentence(value: Any) -> str:
    """The first sentence of a docstring, on one line."""
    text = inspect.getdoc(value) or ""
    first = " ".join(text.split("\n\n", 1)[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`])", first)[0]


def entry(name: str, value: Any) -> str:
    """One line of the page.

    Raises:
        SystemExit: the name has no docstring.
    """
    if isinstance(value, str):
        return f"- `{name}`: `{value}`"
    about = sentence(value)
    if not about:
        sys.exit(f"{name} has no docstring")
    values = f" ({', '.join(value.__members__)})" if isinstance(value, type) and issubclass(value, Enum) else ""
    return f"- `{name}`: {about}{values}"


def methods(name: str, cls: type) -> str:
    """A section on a class: its methods and attributes, with their signatures."""
    lines = [f"## {name}\n\n{inspect.getdoc(cls)}\n"]
    for attribute in sorted(n for n in dir(cls) if not n.startswith("_")):
        value = inspect.getattr_static(cls, attribute)
        function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if inspect.isfunction(function):
            parameters = inspect.signature(function).parameters.values()
            shown = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters if p.name not in ("self", "cls"))
            lines.append(f"- `{attribute}({shown})`: {sentence(function)}")
        elif isinstance(value, property):
            lines.append(f"- `{attribute}`: {sentence(value)}")
    return "\n".join(lines) + "\n"


def page(title: str, modules: tuple[str, ...], in_full: tuple[str, ...]) -> str:
    """A whole page."""
    parts = [f"# {title}\n\nMade from the docstrings by `make docs`. A name stands once, where it is first met.\n"]
    seen: dict[str, Any] = {}
    for module_name in modules:
        module = import_module(module_name)
        new = {name: getattr(module, name) for name in sorted(module.__all__) if name != "__version__"}
        new = {name: value for name, value in new.items() if seen.get(name) is not value}
        seen.update(new)
        listed = "\n".join(entry(name, value) for name, value in new.items())
        parts.append(f"## Of `{module_name}`\n\n{listed}\n" if listed else "")
    parts += [methods(name, seen[name]) for name in in_full]
    return "\n".join(part for part in parts if part)


def main() -> int:
    """Write the pages, or compare them."""
    wrong = False
    for file, (title, modules, in_full) in PAGES.items():
        text, place = page(title, modules, in_full), REFERENCE / file
        if "--check" not in sys.argv:
            place.write_text(text, "utf-8")
        elif not place.exists() or place.read_text("utf-8") != text:
            print(f"{file} is not what the docstrings say: run `make docs`", file=sys.stderr)
            wrong = True
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
