"""``stepwell``: run, look at, and put right."""

from __future__ import annotations

from typing import Any

import click

from stepwell.cli._errors import GuardedGroup

STATUSES = (
    "pending", "running", "waiting", "interrupted", "blocked", "rolling_back",
    "succeeded", "failed", "cancelled", "timed_out", "continued",
)  # fmt: skip


def _store(command: Any) -> Any:
    return click.option("--store", metavar="URL", help="sqlite:///file.db or postgresql://…; default STEPWELL_STORE.")(
        click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")(command)
    )


def _json(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout, for programs.")(command)


def _dry(command: Any) -> Any:
    return click.option("--dry-run", is_flag=True, help="Say what would happen; write nothing.")(command)


@click.group(cls=GuardedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stepwell")
def stepwell() -> None:
    """Steps that never run twice.

    \b
    Example:
      stepwell run app.py:handler --input '{"day": "2013-01-01"}' --id day-1
      stepwell show day-1
    """


@stepwell.command()
@click.argument("target", metavar="FILE.py:FUNCTION")
@click.option("--input", "text", metavar="JSON|@FILE|-", help="The event; default {}.")
@click.option("--id", "run_id", help="Id of the run; the same id never runs twice.")
@click.option("--no-wait", is_flag=True, help="End with exit code 5 where the run would wait.")
@click.option("--detach", is_flag=True, help="Put it on record for a worker, print its id, end.")
@click.option("--hold", type=click.FloatRange(min=0), metavar="S", help="Seconds to keep a waiting run's frames.")
@click.option("--queue", help="Which workers may take it up.")
@click.option("--no-rollback", is_flag=True, help="A pipeline that fails or is cancelled keeps what it has done.")
@_json
@_dry
@_store
def run(target: str, **options: Any) -> int:
    """Start a run, or take up the one with this id, and print its result as JSON.

    \b
    Example:
      stepwell run app.py:handler --input '{"amount": 10}' --id order-1
    """
    from stepwell.cli._run import start

    return start(target, options)


@stepwell.command()
@click.argument("target", metavar="FILE.py:FUNCTION")
@click.option("--input", "text", metavar="JSON|@FILE|-", help="The builder's arguments; default {}.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
@_json
def plan(target: str, text: str | None, as_json: bool) -> int:
    """List the steps of a pipeline and their weights; run nothing.

    \b
    Example:
      stepwell plan app.py:build --input '{"folder": "photos"}'
    """
    from stepwell.cli._plan import plan as show_plan

    return show_plan(target, text, as_json=as_json)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.argument("app", required=False, metavar="[FILE.py]")
@click.option("--no-wait", is_flag=True, help="End with exit code 5 where the run would wait.")
@_json
@_dry
@_store
def resume(run_id: str, app: str | None, **options: Any) -> int:
    """Go on with a run that was interrupted or is blocked.

    \b
    Example:
      stepwell resume order-1
    """
    from stepwell.cli._run import resume as go_on

    return go_on(run_id, app, options)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.option("--force", multiple=True, metavar="STEP", help="Run this finished step again.")
@click.option(
    "--skip", multiple=True, metavar="STEP", help="Take this step as finished with null; in a pipeline, as skipped."
)
@click.option("--set", "values", multiple=True, metavar="STEP=JSON", help="Take this step as finished with a value.")
@_json
@_dry
@_store
def retry(run_id: str, **options: Any) -> int:
    """Give the failed operations of a run new attempts; finished ones stay. A pipeline that was rolled back is done
    anew, by a new run.

    \b
    Example:
      stepwell retry order-1 --skip notify
    """
    from stepwell.cli._run import retry as again

    return again(run_id, options)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.argument("step", metavar="STEP")
@_json
@_dry
@_store
def skip(run_id: str, step: str, **options: Any) -> int:
    """Let a step of a pipeline that has not begun end as skipped.

    \b
    Example:
      stepwell skip photos report
    """
    from stepwell.cli._run import decide

    return decide(run_id, step, "skip", options)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.argument("step", metavar="STEP")
@_json
@_dry
@_store
def force(run_id: str, step: str, **options: Any) -> int:
    """Let a step of a pipeline that has not begun be executed, also if it would skip itself.

    \b
    Example:
      stepwell force photos report
    """
    from stepwell.cli._run import decide

    return decide(run_id, step, "force", options)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.option("--reason", help="Why; shown with the run.")
@_dry
@_store
def cancel(run_id: str, **options: Any) -> int:
    """End a run early; what it has done and can be undone is undone.

    \b
    Example:
      stepwell cancel order-1 --reason 'customer called'
    """
    from stepwell.cli._run import cancel as end

    return end(run_id, options)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.argument("name", metavar="NAME")
@click.argument("text", metavar="[JSON]", required=False)
@click.option("--key", metavar="KEY", help="Send it once: a second signal with this key is dropped.")
@_json
@_dry
@_store
def signal(run_id: str, name: str, text: str | None, **options: Any) -> int:
    """Send a run a signal; it waits under its name until the run takes it.

    \b
    Example:
      stepwell signal order-1 paid '{"amount": 10}'
    """
    from stepwell.cli._answer import signal as send

    return send(run_id, name, text, options)


@stepwell.command()
@click.argument("callback_id", metavar="ID")
@click.option("--success", metavar="TEXT", help="The answer, as it is; may be empty.")
@click.option("--failure", metavar="MSG", help="It failed, with this text.")
@click.option("--type", "error_type", metavar="T", help="Type of the failure.")
@click.option("--heartbeat", is_flag=True, help="It is still being worked on.")
@_json
@_dry
@_store
def callback(callback_id: str, **options: Any) -> int:
    """Answer a callback; `stepwell show RUN` prints the ids that wait.

    \b
    Example:
      stepwell callback WyJvcmRlci0xIl0.8kq2rJ5cW1uT --success '{"ok": true}'
    """
    from stepwell.cli._answer import callback as answer

    return answer(callback_id, options)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.argument("name", metavar="[NAME]", required=False)
@click.option("--json", "value", metavar="JSON|@FILE|-", help="Fill in the form; default true.")
@click.option("--reject", metavar="REASON", help="Say no.")
@_dry
@_store
def approve(run_id: str, name: str | None, **options: Any) -> int:
    """Answer an approval that a run waits for.

    \b
    Example:
      stepwell approve order-1 refund --json '{"amount": 10}'
    """
    from stepwell.cli._answer import approve as answer

    return answer(run_id, name, options)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.option("--to", metavar="FILE.py:FUNCTION", help="Run this function; default the run's own.")
@click.option("--at", "--from", "at", metavar="STEP", help="Take over only what was begun before this operation.")
@click.option("--id", "new_id", help="Id of the new run.")
@_json
@_dry
@_store
def fork(run_id: str, **options: Any) -> int:
    """Put a new run on record that begins with what this one has finished.

    \b
    Example:
      stepwell fork order-1 --at charge --id order-1b
      stepwell resume order-1b
    """
    from stepwell.cli._run import fork as split

    return split(run_id, options)


@stepwell.command("ls")
@click.option("--status", type=click.Choice(STATUSES), metavar="STATUS", help="Only runs with this status.")
@click.option("--name", help="Only runs of this function.")
@click.option("--door", metavar="DOOR", help="Only runs of durable functions (durable), flows (flow), ….")
@click.option("--tag", metavar="TAG", help="Only runs with this tag.")
@click.option("--text", metavar="TEXT", help="Only runs with this in their id, function or reason.")
@click.option("--since", metavar="WHEN", help="Created then or later: 2h, 3d, or 2013-01-01T12:00 (UTC).")
@click.option("--until", metavar="WHEN", help="Created before then.")
@click.option("--limit", default=50, type=click.IntRange(min=1), show_default=True)
@_json
@_store
def list_runs(**options: Any) -> int:
    """List runs, newest first.

    \b
    Example:
      stepwell ls --status failed --since 2d
    """
    from stepwell.cli._look import ls

    return ls(options)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@_json
@_store
def show(run_id: str, as_json: bool, store: str | None) -> int:
    """Show a run: status, progress, each operation with its attempts.

    \b
    Example:
      stepwell show order-1
    """
    from stepwell.cli._look import show as look

    return look(run_id, as_json=as_json, store=store)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@_json
@_store
def trace(run_id: str, as_json: bool, store: str | None) -> int:
    """Show the time line of a run: its records and lives.

    \b
    Example:
      stepwell trace order-1
    """
    from stepwell.cli._look import trace as look

    return look(run_id, as_json=as_json, store=store)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.option("--step", metavar="KEY", help="Only lines of this step.")
@_json
@_store
def logs(run_id: str, step: str | None, as_json: bool, store: str | None) -> int:
    """Print what loggers said beside the steps of a run.

    \b
    Example:
      stepwell logs order-1 --step charge
    """
    from stepwell.cli._look import logs as look

    return look(run_id, step, as_json=as_json, store=store)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Longest time to wait.")
@_json
@_store
def wait(run_id: str, timeout: float | None, as_json: bool, store: str | None) -> int:
    """Wait until a run has ended; exit with its code.

    \b
    Example:
      stepwell wait order-1
    """
    from stepwell.cli._look import wait as stand

    return stand(run_id, timeout, as_json=as_json, store=store)


@stepwell.command()
@click.argument("apps", nargs=-1, metavar="[FILE.py|MODULE]...")
@click.option(
    "--concurrency",
    default=64,
    type=click.IntRange(min=1),
    show_default=True,
    help="Threads for sync runs and branches.",
)
@click.option("--queue", "queues", multiple=True, help="Serve this queue; may be repeated.")
@click.option("--drain", is_flag=True, help="End when nothing is open or due.")
@_store
def worker(apps: tuple[str, ...], concurrency: int, queues: tuple[str, ...], drain: bool, store: str | None) -> int:
    """Drive every due or interrupted run of these apps until told to stop.

    \b
    Example:
      stepwell worker app.py --queue default
    """
    from stepwell.cli._keep import worker as serve

    return serve(store, apps, concurrency, queues, drain=drain)


@stepwell.command()
@_json
@_store
def doctor(as_json: bool, store: str | None) -> int:
    """Check the store and every run in it against what Stepwell promises.

    Exit code 0: all is well; 1: something is wrong, or a run is stuck (blocked, or interrupted with no worker that
    would go on with it), with the command that helps; 7: the store cannot be used.

    \b
    Example:
      stepwell doctor
    """
    from stepwell.cli._keep import doctor as examine

    return examine(store, as_json=as_json)


@stepwell.command()
@click.option("--older-than", required=True, metavar="30d", help="Ended so long ago: s, m, h or d.")
@click.option(
    "--status", multiple=True, type=click.Choice(STATUSES[6:]), metavar="STATUS", help="Only runs that ended so."
)
@_json
@_dry
@_store
def gc(**options: Any) -> int:
    """Take away ended runs, then large values that nobody refers to.

    \b
    Example:
      stepwell gc --older-than 30d --dry-run
    """
    from stepwell.cli._keep import gc as collect

    return collect(options)


@stepwell.command()
@click.argument("app", metavar="FILE.py|MODULE")
@_json
@_store
def check(app: str, as_json: bool, store: str | None) -> int:
    """Say what an app's code, as it is now, means for each of its open runs; run nothing, write nothing.

    SAFE: all that is on record is used. CHANGED: operations were added, removed, moved or renamed. BROKEN: the run
    would be blocked; exit code 2.

    \b
    Example:
      stepwell check app.py
    """
    from stepwell.cli._check import check as rehearse

    return rehearse(app, as_json=as_json, store=store)


@stepwell.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--format",
    "form",
    type=click.Choice(["stepwell", "aws"]),
    default="stepwell",
    show_default=True,
    help="aws: events in the shape of AWS Lambda's durable executions.",
)
@click.option("-o", "file", type=click.Path(dir_okay=False), help="Write to this file.")
@_store
def export(run_id: str, form: str, file: str | None, store: str | None) -> int:
    """Write a run with all its records, or its history as events, as one JSON document.

    \b
    Example:
      stepwell export order-1 -o order-1.json
      stepwell export order-1 --format aws
    """
    from stepwell.cli._look import export as write

    return write(run_id, form, file, store)


@stepwell.command()
@click.argument("target", metavar="FILE.py:FUNCTION")
@click.option("--seeds", "count", default=200, type=click.IntRange(min=1), show_default=True, help="How many to play.")
@click.option("--seed", "seeds", multiple=True, type=click.IntRange(min=0), help="Play this one; may be repeated.")
@click.option("--input", "text", metavar="JSON|@FILE|-", help="The event; default {}.")
@click.option(
    "--crash", default=0.15, type=click.FloatRange(0, 1), show_default=True, help="Likelihood of a disaster an append."
)
@click.option("--no-compare", is_flag=True, help="Results may differ from seed to seed.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")
def simulate(target: str, **options: Any) -> int:
    """Run a function through seeded crashes, in memory and in virtual time; exit 1 if it breaks a promise.

    \b
    Example:
      stepwell simulate app.py:handler --seeds 1000 --input '{"amount": 10}'
    """
    from stepwell.cli._simulate import simulate as play

    return play(target, options)
