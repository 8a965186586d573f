"""``stepwell fork``, and the filters of ``stepwell ls``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from stepwell.cli._look import moment
from stepwell.errors import BadArguments
from tests.cli.test_cli import Cli

if TYPE_CHECKING:
    from pathlib import Path

OTHER = """
from stepwell import durable_execution

@durable_execution(tags=["urgent"])
def moved(event, context):
    print("moved")
    first = context.step(lambda _: "not this", name="charge")
    return [first, context.step(lambda _: "more", name="more")]
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    made = Cli(tmp_path)
    (tmp_path / "other.py").write_text(OTHER)
    return made


def test_fork_prints_the_id_and_what_to_do_next(cli: Cli) -> None:
    cli("run", "app.py:handler", "--input", '{"amount": 10}', "--id", "o")
    before = cli("export", "o").stdout
    done = cli("fork", "o", "--to", "other.py:moved", "--at", "wait", "--id", "o2")
    assert done.stdout == "o2\n"
    assert done.stderr == "operations taken over: 1; go on with: stepwell resume o2\n"
    assert cli("resume", "o2").stdout == 'moved\n[{"charged":10},"more"]\n'
    assert cli("export", "o").stdout == before
    shown = json.loads(cli("show", "o2", "--json").stdout)
    assert (shown["name"], shown["tags"]) == ("other:moved", ["urgent", "fork-of:o"])
    assert "nothing is wrong" in cli("doctor").stdout


def test_a_worker_and_json(cli: Cli) -> None:
    cli("run", "app.py:handler", "--id", "o")
    made = json.loads(cli("fork", "o", "--json").stdout)
    assert (made["status"], made["tags"]) == ("pending", ["fork-of:o"])
    cli("worker", "app.py", "--drain")
    assert json.loads(cli("show", made["id"], "--json").stdout)["output"] == {"charged": 1}


def test_a_failed_run_is_mended_by_a_fork(cli: Cli) -> None:
    cli("run", "app.py:handler", "--input", '{"boom": true}', "--id", "o", code=1)
    assert cli("fork", "o", "--to", "other.py:moved", "--id", "mended").stdout == "mended\n"
    assert cli("resume", "mended").stdout == 'moved\n[{"charged":1},"more"]\n'


@pytest.mark.parametrize(
    "args,text",
    [
        (["gone"], "no run gone"),
        (["o", "--at", "gone"], "run o has no operation 'gone'; it has charge, wait"),
        (["o", "--to", "other.py:gone"], "has no 'gone'; it has moved"),
        (["o", "--to", "gone.py:f"], "gone.py: no such file"),
        (["o", "--id", "o"], "is on record already"),
        (["o", "--id", "a/b"], "run id"),
    ],
)
def test_what_cannot_be_forked_is_said_and_nothing_is_written(cli: Cli, args: list[str], text: str) -> None:
    cli("run", "app.py:handler", "--id", "o")
    assert text in cli("fork", *args, code=2).stderr
    assert [run["id"] for run in json.loads(cli("ls", "--json").stdout)] == ["o"]


def test_dry_run_writes_nothing(cli: Cli) -> None:
    cli("run", "app.py:handler", "--id", "o")
    said = cli("fork", "o", "--to", "other.py:moved", "--at", "wait", "--dry-run").stdout
    assert said == "would fork o as a run of other:moved; operations taken over: 1, up to wait\n"
    would = json.loads(cli("fork", "o", "--id", "p", "--dry-run", "--json").stdout)
    assert would == {
        "dry_run": True, "would": "fork", "source": "o", "id": "p", "name": "app:handler", "at": None, "operations": 2,
    }  # fmt: skip
    assert [run["id"] for run in json.loads(cli("ls", "--json").stdout)] == ["o"]


def test_ls_filters(cli: Cli) -> None:
    cli("run", "app.py:handler", "--id", "one")
    cli("run", "other.py:moved", "--id", "two")
    cli("run", "app.py:handler", "--input", '{"boom": true}', "--id", "three", code=1)

    def ids(*args: str) -> list[str]:
        return [run["id"] for run in json.loads(cli("ls", "--json", *args).stdout)]

    assert ids() == ["three", "two", "one"]
    assert ids("--tag", "urgent") == ["two"]
    assert ids("--tag", "urge") == []
    assert ids("--text", "division") == ["three"]
    assert ids("--text", "moved") == ["two"]
    assert ids("--door", "durable", "--name", "app:handler") == ["three", "one"]
    assert ids("--door", "flow") == []
    assert ids("--since", "1h", "--status", "succeeded") == ["two", "one"]
    assert ids("--until", "1h") == []
    assert ids("--since", "2013-01-01", "--until", "2013-01-02T00:00:00Z") == []
    assert cli("ls", "--tag", "none").stderr == "no run matches\n"
    assert "--since yesterday: write how long ago" in cli("ls", "--since", "yesterday", code=2).stderr


def test_moments() -> None:
    now = 1_700_000_000_000_000
    assert moment("--since", "90s", now) == now - 90_000_000
    assert moment("--since", "2d", now) == now - 2 * 86_400_000_000
    assert moment("--since", "999999999d", now) == 0
    assert moment("--since", "2013-01-01", now) == 1_356_998_400_000_000
    assert moment("--since", "2013-01-01T01:00:00.000001+01:00", now) == 1_356_998_400_000_001
    with pytest.raises(BadArguments):
        moment("--until", "2d3h", now)
