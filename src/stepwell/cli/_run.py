"""Commands that drive a run: run, resume, retry, cancel."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from stepwell.cli._errors import PARKED, say
from stepwell.cli._live_bar import is_drawn, live_bar
from stepwell.cli._open import opened
from stepwell.cli._output import print_json, print_pieces, stdout_apart
from stepwell.cli._targets import register_app, target_function
from stepwell.client import Parked, exit_code, run_json, run_object
from stepwell.client._ids import checked_id, new_id
from stepwell.client._none import NONE
from stepwell.client._outcome import state_of
from stepwell.client._retry import ENDED, SCRIPT_QUEUE, choice_of, undecided, undone
from stepwell.errors import BadArguments, NonDeterminismError, RunError, UsageError
from stepwell.runtime._hooks import of_door

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from stepwell.client import Engine
    from stepwell.durable._function import DurableFunction
    from stepwell.journal import RunRow

UNSUCCESSFUL = frozenset({"failed", "cancelled", "timed_out"})


def start(target: str, options: dict[str, Any]) -> int:
    """``stepwell run``."""
    given = NONE if options["text"] is None else read_input(options["text"])
    run_id = checked_id(options["run_id"]) if options["run_id"] else new_id()
    hold = 0 if options["no_wait"] else options["hold"]
    with stdout_apart(apart=options["as_json"]):
        function = target_function(target)
    if options["no_rollback"]:
        if function.door != "pipeline":
            message = f"--no-rollback is for pipelines; {target} is none"
            raise BadArguments(message)
        cast("Any", function).rolls_back = False
    with opened(options["store"], write=not options["dry_run"], makes=True, hold=hold) as engine:
        if options["dry_run"]:
            return _dry_start(engine, function, given, run_id, options)
        if options["detach"]:
            handle = engine.enqueue(function, given, id=run_id, queue=options["queue"])
            if options["as_json"]:
                print_json(run_object(engine.store, engine.find(run_id)))
            else:
                click.echo(handle.id)
            return 0

        def go() -> Any:
            known, _, life = engine._begin(function, given, run_id, (), options["queue"])
            return engine.drive.until_end(known, run_id, life, wait=not options["no_wait"])

        return driven(engine, run_id, go, as_json=options["as_json"])


def _dry_start(
    engine: Engine, function: DurableFunction, given: Any, run_id: str, options: dict[str, Any]
) -> int:  # fmt: skip
    text = engine._encode(function, {} if given is NONE else given)
    row = engine.store.run_get(run_id)
    if row is None:
        verb = "put on record" if options["detach"] else "start"
        return _would(options, verb, run_id if options["run_id"] else None, function.name)
    engine._known(function, row, None if given is NONE else text)
    status = engine.get_run(run_id).status
    verb = "print the end of" if status in ENDED else "go on with"
    return _would(options, verb, run_id, function.name, status)


def _would(options: dict[str, Any], verb: str, run_id: str | None, name: str, status: str | None = None) -> int:
    """What a command without ``--dry-run`` would do."""
    if options.get("as_json"):
        print_json({"dry_run": True, "would": verb, "id": run_id, "name": name, "status": status})
    else:
        known = f"run {run_id}" if run_id else "a run"
        click.echo(f"would {verb} {known} of {name}" + (f" ({status})" if status else ""))
    return 0


def read_input(text: str, place: str = "--input") -> Any:
    """JSON from the argument, a file, or stdin. Raises `BadArguments` that names line and column."""
    option = place
    try:
        if text == "-":
            place, text = "stdin", sys.stdin.read()
        elif text.startswith("@"):
            place = text[1:]
            text = Path(place).read_text("utf-8")
    except OSError as error:
        message = f"{option}: {place or '@'}: {error.strerror or error}"
        raise BadArguments(message) from error
    except ValueError as error:
        message = f"{option}: {place or '@'}: {error}"
        raise BadArguments(message) from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        message = f"{place}:{error.lineno}:{error.colno}: no JSON: {error.msg}"
        quoted = """quote it for the shell, as in '{"day": "2013-01-01"}'; a text needs quotes of its own: '"monday"'"""
        raise BadArguments(message, hint=quoted if place == option else None) from error
    except RecursionError as error:
        message = f"{place}: no JSON that can be read: it is nested too deeply"
        raise BadArguments(message) from error


def resume(run_id: str, app: str | None, options: dict[str, Any]) -> int:
    """``stepwell resume``."""
    with opened(options["store"], write=not options["dry_run"]) as engine:
        row = engine.find(run_id)
        with stdout_apart(apart=options["as_json"]):
            _know(engine, row, app)
        handle = engine.get_run(row.id)
        if options["dry_run"]:
            status = handle.status
            return _would(
                options, "print the end of" if status in ENDED else "go on with", row.id, row.function, status
            )

        def go() -> Any:
            return handle.resume(no_wait_parked=options["no_wait"])

        return driven(engine, row.id, go, as_json=options["as_json"])


def _know(engine: Engine, row: RunRow, app: str | None) -> None:
    engine.get_run(row.id)._refuse_script(row)
    if app is not None:
        register_app(engine, app)
    elif row.status not in ENDED:
        _load(engine, row)


def _load(engine: Engine, row: RunRow) -> None:
    """Make the run's function known, where it can be found."""
    if row.target and engine.functions.get(row.function) is None:
        engine.register(target_function(row.target), row.function)


