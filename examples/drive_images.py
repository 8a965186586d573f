"""Run ``images.py`` on real pictures, let its last step fail, pull the plug inside the rollback, and take it up again.

    python examples/drive_images.py

The pictures are made here with Pillow. The process is killed with SIGKILL when the ledger shows the rollback of the
resized pictures begun. Exit code 0 only if the target folder is byte for byte as it was before.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / ".stepwell" / "demo-pipeline"
RUN = "photos"
PICTURES = 24
SECONDS = 60.0


def paint(folder: Path, count: int = PICTURES) -> None:
    """Real pictures: discs on a gradient."""
    folder.mkdir(parents=True)
    for number in range(count):
        image = Image.linear_gradient("L").resize((320, 200)).convert("RGB")
        draw = ImageDraw.Draw(image)
        draw.ellipse((10 * number, 20, 10 * number + 80, 100), fill=(255 - 10 * number, 40, 10 * number))
        image.save(folder / f"picture-{number:02}.png")


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Each file of the folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def small(folder: Path) -> int:
    """How many pictures are there."""
    return len(list(folder.glob("*.png")))


def stepwell(*arguments: str) -> subprocess.Popen[str]:
    """The command line, in a process of its own."""
    store = f"sqlite:///{DEMO}/store.db"
    environ = {**os.environ, "STEPWELL_STORE": store}
    command = [sys.executable, "-m", "stepwell.cli", *arguments]
    return subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill_when(process: subprocess.Popen[str], ready: Callable[[], bool], what: str) -> None:
    """SIGKILL, as soon as it is time."""
    end = time.monotonic() + SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"the run did not come to {what}:\n{process.communicate()[0]}")
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def main() -> int:
    """Play."""
    shutil.rmtree(DEMO, ignore_errors=True)
    source, target, ledger = DEMO / "photos", DEMO / "small", DEMO / "ledger"
    paint(source)
    target.mkdir()
    (target / "mine.txt").write_text("what was here before\n")
    before = bytes_of(target)
    print(f"{PICTURES} pictures in {source}; {target} holds {', '.join(before)}")
    given = {"source": str(source), "target": str(target), "fails": True, "slow": 0.02, "ledger": str(ledger)}
    process = stepwell("run", f"{HERE / 'images.py'}:resize", "--input", json.dumps(given), "--id", RUN)
    kill_when(process, lambda: small(target) >= PICTURES // 2, "the middle")
    print(f"killed in the middle: {small(target)} small pictures")
    process = stepwell("resume", RUN)
    begun = "rollback resize_images"
    kill_when(
        process, lambda: begun in ledger.read_text() and small(target) <= PICTURES - 5, "the middle of the rollback"
    )
    print(f"resumed; its report failed; killed inside the rollback: {small(target)} small pictures left")
    process = stepwell("resume", RUN)
    print("resumed:")
    print("".join(f"  {line}\n" for line in process.communicate(timeout=SECONDS)[0].splitlines()), end="")
    print("".join(f"  {line}\n" for line in stepwell("show", RUN).communicate()[0].splitlines()), end="")
    return report(ledger, bytes_of(target) == before)


def report(ledger: Path, as_before: bool) -> int:
    """What the ledger says."""
    lines = [line.split(" ", 1) for line in ledger.read_text().splitlines()]
    told = Counter(line for _, line in lines)
    twice = sorted(line for line, times in told.items() if line.startswith("resize ") and times > 1)
    print(f"processes: {len({pid for pid, _ in lines})}")
    print(f"pictures resized: {sum(told[f'resize picture-{n:02}.png'] > 0 for n in range(PICTURES))}, twice: {twice}")
    print(f"rollback of resize_images begun {told['rollback resize_images']} times, done once")
    print(f"the folder is {'as it was before' if as_before else 'NOT as it was before'}")
    fine = as_before and len(twice) <= 1 and told["rolled back resize_images"] == 1
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
