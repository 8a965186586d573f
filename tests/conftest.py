"""What every test shares: options, fixtures as small plug-in modules, and the time-out that grows with the options."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["pytester", "tests.fix_postgres", "tests.fix_storage"]

SEEDS = 10_000
ROUNDS = 200


def pytest_configure() -> None:
    """Processes of tests are interrupted as in a terminal, also where a shell began pytest in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that `make soak` turns up."""
    group = parser.getgroup("stepwell")
    group.addoption("--seeds", type=int, default=SEEDS, help="how many seeds the simulated ring plays")
    group.addoption("--seed", type=int, default=None, help="the one seed that the simulated ring plays")
    group.addoption("--rounds", type=int, default=ROUNDS, help="how many times the killed ring kills a process")


@pytest.fixture
def found(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line of what the test counted below the summary, also when all is well and in whichever process."""
    return lambda line: request.node.user_properties.append(("found", line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests found."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.getreports(kind) if one.when == "call"]
    for report in sorted(reports, key=lambda one: one.nodeid):
        lines = [line for name, line in report.user_properties if name == "found"]
        if lines:
            terminalreporter.line("\n".join([f"{report.nodeid}:", *(f"  {line}" for line in lines)]))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test more time in step with the seeds and rounds asked for above the defaults."""
    factor = max(1.0, config.getoption("--seeds") / SEEDS, config.getoption("--rounds") / ROUNDS)
    if factor == 1.0:
        return
    for item in items:
        mark = item.get_closest_marker("timeout")
        seconds = float(mark.args[0] if mark else config.getini("timeout"))
        item.add_marker(pytest.mark.timeout(seconds * factor), append=False)
