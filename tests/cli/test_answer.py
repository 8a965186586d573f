"""signal, callback and approve, as programs; and what ``show`` says of those who wait to be told something."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from stepwell import Engine
from tests.cli.test_golden import call, compare

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

APP = """
import pydantic
from stepwell import durable_execution
from stepwell.durable.config import CallbackConfig
from stepwell.errors import DurableOperationError

class Refund(pydantic.BaseModel):
    amount: int
    why: str = ""

@durable_execution
async def handler(event, context):
    async def ask(child):
        return (await child.approve("Refund it?", form=Refund, who=["ann"], name="refund")).amount

    async def hear(child):
        callback = await child.create_callback("paid")
        try:
            return await callback.result()
        except DurableOperationError as error:
            return [error.error_type, str(error)]

    async def wait(child):
        return await child.wait_signal("go on")

    return await context.gather(ask, hear, wait)
"""


class Cli:
    """Commands in a folder with one run, ``r``, that waits for three things."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        self("run", "app.py:handler", "--id", "r", "--no-wait", code=5)

    def __call__(self, *args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = call(self.folder, *args)
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    def engine(self) -> Engine:
        return Engine(f"sqlite:///{self.folder / 'store.db'}")

    def callback_id(self, name: str) -> str:
        shown = json.loads(self("show", "r", "--json").stdout)
        return str(next(c["id"] for c in shown["callbacks"] if c["name"] == name))

    def result(self) -> Any:
        return json.loads(self("resume", "r", "app.py").stdout)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_all_three_are_told_and_the_run_goes_on(cli: Cli) -> None:
    said = cli("signal", "r", "go on", '{"n": 1}')
    assert said.stdout == "sent signal 'go on' to run r\n"
    assert "next: stepwell show r" in said.stderr
    paid = cli("callback", cli.callback_id("paid"), "--success", '{"raw": 1}')
    assert paid.stdout == "sent success to callback 'paid' of run r\n"
    yes = cli("approve", "r", "--json", '{"amount": 7}')
    assert yes.stdout == "sent yes to approval 'refund' of run r\n"
    assert cli.result() == [7, '{"raw": 1}', {"n": 1}]


def test_json_output_and_dry_run(cli: Cli) -> None:
    callback_id = cli.callback_id("paid")
    commands: list[tuple[list[str], dict[str, Any]]] = [
        (["signal", "r", "go on"], {"run": "r", "signal": "go on"}),
        (["callback", callback_id, "--failure", "no"], {"run": "r", "callback": callback_id, "answer": "failure"}),
    ]
    for command, told in commands:
        dry = cli(*command, "--dry-run", "--json")
        assert json.loads(dry.stdout) == {"dry_run": True, **told}
    assert cli("signal", "r", "go on", "--dry-run").stdout == "would send signal 'go on' to run r\n"
    no = cli("approve", "r", "refund", "--reject", "no", "--dry-run")
    assert no.stdout == "would send no to approval 'refund' of run r\n"
    engine = cli.engine()
    assert [c["name"] for c in engine.get_run("r").callbacks()] == ["refund", "paid"]
    assert not [r for r in engine.get_run("r").history() if r["record"] == "SignalReceived"]
    engine.stop()
    for command, told in commands:
        assert json.loads(cli(*command, "--json").stdout) == {"dry_run": False, **told}


def test_a_failure_with_a_type_and_a_heartbeat(cli: Cli) -> None:
    callback_id = cli.callback_id("paid")
    cli("callback", callback_id, "--heartbeat")
    cli("callback", callback_id, "--failure", "card refused", "--type", "Denied")
    again = cli("callback", callback_id, "--success", "x", code=2)
    assert "callback already completed: FAILED" in again.stderr
    cli("signal", "r", "go on")
    cli("approve", "r", "--json", '{"amount": 1}')
    assert cli.result() == [1, ["Denied", "card refused"], None]


@pytest.mark.parametrize(
    "args, text",
    [
        (["callback", "ID"], "say what the answer is"),
        (["callback", "ID", "--success", "x", "--heartbeat"], "say what the answer is"),
        (["callback", "ID", "--success", "x", "--type", "T"], "--type goes with --failure"),
        (["callback", "nonsense", "--success", "x"], "no callback"),
        (["approve", "r", "--json", "{}", "--reject", "no"], "give one of them"),
        (["approve", "r", "--json", "no json"], "--json"),
        (["approve", "r", "other"], "open: refund"),
        (["approve", "r", "--json", '{"amount": "much", "why": 1}'], "amount: "),
        (["signal", "r", "go on", "no json"], "JSON"),
        (["signal", "nobody", "go on"], "nobody"),
    ],
)
def test_what_is_refused_changes_nothing(cli: Cli, args: list[str], text: str) -> None:
    done = cli(*(cli.callback_id("paid") if arg == "ID" else arg for arg in args), code=2)
    assert text in done.stderr
    engine = cli.engine()
    assert [c["name"] for c in engine.get_run("r").callbacks()] == ["refund", "paid"]
    assert engine.get_run("r").status in ("waiting", "interrupted")
    engine.stop()


def test_all_problems_of_an_answer_are_said(cli: Cli) -> None:
    done = cli("approve", "r", "--json", '{"amount": "much", "why": 1}', code=2)
    assert "amount: " in done.stderr
    assert "why: " in done.stderr


def test_a_signal_with_a_key_is_sent_once(cli: Cli) -> None:
    for number in ("1", "2"):
        cli("signal", "r", "go on", number, "--key", "k")
    engine = cli.engine()
    facts = engine.store.inbox_load(engine.find("r").rid)
    assert len(facts) == 1
    engine.stop()


def test_show_says_what_waits_and_how_to_bring_it(cli: Cli) -> None:
    done = cli("show", "r")
    text = f"{done.stdout}--- stderr\n{done.stderr}"
    text = re.sub(r"about [\d.]+ (s|min|h) left", "about T left", re.sub(r"WyJ[\w.-]+", "ID", text))
    compare("show-asks.txt", text)
    for line in re.findall(r"stepwell (callback \S+ --success) TEXT", done.stdout + done.stderr):
        cli(*line.split(" "), "text")
