"""The small examples do what their texts say; the files for deployment are what they are taken for."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import pytest
import yaml

from examples import approval, fan_out, payment, poll
from stepwell import RunFailed
from stepwell.cli._commands import stepwell
from stepwell.testing import DurableRunner, InvocationStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

DEPLOY = Path(__file__).parent.parent / "examples" / "deploy"


def test_an_order_that_goes_well() -> None:
    payment.BOOKS.clear()
    with DurableRunner(payment.order) as runner:
        result = runner.run({"id": "o-1", "amount": 40})
    assert result.result == "shipped o-1"
    assert payment.BOOKS == ["reserved o-1", "charged 40"]


def test_an_order_that_cannot_be_shipped_is_undone_last_first() -> None:
    payment.BOOKS.clear()
    with DurableRunner(payment.order) as runner:
        result = runner.run({"id": "o-2", "amount": 40, "lost": True})
    assert result.status is InvocationStatus.FAILED
    assert payment.BOOKS == ["reserved o-2", "charged 40", "refunded", "gave back o-2"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_plug_pulled_around_the_charge_charges_no_more_than_once(when: Literal["before", "after"]) -> None:
    payment.BOOKS.clear()
    with DurableRunner(payment.order) as runner:
        runner.crash_at("charge", when)
        result = runner.run({"id": "o-3", "amount": 40})
    assert payment.BOOKS.count("charged 40") <= 1
    assert result.status is (InvocationStatus.SUCCEEDED if when == "after" else InvocationStatus.FAILED)


def test_an_approval_is_answered_refused_and_not_answered() -> None:
    event = {"order": "o-1", "amount": 40}
    with DurableRunner(approval.refund) as runner:
        yes, no, late = (runner.start(event) for _ in range(3))
        runner.complete(runner.wait_for_callback(yes, "allow"), {"amount": 25, "note": "box was open"})
        assert yes.result(30) == {"refunded": 25, "why": "box was open"}
        no.approve("allow", reject="too late")
        assert no.result(30) == {"refunded": 0, "why": "too late"}
        runner.wait_for_callback(late, "allow")
        runner.advance(15 * 86_400)
        assert late.result(30) == {"refunded": 0, "why": "nobody answered"}


def test_a_fan_out_tells_what_failed() -> None:
    with DurableRunner(fan_out.thumbnails) as runner:
        result = runner.run({"pictures": ["a.png", "b.png", "broken.txt"]})
    assert result.result == {"made": ["a-small.png", "b-small.png"], "failed": ["broken.txt is no picture"]}


def test_a_poll_looks_until_it_is_ready() -> None:
    with DurableRunner(poll.export_report) as runner:
        assert runner.run({"looks": 3}).result == "job-1 after 3 looks"


# -- deployment


def parses(args: Sequence[str]) -> None:
    """The worker takes these arguments."""
    command = stepwell.commands["worker"]
    command.parse_args(click.Context(command), list(args))


def test_the_systemd_unit() -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "stepwell-worker.service")
    assert set(unit.sections()) == {"Unit", "Service", "Install"}
    program, verb, *args = unit["Service"]["ExecStart"].split()
    assert (Path(program).name, verb) == ("stepwell", "worker")
    parses(args)
    assert unit["Service"]["SuccessExitStatus"] == "143"


def test_the_container_file() -> None:
    lines = [line for line in (DEPLOY / "Containerfile").read_text().splitlines() if line and line[0] != "#"]
    verbs = [line.split()[0] for line in lines]
    assert verbs == ["FROM", "WORKDIR", "RUN", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"]
    entry, more = (yaml.safe_load(line.split(" ", 1)[1]) for line in lines[-2:])
    assert entry[:2] == ["stepwell", "worker"]
    parses([*entry[2:], *more])


def test_the_kubernetes_manifest() -> None:
    manifest = yaml.safe_load((DEPLOY / "worker.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("apps/v1", "Deployment")
    spec = manifest["spec"]
    assert spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    (container,) = spec["template"]["spec"]["containers"]
    parses(container["args"])
    assert container["env"][0]["name"] == "STEPWELL_STORE"
    assert "stepwell ls" in container["livenessProbe"]["exec"]["command"][-1]


def test_a_failed_run_raises_for_its_caller() -> None:
    from stepwell import Engine

    payment.BOOKS.clear()
    engine = Engine("memory://small")
    with pytest.raises(RunFailed, match="no address"):
        engine.run(payment.order, {"id": "o-4", "amount": 1, "lost": True})
    engine.stop()
