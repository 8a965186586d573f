"""Write docs/reference/actions.md from the models of the actions' parameters; with --check, fail where it differs.

python scripts/docs_actions.py [--check]
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from stepwell.pipeline import actions
from stepwell.pipeline.steps import StepRegistry

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "actions.md"
ACTIONS: dict[str, dict[str, Any]] = {
    "DefaultUploadAction": {"name": "x", "excel_metadata_path": "x"},
    "DefaultExportAction": {"name": "x"},
    "AddTaskDataAction": {},
    "BaseTrainAction": {"dataset": 1},
    "DatasetAction": {"operation": "convert", "dataset": 1},
}
"""Each action with parameters that give it all of its steps."""
HEAD = """# Actions

Made from the models of the parameters by `make docs`. `run_plugin("builtin", NAME, {…})` executes an action, or make
an object of its class and call `execute()`. All problems of the parameters come at once, as `BadArguments`, before
anything is written. What names a storage, a project, a collection, a data set or a model takes an id from the
workspace, a path or URL, or the mapping itself.
"""


def page() -> str:
    """The whole reference."""
    return "\n".join([HEAD, *(_action(name, params) for name, params in ACTIONS.items())])


def _action(class_name: str, params: dict[str, Any]) -> str:
    kind = getattr(actions, class_name)
    registry: StepRegistry[Any] = StepRegistry()
    kind(params).setup_steps(registry)
    steps = ", ".join(f"`{step.name}` {step.progress_weight:.2f}" for step in registry)
    described = kind if class_name != "DefaultUploadAction" else actions.BaseUploadAction
    lines = [
        f"## `{kind.action_name}`: {class_name}\n",
        f"{inspect.getdoc(described)}\n",
        f"Steps and weights: {steps}.\n",
    ]
    lines += ["| parameter | type | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in kind.params_model.model_fields.items():
        default = "required" if field.is_required() else f"`{_shown(field.get_default(call_default_factory=True))}`"
        lines.append(f"| `{name}` | `{_type(field.annotation)}` | {default} | {field.description} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    return repr(str(default) if isinstance(default, str) else default)


def _type(annotation: Any) -> str:
    plain = inspect.isclass(annotation) and not hasattr(annotation, "__args__")
    text = annotation.__name__ if plain else str(annotation)
    for module in ("typing.", "stepwell.pipeline.actions.upload._params."):
        text = text.replace(module, "")
    # Python before 3.14 writes Optional where the source has `| None`.
    text = re.sub(r"^Optional\[(.*)\]$", r"\1 | None", text)
    return text.replace("|", "\\|")


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv:
        same = PAGE.exists() and PAGE.read_text("utf-8") == text
        if not same:
            print(f"{PAGE.name} is not what the actions say: run `make docs`", file=sys.stderr)
        return 0 if same else 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
