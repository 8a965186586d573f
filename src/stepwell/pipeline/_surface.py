"""What this door has to say of its runs: `stepwell.runtime._hooks` tells what each of these is for."""

from __future__ import annotations

from stepwell.pipeline._again import DECISIONS, again, fork_at, undecided
from stepwell.pipeline._shown import lines, log_objects, refusal, run_object, sight

__all__ = ["DECISIONS", "again", "fork_at", "lines", "log_objects", "refusal", "run_object", "sight", "undecided"]
