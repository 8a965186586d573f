"""From exceptions to one line and an exit code."""

from __future__ import annotations

import sys
import traceback
from typing import TYPE_CHECKING

import click

from stepwell.errors import StepwellError

if TYPE_CHECKING:
    from collections.abc import Sequence

PARKED = 5


def guarded(command: click.Command, args: Sequence[str]) -> int:
    """Run a command; its exit code (ARCHITECTURE.md §7). Errors become one line on stderr."""
    debug = "--debug" in args
    try:
        code = command.main(args=[a for a in args if a != "--debug"], prog_name="stepwell", standalone_mode=False)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except click.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except StepwellError as error:
        return tell(error, debug=debug)
    return code if isinstance(code, int) else 0


def tell(error: StepwellError, *, debug: bool) -> int:
    """Say on stderr what went wrong and what to do next."""
    if debug:
        traceback.print_exception(error)
    click.echo(f"error: {error}", err=True)
    if error.hint:
        click.echo(f"  {error.hint}", err=True)
    return error.exit_code
