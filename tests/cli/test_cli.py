"""The commands, as a program: what they print and how they end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

APP = """
import subprocess
import time

from stepwell import Retry, durable_execution, durable_step

@durable_step
def charge(step_context, amount):
    print("charging", amount)
    step_context.logger.info("charged %s", amount)
    return {"charged": amount}

@durable_execution
def sleeper(event, context):
    return context.step(lambda _: time.sleep(event.get("seconds", 0)) or "slept", name="nap")

@durable_execution
def broken_pipe(event, context):
    raise EOFError("no more")

@durable_execution
def noisy(event, context):
    context.step(lambda _: subprocess.run(["echo", "from a child"], check=True) and None, name="echo")
    return 1

@durable_execution
def handler(event, context):
    result = context.step(charge(event.get("amount", 1)))
    context.wait(event.get("wait", 0))
    if event.get("boom"):
        context.step(lambda: 1 / 0, name="boom", retry=Retry(1))
    return result
"""


class Cli:
    """``cli("run", ...)`` in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "broken.py").write_text("\n1 / 0\n")
        (folder / "leaves.py").write_text("import sys\nsys.exit(0)\n")
        (folder / "empty.py").write_text("")
        self.env = {**os.environ, "COLUMNS": "100", "STEPWELL_STORE": "sqlite:///store.db"}

    def __call__(
        self, *args: str, code: int = 0, text: str | None = None, trace: bool = False
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "stepwell.cli", *args],
            cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=60, input=text, check=False,
        )  # fmt: skip
        assert done.returncode == code, (args, done.returncode, done.stdout, done.stderr)
        assert trace or "Traceback" not in done.stderr
        return done


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


def test_run_prints_what_user_code_prints_and_the_result(cli: Cli) -> None:
    assert (
        cli("run", "app.py:handler", "--input", '{"amount": 10}', "--id", "o").stdout == 'charging 10\n{"charged":10}\n'
    )
    assert cli("run", "app.py:handler", "--id", "o").stdout == '{"charged":10}\n', "nothing runs twice"


def test_json_is_the_run_object(cli: Cli) -> None:
    done = cli("run", "app.py:handler", "--input", "-", "--json", text='{"amount": 2}')
    run: dict[str, Any] = json.loads(done.stdout)
    assert done.stderr == "charging 2\n"
    assert {k: run[k] for k in ("door", "name", "status", "exit_code", "output")} == {
        "door": "durable", "name": "app:handler", "status": "succeeded", "exit_code": 0, "output": {"charged": 2},
    }  # fmt: skip
    assert [node["key"] for node in run["tree"]] == ["charge", "wait"]
    assert json.loads(cli("ls", "--json").stdout)[0]["id"] == run["id"]
    assert json.loads(cli("show", run["id"][:12], "--json").stdout)["id"] == run["id"]


@pytest.mark.parametrize(
    "args, code, says",
    [
        (("run", "app.py:nope"), 2, "app.py has no 'nope'; it has broken_pipe, handler, noisy"),
        (("run", "gone.py:handler"), 2, "gone.py: no such file"),
        (("run", "handler"), 2, "write file.py:function"),
        (("run", "app.py:charge"), 2, "no durable function"),
        (("run", "app.py:handler", "--input", "{bad"), 2, "--input:1:2: no JSON"),
        (("run", "app.py:handler", "--input", "@gone.json"), 2, "gone.json"),
        (("run", "app.py:handler", "--id", "a b"), 2, "run id 'a b'"),
        (("show", "nobody"), 2, "no run nobody"),
        (("gc", "--older-than", "soon"), 2, "--older-than soon"),
        (("ls", "--store", "mysql://x"), 2, "no such kind of store"),
        (("ls", "--store", "sqlite:///app.py"), 7, "is no SQLite database"),
        (("run", "app.py:handler", "--store", "sqlite:////proc/none/x.db"), 7, "cannot be"),
        (("ls", "--status", "done"), 2, "'done' is not one of"),
        (("run", "app.py:handler", "--hold", "-1"), 2, "--hold"),
        (("run", "app.py:handler", "--input", "[" * 100_000), 2, "nested too deeply"),
        (("run", "broken.py:handler"), 2, "broken.py:2; --debug shows"),
        (("run", "leaves.py:handler"), 2, "it ended the process with sys.exit(0)"),
        (("worker", "empty.py"), 2, "empty.py has no durable function"),
        (("retry", "nobody", "--set", "x"), 2, "write STEP=JSON"),
        (("doctor", "--store", "sqlite:///none.db"), 7, "no such file"),
    ],
)
def test_bad_input_is_one_clear_line(cli: Cli, args: tuple[str, ...], code: int, says: str) -> None:
    done = cli(*args, code=code)
    assert done.stdout == ""
    assert says in done.stderr


