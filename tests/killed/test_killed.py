"""Lives killed with SIGKILL at seeded ledger lines: whatever the place, the run ends right and nothing runs twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine
from stepwell.core import decode_records
from stepwell.testing._invariants import check_run

if TYPE_CHECKING:
    from collections.abc import Callable

ZYGOTE = Path(__file__).with_name("zygote.py")
PLACES = {
    "begin": "in a body",
    "end": "between body and record",
    "append-before": "in an append",
    "append-after": "in an append",
    "park-before": "in a wait",
    "wait": "in a wait",
    "undo-begin": "in an undo",
    "undo-end": "in an undo",
    "claim-before": "in a takeover",
    "claim-after": "in a takeover",
}


class Zygote:
    """Lives on demand."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(ZYGOTE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def life(self, **command: Any) -> int:
        """Run one life; its exit code, -9 when it was killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return int(json.loads(self._process.stdout.readline())["code"])

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def one_round(seed: int, zygote: Zygote, folder: Path) -> list[str]:
    """One run with up to four kills. Returns the tags of the lines at which it was killed."""
    dice = random.Random(seed)
    ledger = folder / f"{seed}.ledger"
    command = {
        "store": f"sqlite:////{str(folder / f'{seed % 8}.db').lstrip('/')}",
        "run": f"round-{seed}",
        "event": {"width": dice.choice([1, 2, 4]), "fail": seed % 2 == 0},
        "ledger": str(ledger),
        "hold": dice.choice([0, 2]),
    }
    kills = 0
    while True:
        kill_at = (dice.choice(list(PLACES)), dice.choice([1, 1, 2, 3, 5, 8])) if kills < 6 else ("", 0)
        code = zygote.life(**command, kill_at=kill_at)
        if code != -9:
            break
        kills += 1
    lines = [line.split(" ", 2) for line in ledger.read_text().splitlines()]
    check(seed, command, lines, kills, code)
    return [line[2] for line in lines if line[1] == "KILL"]


def check(seed: int, command: dict[str, Any], lines: list[list[str]], kills: int, code: int) -> None:
    """The journal, the ledger and the result agree."""
    where = f"seed {seed}: pytest tests/killed --rounds {seed + 1}"
    fails = command["event"]["fail"]
    assert code == (1 if fails else 0), where
    results = [json.loads(line[2]) for line in lines if line[1] == "RESULT"]
    assert fails or results[-1] == [1, [0, 1, 2, 3], 3], where
    engine = Engine(command["store"])
    try:
        row = engine.find(command["run"])
        entries = engine.store.record_load(row.rid)
        assert check_run([(e.seq, e.epoch, decode_records(e.data)) for e in entries], open=False, hot=None) == [], where
        ended = Counter(line[2] for line in lines if line[1] == "end")
        assert all(count <= 1 + kills for count in ended.values()), where
        succeeded = {
            str(r["key"]).rsplit("/", 1)[-1] for r in engine.get_run(row.id).history() if r["record"] == "StepSucceeded"
        }
        assert {"first", "charge", "flaky", "item0", "item3", "last"} <= succeeded, where
        undone = [line[2] for line in lines if line[1] == "undo-end"]
        assert bool(undone) == fails, where
        if fails:
            assert [key for i, key in enumerate(undone) if key not in undone[:i]] == ["3", "2", "1"], where
    finally:
        engine.stop()


@pytest.mark.timeout(900)
def test_killed_at_seeded_lines(request: pytest.FixtureRequest, tmp_path: Path, found: Callable[[str], None]) -> None:
    rounds = request.config.getoption("--rounds")
    zygote = Zygote()
    fell: Counter[str] = Counter()
    try:
        for seed in range(rounds):
            fell.update(PLACES[tag] for tag in one_round(seed, zygote, tmp_path))
    finally:
        zygote.close()
    found(f"kills fell: {dict(fell)}")
    if rounds >= 200:
        assert all(fell[place] >= 10 for place in set(PLACES.values())), fell