def retry(run_id: str, options: dict[str, Any]) -> int:
    """``stepwell retry``."""
    values: dict[str, Any] = {}
    for text in options["values"]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            message = f"--set {text}: write STEP=JSON"
            raise BadArguments(message)
        values[name] = read_input(value, f"--set {name}")
    force, skip = options["force"], options["skip"]
    with opened(options["store"], write=not options["dry_run"]) as engine:
        row = engine.find(run_id)
        handle = engine.get_run(row.id)
        run = handle._run
        if row.door == "pipeline" and row.queue != SCRIPT_QUEUE and row.status in UNSUCCESSFUL and undone(run):
            return _start_over(engine, row, options, named=bool(force or skip or values))
        if options["dry_run"]:
            choice = choice_of(engine.store, row, run, force, skip, values)
            named = {*choice.force, *choice.again} - {*choice.skip, *choice.values}
            again = sorted({op.key for op in run.ops.values() if op.status == "failed" or {op.key, op.name} & named})
            again = [key for key in again if key not in choice.skip]
            return _would(options, f"run {', '.join(again)} again in" if again else "take up", row.id, row.function)
        if row.queue == SCRIPT_QUEUE:
            handle.retry(force, skip, values)
            message, hint = of_door(row.door, "refusal")(engine.store, engine.find(row.id))
            say(f"run {row.id} is open again: {message}", hint)
            return PARKED

        with stdout_apart(apart=options["as_json"]):
            _load(engine, row)
        return driven(engine, row.id, lambda: handle.retry(force, skip, values), as_json=options["as_json"])


def _start_over(engine: Engine, row: RunRow, options: dict[str, Any], *, named: bool) -> int:
    """A pipeline that was rolled back is done anew, as a run of its own."""
    if named:
        message = f"run {row.id} was rolled back: a retry starts a new run, which has nothing to force, skip or set yet"
        raise UsageError(message, hint=f"stepwell run {row.target}, then stepwell skip or stepwell force")
    if options["dry_run"]:
        return _would(options, "start again, as a new run, what was", row.id, row.function)
    _load(engine, row)
    known, run_id, life = engine.get_run(row.id)._start_over()
    say(f"run {row.id} was rolled back; its work is done anew by run {run_id}")
    return driven(engine, run_id, lambda: engine.drive.until_end(known, run_id, life), as_json=options["as_json"])


def fork(run_id: str, options: dict[str, Any]) -> int:
    """``stepwell fork``: prints the new run's id."""
    from stepwell.client._fork import plan, put

    with stdout_apart(apart=options["as_json"]):
        to = None if options["to"] is None else target_function(options["to"])
    with opened(options["store"], write=not options["dry_run"]) as engine:
        row = engine.find(run_id)
        handle = engine.get_run(row.id)
        with stdout_apart(apart=options["as_json"]):
            made = plan(engine, row, handle._run, to=to, at=options["at"], run_id=options["new_id"])
        if options["dry_run"]:
            known = made.new.id if options["new_id"] else None
            if options["as_json"]:
                would = {"dry_run": True, "would": "fork", "source": row.id, "id": known, "name": made.new.function}
                print_json({**would, "at": made.at, "operations": made.finished})
            else:
                place = f", up to {made.at}" if made.at else ""
                what = f"run {known}" if known else "a run"
                name = made.new.function
                click.echo(f"would fork {row.id} as {what} of {name}; operations taken over: {made.finished}{place}")
            return 0
        put(engine, made)
        if options["as_json"]:
            print_json(run_object(engine.store, engine.find(made.new.id)))
        else:
            click.echo(made.new.id)
            say(f"operations taken over: {made.finished}; go on with: stepwell resume {made.new.id}")
    return 0


def decide(run_id: str, step: str, verb: str, options: dict[str, Any]) -> int:
    """``stepwell skip`` and ``stepwell force``."""
    with opened(options["store"], write=not options["dry_run"]) as engine:
        row = engine.find(run_id)
        handle = engine.get_run(row.id)
        key = undecided(engine.store, row, handle._run, step, verb)
        if options["dry_run"]:
            return _would(options, f"{verb} {key} in", row.id, row.function, handle.status)
        (handle.skip if verb == "skip" else handle.force)(key)
        if options["as_json"]:
            print_json({"run": row.id, "step": key, "decided": verb})
        else:
            click.echo(f"step {step} of run {row.id} will be {'skipped' if verb == 'skip' else 'executed'}")
        return 0