def test_a_failed_run_can_be_looked_at_and_retried(cli: Cli) -> None:
    failed = cli("run", "app.py:handler", "--input", '{"boom": true}', "--id", "b", code=1)
    assert "error: division by zero" in failed.stderr
    assert "stepwell retry b" in failed.stderr
    shown = cli("show", "b").stdout
    assert "boom  (step)  failed  ZeroDivisionError: division by zero" in shown
    assert cli("retry", "b", "--skip", "boom").stdout == '{"charged":1}\n'
    assert "INFO charge: charged 1" in cli("logs", "b").stdout
    assert "Reopened" in cli("trace", "b").stdout
    assert cli("wait", "b").stdout == "succeeded\n"
    assert json.loads(cli("export", "b").stdout)["run"]["status"] == "succeeded"
    debug = cli("run", "app.py:handler", "--input", '{"boom": true}', "--id", "b2", "--debug", code=1, trace=True)
    assert "Traceback" in debug.stderr
    assert "would run boom again in run b2" in cli("retry", "b2", "--dry-run").stdout
    cli("retry", "b2", "--skip", "nope", "--dry-run", code=2)


def test_no_wait_and_cancel(cli: Cli) -> None:
    assert (
        "stepwell resume w"
        in cli("run", "app.py:handler", "--input", '{"wait": 600}', "--id", "w", "--no-wait", code=5).stderr
    )
    again = cli("run", "app.py:handler", "--id", "w", "--no-wait", code=5)
    assert again.stdout == "", "a second caller does not wait either"
    assert "stepwell resume w" in cli("resume", "w", "--no-wait", code=5).stderr
    assert "would cancel run w" in cli("cancel", "w", "--dry-run").stdout
    assert "run w is cancelled" in cli("cancel", "w").stderr
    cli("cancel", "w", code=2)
    cli("cancel", "w", "--dry-run", code=2)


def test_detach_and_worker(cli: Cli) -> None:
    assert cli("run", "app.py:handler", "--detach", "--id", "d").stdout == "d\n"
    assert "pending" in cli("ls").stdout
    cli("worker", "app.py", "--drain")
    assert cli("wait", "d").stdout == "succeeded\n"


