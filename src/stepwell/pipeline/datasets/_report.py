"""What a conversion could not keep: nothing is dropped in silence, each loss is counted under a kind and a reason."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = 5
"""How many places a loss names; the count is of all."""
_LONGEST = 200
"""Letters of such a name: names of attributes come from files, and a report is recorded."""


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the target does not hold, counted.

    `kind` is one of `annotation`, `attribute`, `class`, `clipping`, `field`, `id`, `image`, `label`, `mask`, `name`
    and `rounding`; `reason` says why; `examples` names the first places (five at most).
    """

    kind: str
    count: int
    reason: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion wrote and what it could not keep.

    `images` and `annotations` count what stands in the target. `config_path` is the file that a trainer is pointed at
    (`dataset.yaml` of YOLO), `None` where the format has none.
    """

    images: int
    annotations: int
    losses: tuple[Loss, ...] = ()
    config_path: Path | None = None

    @property
    def lossless(self) -> bool:
        """Whether the target holds all that the source held."""
        return not self.losses


class Losses:
    """Losses while they are being found: one entry for a kind and a reason."""

    def __init__(self, known: Iterable[Loss] = ()) -> None:
        self._found: dict[tuple[str, str], tuple[int, list[str]]] = {}
        for loss in known:
            self._found[loss.kind, loss.reason] = (loss.count, list(loss.examples))

    def lost(self, kind: str, reason: str, example: str, count: int = 1) -> None:
        """Count a loss at the place `example`."""
        before, examples = self._found.get((kind, reason), (0, []))
        if len(examples) < EXAMPLES and (shown := _shown(example)) not in examples:
            examples.append(shown)
        self._found[kind, reason] = (before + count, examples)

    def listed(self) -> tuple[Loss, ...]:
        """All losses, by kind and reason, so that equal inputs give equal reports."""
        return tuple(
            Loss(kind, count, reason, tuple(examples))
            for (kind, reason), (count, examples) in sorted(self._found.items(), key=lambda item: item[0])
        )


def _shown(example: str) -> str:
    """JSON can hold halves of letters, which no other text can."""
    text = example if len(example) <= _LONGEST else f"{example[:_LONGEST]}…"
    return text.encode("utf-8", "backslashreplace").decode()
