"""Each text says what is so, and what to do next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stepwell.cli._output import visible
from tests.cli.test_cli import Cli

APP = r"""
from stepwell import Retry, durable_execution

@durable_execution
def undone(event, context):
    context.step(lambda _: 1, name="book", undo=lambda step_context, value: None)

    def bad(_):
        raise ValueError("red \x1b[31m text\nand a second line")

    context.step(bad, name="bad", retry=Retry(1))

@durable_execution
def asks(event, context):
    return context.approve("Refund?", form={"amount": int}, name="allow")
"""


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    made = Cli(tmp_path)
    (tmp_path / "texts.py").write_text(APP)
    return made


def test_what_was_undone_is_not_told_to_be_retried(cli: Cli) -> None:
    assert cli("run", "texts.py:undone", "--id", "u", code=1).stderr.splitlines()[1:] == ["  stepwell show u"]
    shown = cli("show", "u").stderr
    assert f"next: stepwell run {cli.folder / 'texts.py'}:undone" in shown
    assert cli("retry", "u", code=2).stderr == "error: run u: its finished steps were undone; start a new run\n"


def test_controls_in_texts_are_shown_and_not_obeyed(cli: Cli) -> None:
    failed = cli("run", "texts.py:undone", "--id", "u", code=1)
    # Where stdout is no terminal click drops colours by itself.
    for said in (failed.stderr, cli("show", "u").stdout, cli("ls").stdout):
        assert r"red \x1b[31m text" in said
    assert "  error: StepError: red \\x1b[31m text\n    and a second line\n" in cli("show", "u").stdout


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a\tb\nc ü 🙂", "a\tb\nc ü 🙂"),
        ("\x07\x9b2J\r", r"\x07\x9b2J\r"),
        ("\u202egnp", r"\u202egnp"),
        ("\ud800", r"\ud800"),
    ],
)
def test_which_characters_are_shown_as_such(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_waiting_run_that_nobody_drives_says_how_it_goes_on(cli: Cli) -> None:
    cli("run", "texts.py:asks", "--id", "a", "--no-wait", code=5)
    assert cli("show", "a").stderr == "next: stepwell resume a\n  goes on with it when it can; no worker does\n"


def test_approvals_that_are_refused_say_how_it_is_done(cli: Cli) -> None:
    cli("run", "texts.py:asks", "--id", "a", "--no-wait", code=5)
    refused = cli("approve", "a", code=2).stderr
    assert (
        refused
        == 'error: answer: must be a JSON object\n  stepwell approve a allow --json \'{"amount":"<integer>"}\'\n'
    )
    cli("approve", "a", "allow", "--json", '{"amount": 3}')
    twice = cli("approve", "a", "allow", "--json", '{"amount": 4}', code=2).stderr
    assert twice == "error: callback already completed: SUCCEEDED\n  stepwell show a\n"
    assert cli("resume", "a").stdout == '{"amount":3}\n'
    none = cli("approve", "a", code=2).stderr
    assert none == "error: run a waits for no approval\n  stepwell show a\n"


@pytest.mark.parametrize(
    "args",
    [
        ("cancel", "r"),
        ("resume", "r"),
        ("retry", "r"),
        ("signal", "r", "paid"),
        ("approve", "r"),
        ("fork", "r"),
        ("callback", "WyJyIl0.x", "--success", "1"),
    ],
)
def test_a_command_about_a_run_makes_no_store(cli: Cli, args: tuple[str, ...]) -> None:
    before = sorted(path.name for path in cli.folder.iterdir())
    cli(*args, code=2)
    assert sorted(path.name for path in cli.folder.iterdir()) == before


@pytest.mark.parametrize(
    "args, says",
    [
        (("signal", "r", "paid", "{bad"), "JSON:1:2: no JSON"),
        (("signal", "r", "paid", "monday"), "a text needs quotes of its own: '\"monday\"'"),
        (("signal", "r", "paid", "@none.json"), "error: JSON: none.json: No such file or directory\n"),
        (("run", "app.py:handler", "--input", "@none.json"), "error: --input: none.json: No such file or directory\n"),
    ],
)
def test_json_that_cannot_be_read_names_where_it_was_given(cli: Cli, args: tuple[str, ...], says: str) -> None:
    said = cli(*args, code=2).stderr
    assert says in said
    assert args[0] == "run" or "--input" not in said


def test_a_store_that_is_not_there_says_what_makes_it(cli: Cli) -> None:
    assert "the first run makes it" in cli("doctor", code=7).stderr
    (cli.folder / "store.db").touch()
    assert "the first run makes them" in cli("ls", code=7).stderr


def test_a_url_with_a_password_that_is_none_is_not_printed(cli: Cli) -> None:
    said = cli("ls", "--store", "postgresql://ann:hush-hush@[bad", code=2).stderr
    assert "none of PostgreSQL" in said
    assert "hush" not in said


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(cli: Cli, closed: str) -> None:
    program = f'"{sys.executable}" -m stepwell.cli run app.py:noisy --id n {closed}'
    done = subprocess.run(
        ["sh", "-c", program], cwd=cli.folder, env=cli.env, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
    assert cli("wait", "n").stdout == "succeeded\n"
    assert "nothing is wrong" in cli("doctor").stdout
    store = cli.folder / "store.db"
    assert b"from a child" not in store.read_bytes()
