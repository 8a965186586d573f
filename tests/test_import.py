"""What a durable function needs is cheap to import."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("asyncio", "sqlite3", "click", "rich", "yaml", "pydantic", "psycopg", "stepwell.runtime._host")


def test_a_durable_function_pays_for_nothing_that_it_does_not_use() -> None:
    code = f"import sys; from stepwell import durable_execution, run, StepConfig; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
