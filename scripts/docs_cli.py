"""Write docs/reference/cli.md from the commands themselves; with --check, fail where it differs.

python scripts/docs_cli.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from stepwell.cli._commands import stepwell

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "cli.md"


def page() -> str:
    """The whole reference."""
    codes = (
        "Exit codes: 0 succeeded · 1 failed, timed out or blocked · 2 usage, bad input, changed code · 3 nothing ran "
        "because what it depends on has not run · 4 held by "
        "somebody else · 5 parked · 6 cancelled · 7 store unusable · 130/143 interrupted."
    )
    parts = [f"# Command line\n\nMade from the commands by `make docs`. {codes}\n"]
    for name, command in sorted(stepwell.commands.items()):
        context = click.Context(command, info_name=f"stepwell {name}", max_content_width=100, terminal_width=100)
        parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv:
        same = PAGE.exists() and PAGE.read_text("utf-8") == text
        if not same:
            print(f"{PAGE.name} is not what the commands say: run `make docs`", file=sys.stderr)
        return 0 if same else 1
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
