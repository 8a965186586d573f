"""What a lower floor must start above itself, by name: `DurableFunction.run` needs an engine.

Names, not imports, so that the floors hold; each is imported when it is first called.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_TABLE = {
    "run": "stepwell.client:run",
    "run_async": "stepwell.client:run_async",
    "start": "stepwell.client:start",
    "target": "stepwell.pipeline._target:function_of",
}

_DOORS = {"pipeline": "stepwell.pipeline._surface"}
"""Module by door, with what the door has to say of its runs: durable functions need none.

- ``run_object(store, row) -> dict``: the door's own keys in the one JSON object of a run.
- ``lines(store, row, painted) -> Iterator[str]``: what `show` prints in place of the tree.
- ``again(store, run, force, skip, values, *, over)``: what a retry does to what is on record, in the words of a
  `Reopened` (``force skip values again``) and with what it is to be told (``decide``); ``over``: all is made again.
- ``fork_at(store, run, name) -> key``: where a fork begins that is to go on by itself at this step.
- ``undecided(store, run, name) -> key``: a step that a person may still skip or force, by the signal ``DECISIONS``.
- ``sight(store, row, since)``: for a terminal; its ``look()`` gives ``name percent step step_percent undoing
  seconds_left``, its ``events()`` the lines of what was said since then (microseconds) and not told yet.
- ``refusal(store, row) -> (text, hint)``: why nobody but the one who started this run goes on with it.
- ``log_objects(store, row, step) -> Iterator[dict]``: what `logs` prints.
"""


def hook(name: str) -> Any:
    """The function behind a hook."""
    module, _, attribute = _TABLE[name].partition(":")
    return getattr(import_module(module), attribute)


def of_door(door: str, name: str) -> Any:
    """What a door has to say of its runs under this name; None if nothing."""
    return None if door not in _DOORS else getattr(import_module(_DOORS[door]), name, None)
