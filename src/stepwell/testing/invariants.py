"""What Stepwell promises of every run (P1 to P7), as functions over a journal."""

from stepwell.testing._invariants import Violation, check_run

__all__ = ["Violation", "check_run"]
