"""The commands, each importing what it needs when it is typed."""

from __future__ import annotations

import sys


def main() -> None:
    """The program ``stepwell``."""
    from stepwell.cli._commands import stepwell
    from stepwell.cli._errors import guarded

    sys.exit(guarded(stepwell, sys.argv[1:]))
