"""What a command line names: a function, or a file of functions."""

from __future__ import annotations

import contextlib
import traceback
from typing import TYPE_CHECKING

from stepwell.client import load_module, load_target
from stepwell.durable._function import DurableFunction
from stepwell.errors import BadArguments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.client import Engine


@contextlib.contextmanager
def _import_errors(target: str) -> Iterator[None]:
    """Say at which line an import failed; one that ends the process is a failed one."""
    try:
        yield
    except BadArguments as error:
        frames = traceback.extract_tb(error.__cause__.__traceback__) if error.__cause__ is not None else []
        if error.hint is None and frames and "importing it failed" in str(error):
            error.hint = f"at {frames[-1].filename}:{frames[-1].lineno}; --debug shows the traceback"
        raise
    except SystemExit as error:
        message = f"{target}: importing it failed: it ended the process with sys.exit({error.code!r})"
        raise BadArguments(message, hint="""put it below `if __name__ == "__main__":`""") from error


def target_function(target: str) -> DurableFunction:
    """The durable function behind ``file.py:name`` or ``package.module:name``. Raises `BadArguments`."""
    with _import_errors(target):
        return load_target(target)


def register_app(engine: Engine, app: str) -> None:
    """Make every durable function of a file or module known. Raises `BadArguments` if there is none."""
    place = app.rpartition(":")[0] or app
    with _import_errors(place):
        module = load_module(place)
    found = [value for value in vars(module).values() if isinstance(value, DurableFunction)]
    for function in found:
        engine.register(function)
    if not found:
        message = f"{app} has no durable function; decorate one with @durable_execution"
        raise BadArguments(message)
