"""The guide's own example, as it is printed there, on real pictures."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stepwell import Engine
from stepwell.pipeline.context import RuntimeContext
from stepwell.pipeline.steps import BaseStep, BaseStepContext, Orchestrator, StepRegistry, StepResult
from stepwell.pipeline.steps.utils import LoggingStep, TimingStep, ValidationStep


@dataclass
class ImageProcessingContext(BaseStepContext):
    """Context for image processing workflow."""

    input_dir: str = ""
    output_dir: str = ""
    resize_width: int = 800
    image_paths: list[str] = field(default_factory=list)
    processed_images: list[str] = field(default_factory=list)
    failed_images: list[str] = field(default_factory=list)
    total_bytes_saved: int = 0


class DiscoverImagesStep(BaseStep[ImageProcessingContext]):
    """Find all images in input directory."""

    @property
    def name(self) -> str:
        return "discover_images"

    @property
    def progress_weight(self) -> float:
        return 0.1

    def execute(self, context: ImageProcessingContext) -> StepResult:
        images = [
            os.path.join(context.input_dir, file)  # noqa: PTH118
            for file in sorted(os.listdir(context.input_dir))  # noqa: PTH208
            if file.lower().endswith((".jpg", ".jpeg", ".png"))
        ]
        if not images:
            return StepResult(success=False, error=f"No images found in {context.input_dir}")
        context.image_paths = images
        return StepResult(success=True, data={"image_count": len(images)})


class ResizeImagesStep(BaseStep[ImageProcessingContext]):
    """Resize all discovered images."""

    @property
    def name(self) -> str:
        return "resize_images"

    @property
    def progress_weight(self) -> float:
        return 0.7

    def execute(self, context: ImageProcessingContext) -> StepResult:
        processed = []
        failed = []
        bytes_saved = 0
        for i, path in enumerate(context.image_paths):
            context.set_progress(i + 1, len(context.image_paths))
            try:
                output_path, saved = self._resize_image(path, context.output_dir, context.resize_width)
                processed.append(output_path)
                bytes_saved += saved
            except Exception as e:
                failed.append(path)
                context.log("resize_failed", {"path": path, "error": str(e)})
        context.processed_images = processed
        context.failed_images = failed
        context.total_bytes_saved = bytes_saved
        return StepResult(
            success=True,
            data={"processed": len(processed), "failed": len(failed), "bytes_saved": bytes_saved},
            rollback_data={"output_files": processed},
        )

    def rollback(self, context: ImageProcessingContext, result: StepResult) -> None:
        """Delete processed files on failure."""
        for path in result.rollback_data.get("output_files", []):
            try:
                os.remove(path)  # noqa: PTH107
            except OSError:
                context.errors.append(f"Failed to delete: {path}")

    def _resize_image(self, path: str, output_dir: str, width: int) -> tuple[str, int]:
        target = Path(output_dir) / Path(path).name
        with Image.open(path) as image:
            image.resize((width, round(image.height * width / image.width))).save(target)
        return str(target), Path(path).stat().st_size - target.stat().st_size


class GenerateReportStep(BaseStep[ImageProcessingContext]):
    """Generate summary report."""

    fails = False

    @property
    def name(self) -> str:
        return "generate_report"

    @property
    def progress_weight(self) -> float:
        return 0.2

    def can_skip(self, context: ImageProcessingContext) -> bool:
        return len(context.processed_images) == 0

    def execute(self, context: ImageProcessingContext) -> StepResult:
        report = {
            "total_images": len(context.image_paths),
            "processed": len(context.processed_images),
            "failed": len(context.failed_images),
            "bytes_saved": context.total_bytes_saved,
        }
        if self.fails:
            return StepResult(success=False, error="the printer is out of paper")
        context.log("processing_complete", report)
        return StepResult(success=True, data=report)


def process_images(
    runtime_ctx: RuntimeContext, input_dir: str, output_dir: str, *, engine: Engine, report: GenerateReportStep
) -> dict[str, Any]:
    registry = StepRegistry[ImageProcessingContext]()
    registry.register(DiscoverImagesStep())
    registry.register(ResizeImagesStep())
    registry.register(report)
    context = ImageProcessingContext(
        runtime_ctx=runtime_ctx, input_dir=input_dir, output_dir=output_dir, resize_width=16
    )

    def on_progress(current: int, total: int) -> None:
        seen.append((current, total))
        runtime_ctx.set_progress(current, total, category="overall")

    orchestrator = Orchestrator(registry=registry, context=context, progress_callback=on_progress, engine=engine)
    try:
        orchestrator.execute()
        return {"success": True, "processed": len(context.processed_images), "failed": len(context.failed_images)}
    except RuntimeError as e:
        return {"success": False, "error": str(e), "errors": context.errors}


seen: list[tuple[int, int]] = []


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    seen.clear()
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    for n in range(5):
        Image.new("RGB", (64, 48), (50 * n, 10, 200)).save(source / f"{n}.png")
    return source, target


def test_point_2_the_image_example_reports_10_80_100(engine: Engine, folders: tuple[Path, Path]) -> None:
    source, target = folders
    (source / "5.jpg").write_bytes(b"no picture")
    runtime = RuntimeContext()
    found = process_images(runtime, str(source), str(target), engine=engine, report=GenerateReportStep())
    assert found == {"success": True, "processed": 5, "failed": 1}
    assert seen == [(10, 100), (80, 100), (100, 100)]
    assert runtime.progress["overall"] == (100, 100, 100.0)
    assert runtime.progress["resize_images"] == (6, 6, 100.0)
    with Image.open(target / "3.png") as image:
        assert image.size == (16, 12)


def test_point_2_its_failing_report_removes_every_output(engine: Engine, folders: tuple[Path, Path]) -> None:
    source, target = folders
    report = GenerateReportStep()
    report.fails = True
    found = process_images(RuntimeContext(), str(source), str(target), engine=engine, report=report)
    assert found == {
        "success": False,
        "error": "Step 'generate_report' failed: the printer is out of paper",
        "errors": [],
    }
    assert list(target.iterdir()) == []
    assert seen == [(10, 100), (80, 100)]


def test_no_images_fail_the_first_step(engine: Engine, tmp_path: Path) -> None:
    found = process_images(RuntimeContext(), str(tmp_path), "", engine=engine, report=GenerateReportStep())
    assert found["error"] == f"Step 'discover_images' failed: No images found in {tmp_path}"


@pytest.mark.parametrize(
    "answer, error",
    [
        ((True, None), None),
        (True, None),
        ((False, "input_dir is required"), "input_dir is required"),
        ((False, None), "validation failed"),
        (False, "validation failed"),
        (3, "validator must return (bool, str | None), got int"),
        ((1, "x"), "validator must return (bool, str | None), got tuple"),
        (None, "validator must return (bool, str | None), got NoneType"),
    ],
)
def test_what_a_validator_may_say(answer: Any, error: str | None) -> None:
    step: ValidationStep[BaseStepContext] = ValidationStep(
        validator=lambda _context: answer, name="validate_input", progress_weight=0.05
    )
    result = step.execute(BaseStepContext(RuntimeContext()))
    assert isinstance(result, StepResult)
    assert (result.success, result.error) == (error is None, error)
    assert (step.name, step.progress_weight, ValidationStep(lambda _: True).name) == (
        "validate_input",
        0.05,
        "validate",
    )


def test_point_1_wrappers_have_the_names_that_are_printed() -> None:
    step = LoggingStep(TimingStep(ResizeImagesStep()))
    assert (step.name, step.progress_weight) == ("logged_timed_resize_images", 0.7)
    assert isinstance(step.step, TimingStep)


def test_point_1_a_context_with_a_field_without_default(engine: Engine) -> None:
    @dataclass
    class GoodContext(BaseStepContext):
        config_path: str
        loaded_data: dict[str, Any] = field(default_factory=dict)
        results: list[Any] = field(default_factory=list)

    class ProcessStep(BaseStep[GoodContext]):
        name = "process"
        progress_weight = 0.70

        def execute(self, context: GoodContext) -> StepResult:
            context.results = [context.config_path]
            return StepResult(success=True)

    registry = StepRegistry[GoodContext]()
    registry.register(ProcessStep())
    context = GoodContext(RuntimeContext(), config_path="a.yaml")
    assert Orchestrator(registry, context, engine=engine).execute()["success"]
    assert context.results == ["a.yaml"]


def test_point_1_the_printed_calls_of_the_registry(engine: Engine) -> None:
    class Named(BaseStep[Any]):
        progress_weight = 0.1
        name = ""

        def __init__(self, name: str) -> None:
            self.name = name

        def execute(self, context: Any) -> StepResult:
            return StepResult()

    class NewStep(Named):
        def __init__(self) -> None:
            super().__init__("new")

    registry = StepRegistry[Any]()
    for name in ("step1", "step2", "step3"):
        registry.register(Named(name))
    registry.insert_after("step1", NewStep())
    registry.insert_before("step3", NewStep())
    registry.unregister("step_name")
    assert [step.name for step in registry.get_steps()] == ["step1", "step2", "new", "step3"]
    assert registry.total_weight == pytest.approx(0.4)
