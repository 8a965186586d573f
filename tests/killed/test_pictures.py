"""The example of the pictures, on real ones, killed with SIGKILL at seeded lines of its ledger: whatever the moment, the
folder is as it must be in the end, and nothing that is on record is done again.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageDraw

from tests.pipeline.lives import Stage, Zygote

if TYPE_CHECKING:
    from collections.abc import Callable

PICTURES = 4
WIDTH = 24
LINES = 26
"""Kills fall on one of so many lines of a life; a whole undisturbed life has some sixty."""
ENDINGS = ("succeeded", "failed", "cancelled")


def painted(folder: Path) -> None:
    """Real pictures: discs on a gradient."""
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        image = Image.linear_gradient("L").resize((96, 60)).convert("RGB")
        ImageDraw.Draw(image).ellipse((10 * number, 10, 10 * number + 40, 50), fill=(200, 40 * number, 40))
        image.save(folder / f"{number}.png")


def staged(zygote: Zygote, folder: Path, *, fails: bool) -> Stage:
    """Pictures, and a target that holds something already."""
    source, target = folder / "stage" / "photos", folder / "stage" / "small"
    painted(source)
    target.mkdir()
    (target / "mine.txt").write_text("what was here before")
    params = {"source": str(source), "target": str(target), "width": WIDTH, "fails": fails}
    return Stage(zygote, folder, "images", params)


def play(stage: Stage, ending: str, random_lines: random.Random, left: int) -> tuple[dict[str, Any], int]:
    """Lives of one run, killed until the dice or ``left`` let one live; how it ended, and how many were killed."""
    kills = 0
    cancelled = False
    while True:
        cancel = ending == "cancelled" and kills > 0 and not cancelled
        cancelled = cancelled or cancel
        kill_at = random_lines.randint(1, LINES) if kills < left else 0
        answer = stage.live(kill_at, cancel=cancel)
        if answer is None:
            kills += 1
        elif answer.get("error") != "RunBlocked":  # five lives lost in a row without an end: a person resumes it
            return answer, kills


def test_random_kills_over_real_pictures(
    tmp_path: Path, request: pytest.FixtureRequest, found: Callable[[str], None]
) -> None:
    """§6, as one: half as many kills as the ring has rounds."""
    wanted: int = request.config.getoption("--rounds") // 2
    total, seed = 0, 0
    ends: Counter[str] = Counter()
    places: Counter[str] = Counter()
    with Zygote() as zygote:
        while total < wanted:
            ending = ENDINGS[seed % len(ENDINGS)]
            folder = tmp_path / str(seed)
            stage = staged(zygote, folder, fails=ending == "failed")
            before = stage.tree()
            answer, kills = play(stage, ending, random.Random(seed), wanted - total)
            told = f"seed {seed}, {ending}, {kills} kills: {answer}"
            lines = stage.lines()
            assert stage.repeated(resize="Recorded:resize_images/once:{}") == [], told
            assert stage.broken() == [], told
            if "value" in answer:  # also where it had ended before it was to be cancelled
                assert ending != "failed", told
                assert answer["value"] == {"success": True, "steps_executed": 3, "steps_total": 3}, told
                made = {f"small/{n}.png" for n in range(PICTURES)} | {"small/report.txt"}
                after = stage.tree()
                assert set(after) - set(before) == made, told
                assert {name: after[name] for name in before} == before, told
                for number in range(PICTURES):
                    with Image.open(folder / "stage" / "small" / f"{number}.png") as image:
                        image.load()
                        assert image.size == (WIDTH, 15), told
            else:
                expected = {"failed": "Step 'write_report' failed: nobody reads reports", "cancelled": "cancelled"}
                assert expected[ending] in answer["text"], told
                assert stage.tree() == before, told
            ends[ending if "value" not in answer else "succeeded"] += 1
            places.update(lines[at - 1].split(" ")[0] for at, line in enumerate(lines) if line == "KILL")
            total, seed = total + kills, seed + 1
            shutil.rmtree(folder)
    assert set(ends) == set(ENDINGS), "each ending was met"
    found(f"pictures: {total} kills over {seed} runs ({dict(ends)}), behind {dict(places.most_common())}")
