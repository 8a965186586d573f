"""Commands that drive a run: run, resume, retry, cancel."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from stepwell.cli._errors import PARKED, tell
from stepwell.client import Parked, exit_code, load_target, run_object
from stepwell.client._ids import checked_id, new_id
from stepwell.errors import BadArguments, RunError, StepwellError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.client import Engine

MISSING = object()


def start(engine: Engine, target: str, options: dict[str, Any]) -> int:
    """``stepwell run``."""
    function = load_target(target)
    given = {} if options["text"] is None else {"input": read_input(options["text"])}
    run_id = checked_id(options["run_id"]) if options["run_id"] else new_id()
    if options["dry_run"]:
        known = engine.store.run_get(run_id)
        what = "start" if known is None else f"attach to ({known.status})"
        click.echo(f"would {what} run {run_id} of {function.name}", err=True)
        engine.stop()
        return 0
    if options["detach"]:
        handle = engine.enqueue(function, id=run_id, queue=options["queue"], **given)
        click.echo(handle.id)
        engine.stop()
        return 0

    def go() -> Any:
        known, _, life = engine._begin(function, given.get("input", _none()), run_id, (), options["queue"])
        return engine.drive.until_end(known, run_id, life, wait=not options["no_wait"])

    return driven(engine, run_id, go, as_json=options["as_json"])


def _none() -> Any:
    from stepwell.client._none import NONE

    return NONE


def read_input(text: str) -> Any:
    """JSON from the argument, a file, or stdin. Raises `BadArguments` that names line and column."""
    place = "--input"
    if text == "-":
        place, text = "stdin", sys.stdin.read()
    elif text.startswith("@"):
        place = text[1:]
        try:
            text = Path(place).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            message = f"--input @{place}: {error}"
            raise BadArguments(message) from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = f"{place}:{error.lineno}:{error.colno}: no JSON: {error.msg}"
        raise BadArguments(message, hint="""quote it for the shell: --input '{"day": "2013-01-01"}'""") from error


def resume(engine: Engine, run_id: str, app: str | None, options: dict[str, Any]) -> int:
    """``stepwell resume``."""
    row = engine.find(run_id)
    if app is not None:
        from stepwell.cli._keep import register_app

        register_app(engine, app)
    if options["dry_run"]:
        click.echo(f"would take up run {row.id} of {row.function} ({engine.get_run(row.id).status})", err=True)
        engine.stop()
        return 0
    return driven(engine, row.id, lambda: engine.get_run(row.id).resume(), as_json=options["as_json"])


def retry(engine: Engine, run_id: str, options: dict[str, Any]) -> int:
    """``stepwell retry``."""
    row = engine.find(run_id)
    values: dict[str, Any] = {}
    for text in options["values"]:
        name, equals, value = text.partition("=")
        if not equals:
            message = f"--set {text}: write STEP=JSON"
            raise BadArguments(message)
        values[name] = read_input(value)
    if options["dry_run"]:
        click.echo(f"would give the failed operations of run {row.id} new attempts", err=True)
        engine.stop()
        return 0

    def go() -> Any:
        return engine.get_run(row.id).retry(options["force"], options["skip"], values)

    return driven(engine, row.id, go, as_json=options["as_json"])


def cancel(engine: Engine, run_id: str, reason: str | None, *, dry_run: bool) -> int:
    """``stepwell cancel``: with no holder, the undos run here if the function can be found."""
    row = engine.find(run_id)
    handle = engine.get_run(row.id)
    if dry_run:
        click.echo(f"would cancel run {row.id} of {row.function} ({handle.status})", err=True)
        engine.stop()
        return 0
    handle.cancel(reason)
    if handle.status == "running":
        click.echo(f"run {row.id} was asked to end; `stepwell wait {row.id}` tells when it has", err=True)
        engine.stop()
        return 0
    if engine.function_for(row) is None:
        click.echo(f"run {row.id} is waiting for a worker that knows {row.function}", err=True)
        engine.stop()
        return PARKED
    with contextlib.suppress(RunError):
        handle.resume()
    status = handle.status
    click.echo(f"run {row.id} is {status}", err=True)
    engine.stop()
    return 0 if status == "cancelled" else 1


@contextlib.contextmanager
def prints_to_stderr(on: bool) -> Iterator[None]:
    """With --json, stdout carries the run object alone."""
    if not on:
        yield
        return
    with contextlib.redirect_stdout(sys.stderr):
        yield


def driven(engine: Engine, run_id: str, go: Callable[[], Any], *, as_json: bool) -> int:
    """Drive a run to its end and print its result; Ctrl-C and SIGTERM hand the lease back."""

    def stop(_signum: int, _frame: object) -> None:
        raise SystemExit(143)

    signal.signal(signal.SIGTERM, stop)
    code, value = 0, MISSING
    try:
        with prints_to_stderr(as_json):
            value = go()
    except Parked:
        code = PARKED
        click.echo(f"run {run_id} waits; it goes on with: stepwell resume {run_id}", err=True)
    except (KeyboardInterrupt, SystemExit) as error:
        code = 130 if isinstance(error, KeyboardInterrupt) else int(error.code or 0)
        engine.stop()
        click.echo(f"interrupted; continue with: stepwell resume {run_id}", err=True)
        return code
    except RunError as error:
        row = engine.find(run_id)
        code = exit_code(row)
        tell(error, debug=False)
        click.echo(f"  stepwell show {run_id}", err=True)
        if row.status == "failed":
            click.echo(f"  stepwell retry {run_id}", err=True)
    except StepwellError:
        engine.stop()
        raise
    if as_json:
        click.echo(msgspec.json.encode(run_object(engine.store, engine.find(run_id))).decode())
    elif value is not MISSING:
        from stepwell import serde

        click.echo(serde.encode(value))
    engine.stop()
    return code
