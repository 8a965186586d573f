"""``python -m stepwell.testing SEED``: play one seed of the simulation again and say what it breaks."""

from __future__ import annotations

import argparse
import sys

from stepwell.testing._simulate import simulate_seed


def main() -> int:
    """Play it; 1 if it breaks a promise."""
    parser = argparse.ArgumentParser(prog="python -m stepwell.testing", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("--store", choices=("memory", "sqlite"), default="memory")
    parser.add_argument("--colour", choices=("sync", "async"), default="sync")
    given = parser.parse_args()
    report = simulate_seed(given.seed, store=given.store, colour=given.colour)
    lines = [f"seed {report.seed}: {report.lives} lives, {report.appends} appends, trace {report.trace}"]
    lines += [str(violation) for violation in report.violations]
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main())
