"""``stepwell simulate``: seeds of disasters for the user's own function."""

from __future__ import annotations

import contextlib
import io
import shlex
from typing import Any

import click

from stepwell.cli._output import stdout_apart
from stepwell.cli._run import read_input
from stepwell.cli._targets import target_function


def simulate(target: str, options: dict[str, Any]) -> int:
    """Play the seeds; 1 if one of them breaks a promise."""
    event = {} if options["text"] is None else read_input(options["text"])
    with stdout_apart(apart=True):
        function = target_function(target)
    from stepwell.testing._simulate_handler import SimulationFailed
    from stepwell.testing._simulate_handler import simulate as play

    seeds = options["seeds"] or range(options["count"])
    # What the function prints it prints once a life, thousands of times; with seeds by name somebody looks for it.
    quiet = contextlib.nullcontext() if options["seeds"] else contextlib.redirect_stdout(io.StringIO())
    try:
        with quiet:
            done = play(function, event, seeds, crash=options["crash"], compare=not options["no_compare"])
    except SimulationFailed as failed:
        if not failed.violations:
            raise
        for seed, found in failed.violations.items():
            for text in found if options["seeds"] else found[:1]:
                click.echo(f"seed {seed}: {text}")
        click.echo(f"play it again: {_again(target, options, next(iter(failed.violations)))}")
        return 1
    click.echo(str(done))
    return 0


def _again(target: str, options: dict[str, Any], seed: int) -> str:
    words = ["stepwell", "simulate", target, "--seed", str(seed)]
    if options["text"] is not None:
        words += ["--input", options["text"]]
    if options["crash"] != 0.15:
        words += ["--crash", str(options["crash"])]
    return shlex.join([*words, *(["--no-compare"] if options["no_compare"] else [])])
