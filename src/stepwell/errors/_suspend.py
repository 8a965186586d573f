"""How a parked run leaves the user's frames."""

from __future__ import annotations


class Suspend(BaseException):
    """The run is parked; this unwinds its frames and is no error.

    A BaseException, like `GeneratorExit` and `asyncio.CancelledError`: a run that waits has to get out through
    whatever `except Exception` the user's code contains, or the handler would take the wait for a failure, compensate
    for it, and have that on record. `finally` blocks run. It never crosses the public API.
    """
