"""The commands, each importing what it needs when it is typed."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The program ``stepwell``."""
    _open_streams()
    from stepwell.cli._commands import stepwell
    from stepwell.cli._errors import guarded

    sys.exit(guarded(stepwell, sys.argv[1:]))


def _open_streams() -> None:
    """A stream that the caller has closed leads nowhere. Else the store would get its number, and what child processes
    print would go into the journal.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, number)
            os.set_inheritable(number, True)
            if nowhere > 2:
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8"))
