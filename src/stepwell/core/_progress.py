"""How far a run has come: Σ weight·fraction / Σ known weights (durable.md §5.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepwell.core._keys import parent_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stepwell.core._state import Op, RunState

_WEIGHTLESS = frozenset({"wait", "now", "random", "uuid", "on_failure", "completion"})
_SCOPES = frozenset({"child", "map", "parallel", "map_item", "parallel_branch", "with_retry"})


def progress(run: RunState, partial: Mapping[str, float] | None = None) -> float:
    """Fraction of the known work that is done, 0 to 1. ``partial``: fractions that running steps have told, by key.

    A scope counts its parts where it has any, and what its parts are still to be known by its ``total``.
    """
    if run.end is not None:
        return 1.0
    children: dict[str, list[Op]] = {}
    for op in run.ops.values():
        if op.kind not in _WEIGHTLESS and not op.key.startswith("undo/"):
            children.setdefault(parent_of(op.key), []).append(op)
    done, known = _sum(children, "", partial or {})
    return done / known if known else 0.0


def _sum(children: dict[str, list[Op]], scope: str, partial: Mapping[str, float]) -> tuple[float, float]:
    done = known = 0.0
    for op in children.get(scope, ()):
        weight = 1.0 if op.weight is None else op.weight
        known += weight
        if op.ended:
            done += weight
        elif op.kind in _SCOPES:
            inner_done, inner_known = _sum(children, op.key, partial)
            inner_known = max(inner_known, float(op.total or 0))
            done += weight * inner_done / inner_known if inner_known else 0.0
        else:
            done += weight * min(1.0, max(0.0, partial.get(op.key, 0.0)))
    return done, known
