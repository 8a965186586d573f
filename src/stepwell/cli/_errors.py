"""From exceptions to one line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from typing import TYPE_CHECKING, Any

import click

from stepwell.cli._output import visible
from stepwell.errors import StepwellError

if TYPE_CHECKING:
    from collections.abc import Sequence

PARKED = 5


class GuardedGroup(click.Group):
    """Errors become one line on stderr and an exit code.

    Caught here and not around `main`: a failed run is also an instance of what its handler raised, and click has its
    own idea of an `EOFError` or a broken pipe.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; its exit code (ARCHITECTURE.md §7)."""
        debug = bool(ctx.obj)
        try:
            return super().invoke(ctx)
        except StepwellError as error:
            return tell(error, debug=debug)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter's last flush fails, too
            return 0
        except Exception as error:
            if debug:
                traceback.print_exception(error)
            say(f"error: {type(error).__name__}: {error}", None if debug else "--debug shows the traceback")
            return 1


def guarded(command: click.Command, args: Sequence[str]) -> int:
    """Run a command line; its exit code."""
    debug = "--debug" in args
    kept = [a for a in args if a != "--debug"]
    try:
        code = command.main(args=kept, prog_name="stepwell", standalone_mode=False, obj=debug)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (click.Abort, KeyboardInterrupt):
        return 130
    return code if isinstance(code, int) else 0


def tell(error: StepwellError, *, debug: bool) -> int:
    """Say on stderr what went wrong and what to do next."""
    if debug:
        traceback.print_exception(error)
    say(f"error: {error}", error.hint)
    return error.exit_code


def say(text: str, hint: str | None = None) -> None:
    """One line on stderr, and one for the next step."""
    sys.stdout.flush()
    click.echo(visible(" ".join(text.split())), err=True)
    if hint:
        click.echo(f"  {visible(hint)}", err=True)
