"""Steps around steps: logged, timed, validated."""

from stepwell.pipeline.steps.utils.logging import LoggingStep
from stepwell.pipeline.steps.utils.timing import TimingStep
from stepwell.pipeline.steps.utils.validation import ValidationStep

__all__ = ["LoggingStep", "TimingStep", "ValidationStep"]
