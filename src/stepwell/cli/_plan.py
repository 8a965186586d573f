"""``stepwell plan``: the steps of a pipeline, before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stepwell.cli._output import print_json
from stepwell.cli._run import read_input
from stepwell.cli._tables import print_table
from stepwell.cli._targets import target_function
from stepwell.errors import BadArguments

if TYPE_CHECKING:
    from collections.abc import Iterator


def plan(target: str, text: str | None, *, as_json: bool) -> int:
    """Print it. Raises `BadArguments` if the target is no pipeline."""
    from stepwell.pipeline._target import Target

    function = target_function(target)
    if not isinstance(function, Target):
        message = f"{target} is no pipeline: only those have a plan"
        raise BadArguments(message)
    steps = list(_flat(function.plan({} if text is None else read_input(text))))
    if as_json:
        print_json([{"name": name, "weight": weight, "group": group} for name, weight, group in steps])
    else:
        print_table(("STEP", "WEIGHT", "GROUP"), [(name, f"{weight:g}", group or "") for name, weight, group in steps])
    return 0


def _flat(parts: list[list[Any]]) -> Iterator[tuple[str, float, str | None]]:
    for name, weight, *members in parts:
        if members:
            yield from ((own, each, name) for own, each in members[0])
        else:
            yield name, weight, None
