"""What others may see of runs: OpenTelemetry spans."""

from stepwell.observe._otel import OpenTelemetry

__all__ = ["OpenTelemetry"]

OpenTelemetry.__module__ = __name__
