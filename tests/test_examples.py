"""The examples, on a year of five flights: what the handler loads, and how the driver reads journal and ledger."""

from __future__ import annotations

import sqlite3
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from examples import drive_flights as driver
from examples import flights
from stepwell import Engine
from stepwell.core import AnyRecord, LifeLost, LifeStarted, StepStarted, StepSucceeded, decode_records

FLIGHTS_HEADING = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,"
    "tailnum,origin,dest,air_time,distance,hour,minute,time_hour"
)
FLIGHTS = [
    "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z",
    "2013,1,1,NA,515,NA,NA,819,NA,UA,1546,NA,EWR,IAH,NA,1400,5,15,2013-01-01T10:00:00Z",
    "2013,10,1,525,515,10,830,819,11,9E,7,N14228,JFK,IAH,227,1400,5,15,2013-10-01T09:00:00Z",
    "2013,12,1,510,515,-5,830,819,11,9E,8,N14228,JFK,IAH,227,1400,5,15,2013-12-01T10:00:00Z",
    "2013,12,2,510,515,-3,830,819,11,9E,8,N14228,JFK,IAH,227,1400,5,15,2013-12-02T10:00:00Z",
]
WEATHER_HEADING = (
    "origin,year,month,day,hour,temp,dewp,humid,wind_dir,wind_speed,wind_gust,precip,pressure,visib,time_hour"
)
WEATHER = [
    "EWR,2013,1,1,5,39.02,26.06,59.37,270,10.5,NA,0.1,1012,10,2013-01-01T10:00:00Z",
    "JFK,2013,12,1,5,39.02,26.06,59.37,270,NA,NA,NA,1012,10,2013-12-01T10:00:00Z",
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data of a year"
    folder.mkdir()
    (folder / "airports.csv").write_text('faa,name\n04G,Lansdowne\nJFK,"Kennedy, John F"\n', "utf-8")
    (folder / "planes.csv").write_text("tailnum,year\nN14228,1999\n", "utf-8")
    (folder / "weather.csv").write_text("\n".join([WEATHER_HEADING, *WEATHER]) + "\n", "utf-8")
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as archive:
        archive.writestr("flights.csv", "\n".join([FLIGHTS_HEADING, *FLIGHTS]) + "\n")
    return folder


def records_of(engine: Engine, run_id: str) -> list[AnyRecord]:
    row = engine.store.run_get(run_id)
    assert row is not None
    return [record for entry in engine.store.record_load(row.rid) for record in decode_records(entry.data)]


def test_the_year_is_loaded_and_reported_as_the_driver_computes_it(data: Path, tmp_path: Path) -> None:
    warehouse, report, ledger = tmp_path / "w.db", tmp_path / "delays.csv", tmp_path / "ledger"
    event = {"data": str(data), "warehouse": f"sqlite:///{warehouse}", "report": str(report), "ledger": str(ledger)}
    with Engine(f"sqlite:///{tmp_path / 'journal.db'}") as engine:
        loaded = engine.run(flights.load_year, event, id="year")
        assert engine.run(flights.load_year, event, id="year") == loaded
        steps = driver.steps_of(records_of(engine, "year"))
    totals = driver.recompute(data)

    assert loaded == totals.rows == {"flights": 5, "weather": 2, "airports": 2, "planes": 1}
    assert driver.months_in(warehouse) == totals.months == {1: 2, 10: 1, 12: 2}
    assert totals.with_weather == 3
    assert list(driver.report_errors(report, totals)) == []
    with closing(sqlite3.connect(warehouse)) as connection:
        assert connection.execute("SELECT name FROM airports WHERE faa = 'JFK'").fetchall() == [("Kennedy, John F",)]
        assert connection.execute("SELECT count(*) FROM stepwell_once").fetchone() == (len(steps),)

    works = driver.ledger_of(ledger.read_text("utf-8").splitlines())
    assert driver.percent(steps) == 100.0
    assert driver.months(steps) == (12, 0)
    checks = {what: holds for holds, what in driver.checks_of_runs(steps, works, set(), kills=0)}
    assert checks.pop("0 steps had begun and not ended when the process died") is False
    assert all(checks.values()), checks


def test_a_wrong_report_is_seen(data: Path, tmp_path: Path) -> None:
    report = tmp_path / "delays.csv"
    report.write_text(
        "carrier,month,hour,flights,departed,late,with_weather,in_rain,wind_speed\n"
        "UA,1,5,2,1,3,2,2,10.5\n"  # one minute too late
        "9E,10,5,1,1,10,0,,4\n"  # no weather, and yet wind
        "AA,1,5,1,1,1,1,1,1\n",  # nobody flew it
        "utf-8",
    )
    assert list(driver.report_errors(report, driver.recompute(data))) == [
        "('UA', 1, 5): late is 3, not 2",
        "('9E', 10, 5): wind_speed is 4, not None",
        "('AA', 1, 5): not expected",
        "('9E', 12, 5): missing",
    ]


KEYS = [f"load_months[{n}]/load_month" for n in range(2)]


def killed_run() -> list[AnyRecord]:
    """One month loaded, one cut short and loaded again."""
    return [
        LifeStarted(10, 1, "w1", "start"),
        StepStarted(20, KEYS[0], 1, weight=7.0),
        StepStarted(21, KEYS[1], 1, weight=7.0),
        StepSucceeded(30, KEYS[0], "1"),
        LifeLost(50, 1, "w1", "dead"),
        LifeStarted(51, 2, "w2", "takeover"),
        StepSucceeded(70, KEYS[1], "1"),
    ]


LEDGER = [f"20 7 begin {KEYS[0]}", f"29 7 end {KEYS[0]}", f"31 7 begin {KEYS[1]}"]


def verdicts(records: Sequence[AnyRecord], lines: Sequence[str]) -> list[bool]:
    works = driver.ledger_of(lines)
    return [holds for holds, _ in driver.checks_of_runs(driver.steps_of(records), works, {KEYS[0]}, kills=1)]


def test_lives_lost_count_for_the_steps_that_were_open() -> None:
    assert driver.months(driver.steps_of(killed_run()[:4])) == (1, 1)
    steps = driver.steps_of(killed_run())
    assert [(step.attempts, step.successes, step.lives_lost) for step in steps.values()] == [(1, 1, 0), (1, 1, 1)]


def test_the_plug_is_pulled_half_way_into_a_load() -> None:
    steps = driver.steps_of([StepSucceeded(at, f"load_months[{at}]/load_month", "1") for at in (100, 200, 300)])
    assert not driver.deep_in_a_load(steps, 349)
    assert driver.deep_in_a_load(steps, 350)


def test_work_is_lost_where_a_body_ran_again() -> None:
    works = driver.ledger_of([*LEDGER, f"55 8 begin {KEYS[1]}", f"60 8 end {KEYS[1]}"])
    assert driver.lost_work(works, killed_at=45) == pytest.approx(14e-6)


@pytest.mark.parametrize(
    "more,wrong",
    [
        pytest.param([f"55 8 begin {KEYS[1]}", f"60 8 end {KEYS[1]}"], [], id="as it should be"),
        pytest.param([f"55 8 begin {KEYS[1]}"], [4], id="a success without an ended body"),
        pytest.param(
            [f"55 8 begin {KEYS[0]}", f"56 8 end {KEYS[0]}", f"57 8 begin {KEYS[1]}", f"60 8 end {KEYS[1]}"],
            [3],
            id="a body after its success",
        ),
        pytest.param(
            [f"3{n} 7 {what} {KEYS[1]}" for n in range(2, 5) for what in ("begin", "end")], [4], id="too many bodies"
        ),
        pytest.param(["55 8 begin x", f"56 8 begin {KEYS[1]}", f"60 8 end {KEYS[1]}"], [1], id="an unknown step"),
    ],
)
def test_the_ledger_is_held_against_the_journal(more: list[str], wrong: list[int]) -> None:
    found = verdicts(killed_run(), [*LEDGER, *more])
    assert [place for place, holds in enumerate(found) if not holds] == wrong