def test_sigterm_hands_the_lease_back_and_a_killed_run_resumes(cli: Cli) -> None:
    for number, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        name = f"k{code}"
        process = subprocess.Popen(
            [sys.executable, "-m", "stepwell.cli", "run", "app.py:handler", "--input", '{"wait": 6}', "--id", name],
            cwd=cli.folder, env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        while "waiting" not in cli("ls").stdout:
            assert process.poll() is None
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == code
        if code == 143:
            assert errors.endswith(f"interrupted; continue with: stepwell resume {name}\n")
        assert cli("resume", name).stdout == '{"charged":1}\n'


def test_doctor_and_gc(cli: Cli) -> None:
    cli("run", "app.py:handler", "--id", "o")
    assert "nothing is wrong" in cli("doctor").stdout
    assert "would take away 1 runs" in cli("gc", "--older-than", "0s", "--dry-run").stdout
    assert "took away 1 runs" in cli("gc", "--older-than", "0s").stdout
    assert "RUN" in cli("ls").stdout


def test_every_command_has_an_example(cli: Cli) -> None:
    from stepwell.cli._commands import stepwell

    for name, command in stepwell.commands.items():
        assert f"stepwell {name}" in (command.help or ""), name


def test_what_the_handler_raised_means_nothing_to_the_command_line(cli: Cli) -> None:
    done = cli("run", "app.py:broken_pipe", "--id", "e", code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("error: no more\n")


def test_json_keeps_what_child_processes_print_out_of_stdout(cli: Cli) -> None:
    done = cli("run", "app.py:noisy", "--json")
    assert json.loads(done.stdout)["output"] == 1
    assert done.stderr == "from a child\n"
    failed = cli("run", "app.py:handler", "--input", '{"boom": true}', "--json", code=1)
    assert json.loads(failed.stdout)["exit_code"] == 1


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["run", "resume"])
def test_a_signal_inside_a_body_hands_the_lease_back(cli: Cli, number: int, code: int, command: str) -> None:
    cli("run", "app.py:sleeper", "--input", '{"seconds": 30}', "--id", "nap", "--detach")
    args = ["run", "app.py:sleeper", "--id", "nap"] if command == "run" else ["resume", "nap"]
    process = subprocess.Popen(
        [sys.executable, "-m", "stepwell.cli", *args],
        cwd=cli.folder, env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while "StepStarted" not in cli("trace", "nap").stdout:
        assert process.poll() is None
    held = cli("run", "app.py:sleeper", "--id", "nap", "--no-wait", code=4)
    assert "holds it" in held.stderr
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    assert (out, process.returncode) == ("", code)
    assert errors.endswith("interrupted; continue with: stepwell resume nap\n")
    assert json.loads(cli("show", "nap", "--json").stdout)["status"] == "interrupted"
    sick = cli("doctor", code=1).stdout
    assert "run nap is interrupted" in sick
    assert "stepwell resume nap" in sick
    assert "nothing is wrong" not in sick
    assert len(json.loads(cli("doctor", "--json", code=1).stdout)["stuck"]) == 1


@pytest.mark.parametrize("number, code, options", [(signal.SIGINT, 130, ()), (signal.SIGTERM, 143, ("--drain",))])
def test_a_worker_that_is_stopped_says_so(cli: Cli, number: int, code: int, options: tuple[str, ...]) -> None:
    """`--drain && next` must not go on: 0 says that nothing is open, and a run of this worker is."""
    cli("run", "app.py:handler", "--input", '{"wait": 60}', "--id", "w", "--detach")
    process = subprocess.Popen(
        [sys.executable, "-m", "stepwell.cli", "worker", "app.py", *options],
        cwd=cli.folder, env=cli.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while "waiting" not in cli("ls").stdout:
        assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert "nothing is wrong" in cli("doctor").stdout


def test_dry_runs_and_looking_write_nothing(cli: Cli) -> None:
    assert "would start run x of app:handler" in cli("run", "app.py:handler", "--id", "x", "--dry-run").stdout
    assert cli("ls", "--json").stdout == "[]\n"
    assert "would take away 0 runs" in cli("gc", "--older-than", "1d", "--dry-run").stdout
    cli("show", "x", code=2)
    assert not list(cli.folder.glob("store.db*"))
    cli("run", "app.py:handler", "--id", "x")
    before = cli("export", "x").stdout
    assert "print the end of run x" in cli("run", "app.py:handler", "--id", "x", "--dry-run").stdout
    cli("run", "app.py:handler", "--input", "[1]", "--id", "x", "--dry-run", code=2)
    would = json.loads(cli("resume", "x", "--dry-run", "--json").stdout)
    assert (would["dry_run"], would["id"], would["status"]) == (True, "x", "succeeded")
    assert cli("export", "x").stdout == before


def test_export_is_whole_or_not_there(cli: Cli) -> None:
    cli("run", "app.py:handler", "--id", "x")
    cli("export", "x", "-o", "x.json")
    document = json.loads((cli.folder / "x.json").read_text())
    assert document["format"] == "stepwell"
    assert document["row"]["id"] == "x"
    assert document["records"][0]["record"] == "RunStarted"
    assert [note["kind"] for note in document["notes"]] == ["log"]
    assert "-o gone/x.json: No such file" in cli("export", "x", "-o", "gone/x.json", code=2).stderr
    assert not list(cli.folder.glob("*.part"))


def test_export_as_an_aws_history(cli: Cli) -> None:
    cli("run", "app.py:handler", "--id", "x")
    events = json.loads(cli("export", "x", "--format", "aws").stdout)["Events"]
    assert [event["EventId"] for event in events] == list(range(1, len(events) + 1))
    assert [events[0]["EventType"], events[-1]["EventType"]] == ["ExecutionStarted", "ExecutionSucceeded"]
    assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}(\.[0-9]+)?Z", events[0]["EventTimestamp"])
    cli("export", "x", "--format", "aws", "-o", "x.json")
    assert json.loads((cli.folder / "x.json").read_text()) == {"Events": events}


def test_drain_leaves_alone_what_the_worker_cannot_drive(cli: Cli) -> None:
    cli("run", "app.py:handler", "--detach", "--id", "other", "--queue", "elsewhere")
    cli("worker", "app.py", "--drain")
    assert "pending" in cli("ls").stdout


def test_show_names_what_changed_code_does_not_ask_for_any_more(cli: Cli) -> None:
    cli("run", "app.py:handler", "--input", '{"wait": 0.001}', "--id", "u", "--no-wait", code=5)
    (cli.folder / "app.py").write_text(APP.replace('charge(event.get("amount", 1))', 'lambda: "free", name="price"'))
    assert cli("resume", "u").stdout == '"free"\n'
    shown = cli("show", "u").stdout
    assert "  charge  (step)  succeeded  unused\n" in shown
    assert "  price  (step)  succeeded\n" in shown
    tree = json.loads(cli("show", "u", "--json").stdout)["tree"]
    assert {node["key"]: node["unused"] for node in tree} == {"charge": True, "wait": False, "price": False}


def test_a_cancelled_run_whose_code_is_gone_waits_for_a_worker_that_knows_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "gone.py").write_text(
        "from stepwell import durable_execution\n"
        "@durable_execution(name='moved')\n"
        "def handler(event, context):\n"
        "    context.step(lambda: open('ledger', 'a').write('done;'), name='s',\n"
        "                 undo=lambda c, r: open('ledger', 'a').write('undone;'))\n"
        "    context.wait(9000)\n"
    )
    cli("run", "gone.py:handler", "--id", "g", "--no-wait", code=5)
    (tmp_path / "gone.py").rename(tmp_path / "here.py")
    assert "waits for a worker that knows moved" in cli("cancel", "g", code=5).stderr
    shown = json.loads(cli("show", "g", "--json").stdout)
    assert (shown["status"], shown["reason"]) == ("rolling_back", "waiting for a worker that knows moved")
    cli("worker", "here.py", "--drain")
    assert json.loads(cli("show", "g", "--json").stdout)["status"] == "cancelled"
    assert (tmp_path / "ledger").read_text() == "done;undone;"
