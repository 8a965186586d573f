"""Resize a folder of images, durably: discover, resize, report. What was written is removed when a later step fails.

    stepwell run examples/images.py:resize --input '{"source": "photos", "target": "small"}' --id photos

Needs Pillow (``pip install 'stepwell[images]'``). ``fails`` makes the report fail, ``slow`` (seconds) each picture take
its time, so that there is something to kill.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from stepwell.pipeline import (
    BaseStep,
    BaseStepContext,
    Orchestrator,
    RuntimeContext,
    StepRegistry,
    StepResult,
    pipeline,
)


@dataclass
class ImageContext(BaseStepContext):
    """What the steps share. Every field is on record after each step."""

    source: str = ""
    target: str = ""
    width: int = 64
    slow: float = 0.0
    fails: bool = False
    ledger: str = ""
    found: list[Path] = field(default_factory=list)
    resized: list[Path] = field(default_factory=list)

    def note(self, line: str) -> None:
        """A line in a file of our own, apart from the journal: what really happened."""
        if self.ledger:
            with Path(self.ledger).open("a", encoding="utf-8") as ledger:
                ledger.write(f"{os.getpid()} {line}\n")


class DiscoverImages(BaseStep[ImageContext]):
    """Find the pictures."""

    name = "discover_images"
    progress_weight = 0.1

    def execute(self, context: ImageContext) -> StepResult:
        context.note("execute discover_images")
        context.found = sorted(Path(context.source).glob("*.png"))
        if not context.found:
            return StepResult(success=False, error=f"No images found in {context.source}")
        return StepResult(data={"image_count": len(context.found)})


class ResizeImages(BaseStep[ImageContext]):
    """Make each of them smaller. A picture that is on record is not made again after a crash."""

    name = "resize_images"
    progress_weight = 0.7

    def execute(self, context: ImageContext) -> StepResult:
        context.note("execute resize_images")
        for index, path in enumerate(context.found):
            made = context.once(path.name, lambda path=path: self.resize(context, path))
            context.resized.append(made)
            context.set_progress(index + 1, len(context.found))
        written = [str(path) for path in context.resized]
        return StepResult(data={"resized": len(written)}, rollback_data={"written": written})

    def resize(self, context: ImageContext, path: Path) -> Path:
        """One picture. Written under another name first: a kill leaves no half of it."""
        context.note(f"resize {path.name}")
        time.sleep(context.slow)
        target = Path(context.target) / path.name
        with Image.open(path) as image:
            height = max(1, round(image.height * context.width / image.width))
            part = target.with_suffix(".part")
            image.resize((context.width, height)).save(part, "PNG")
        part.replace(target)
        return target

    def rollback(self, context: ImageContext, result: StepResult) -> None:
        context.note("rollback resize_images")
        # A step that failed, or was cut off half-way, returned no list: then what it was to write was ours, and a part.
        for path in result.rollback_data.get("written", [Path(context.target) / p.name for p in context.found]):
            time.sleep(context.slow)
            Path(path).unlink(missing_ok=True)
            Path(path).with_suffix(".part").unlink(missing_ok=True)
        context.resized.clear()
        context.note("rolled back resize_images")


class WriteReport(BaseStep[ImageContext]):
    """Say what was done."""

    name = "write_report"
    progress_weight = 0.2

    def can_skip(self, context: ImageContext) -> bool:
        return not context.resized

    def execute(self, context: ImageContext) -> StepResult:
        context.note("execute write_report")
        report = Path(context.target) / "report.txt"
        report.write_text(f"{len(context.resized)} of {len(context.found)} images\n", encoding="utf-8")
        if context.fails:
            message = "nobody reads reports"
            raise RuntimeError(message)
        context.log("report_written", {"images": len(context.resized)}, str(report))
        return StepResult(rollback_data={"report": str(report)})

    def rollback(self, context: ImageContext, result: StepResult) -> None:
        context.note("rollback write_report")
        (Path(context.target) / "report.txt").unlink(missing_ok=True)


@pipeline
def resize(
    source: str,
    target: str,
    runtime_ctx: RuntimeContext,
    width: int = 64,
    slow: float = 0.0,
    fails: bool = False,
    ledger: str = "",
) -> Orchestrator[ImageContext]:
    """The pipeline. Called again whenever its run is taken up, so it does nothing but put things together."""
    registry = StepRegistry[ImageContext]()
    for step in (DiscoverImages(), ResizeImages(), WriteReport()):
        registry.register(step)
    context = ImageContext(runtime_ctx, source, target, width, slow, fails, ledger)
    return Orchestrator(registry, context)
