"""The pytest plugin: marker ``durable_execution`` and fixture ``durable_runner``. pytest loads it by entry point."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stepwell.testing import DurableRunner

_SETTINGS = ("handler", "lambda_function_name", "skip_time", "store")
_EXAMPLE = """write

    @pytest.mark.durable_execution(handler=handler, lambda_function_name="my_function")
    def test_it(durable_runner):
        ..."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "durable_execution(handler, lambda_function_name=None, skip_time=True, store=None): the durable function that "
        "the fixture durable_runner runs.",
    )


@pytest.fixture
def durable_runner(request: pytest.FixtureRequest) -> Iterator[DurableRunner]:
    """A `DurableRunner` of the function that the test's marker names."""
    settings = _settings(request)
    from stepwell.testing import DurableRunner

    runner = DurableRunner(settings.pop("handler"), settings.pop("lambda_function_name", None), **settings)
    yield runner
    runner.close()


def _settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    marker = request.node.get_closest_marker("durable_execution")
    if marker is None:
        pytest.fail(f"durable_runner does not know which function to run: {_EXAMPLE}", pytrace=False)
    unknown = [name for name in marker.kwargs if name not in _SETTINGS]
    if marker.args or unknown:
        what = f"no argument {unknown[0]!r}" if unknown else "named arguments only"
        pytest.fail(f"durable_execution takes {what} ({', '.join(_SETTINGS)}): {_EXAMPLE}", pytrace=False)
    if marker.kwargs.get("handler") is None:
        pytest.fail(f"durable_execution needs handler=, the durable function: {_EXAMPLE}", pytrace=False)
    return dict(marker.kwargs)