def cancel(run_id: str, options: dict[str, Any]) -> int:
    """``stepwell cancel``: with no holder, the undos run here if the function can be found."""
    with opened(options["store"], write=not options["dry_run"]) as engine:
        row = engine.find(run_id)
        handle = engine.get_run(row.id)
        if options["dry_run"]:
            if row.status in ENDED:
                message = f"run {row.id} has ended: {row.status}"
                raise UsageError(message)
            return _would(options, "cancel", row.id, row.function, handle.status)
        handle.cancel(options["reason"])
        if handle.status == "running":
            say(f"run {row.id} was asked to end", f"stepwell wait {row.id}")
            return 0
        if row.queue == SCRIPT_QUEUE:
            say(f"run {row.id} will be undone when its script is run again with the same run_id")
            return PARKED
        if engine.function_for(row) is None:
            engine.drive.leave_to_undo(row)
            say(f"run {row.id} waits for a worker that knows {row.function}", "stepwell worker app.py")
            return PARKED
        with _stoppable(engine, row.id) as end:
            with contextlib.suppress(RunError):
                handle.resume()
            status = handle.status
            say(f"run {row.id} is {status}", None if status == "cancelled" else f"stepwell show {row.id}")
            end.append(0 if status == "cancelled" else 1)
        return end[0]


@contextlib.contextmanager
def _stoppable(engine: Engine, run_id: str) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM hand the lease back; what is yielded begins with the exit code then."""

    def stop(_signum: int, _frame: object) -> None:
        raise SystemExit(143)

    codes: list[int] = []
    on_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, stop) if on_main else None
    try:
        yield codes
    except RunError:
        raise  # a run whose handler raised SystemExit is a failed run
    except (KeyboardInterrupt, SystemExit) as error:
        codes.insert(0, 130 if isinstance(error, KeyboardInterrupt) else 143)
        engine.stop()
        say(f"interrupted; continue with: stepwell resume {run_id}")
    finally:
        if on_main:
            signal.signal(signal.SIGTERM, before)


def _say_rollback(engine: Engine, row: RunRow) -> None:
    """What was undone of a pipeline that failed."""
    if row.door == "pipeline":
        for undone in run_object(engine.store, row, tree=False)["rollback"]:
            say(f"rollback of {undone['step']}: {undone['error'] or undone['status']}")


@contextlib.contextmanager
def _step_lines(*, as_json: bool) -> Iterator[None]:
    """A line on stderr for each step of a pipeline that ends, where no bars are drawn."""
    interpreter = sys.modules.get("stepwell.pipeline._interpreter")
    if interpreter is None or as_json or is_drawn():
        yield
        return

    def tell(name: str, how: str, percent: int) -> None:
        click.echo(f"{percent:3d} %  {name}  {how}", err=True)

    interpreter.LISTENERS.append(tell)
    try:
        yield
    finally:
        interpreter.LISTENERS.remove(tell)


def driven(engine: Engine, run_id: str, go: Callable[[], Any], *, as_json: bool) -> int:
    """Drive a run to its end and print its result."""
    value: list[Any] = []
    failed: RunError | NonDeterminismError | None = None
    with _stoppable(engine, run_id) as codes:
        try:
            with (
                stdout_apart(apart=as_json),
                live_bar(engine, run_id, wanted=not as_json),
                _step_lines(as_json=as_json),
            ):
                value.append(go())
        except Parked:
            say(f"run {run_id} waits; it goes on with: stepwell resume {run_id}")
            codes.append(PARKED)
        except (RunError, NonDeterminismError) as error:
            failed = error
    if codes and codes[0] != PARKED:
        return codes[0]
    if as_json:
        print_pieces(run_json(engine.store, engine.find(run_id), lines=False))
    elif value:
        from stepwell import serde

        click.echo(serde.encode(value[0]))
    if failed is not None:
        row = engine.find(run_id)
        failed.exit_code = exit_code(row)
        again = {"failed": "retry", "timed_out": "retry", "blocked": "resume"}.get(row.status)
        if again == "retry" and row.door != "pipeline" and undone(state_of(engine.store, row)):
            again = None  # what it had done is undone: there is nothing to go on with
        _say_rollback(engine, row)
        steps = [f"stepwell show {run_id}", f"stepwell {again} {run_id}"] if again else [f"stepwell show {run_id}"]
        failed.hint = "\n  ".join(steps)
        raise failed
    return codes[0] if codes else 0
