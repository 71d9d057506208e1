from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import groupby, pairwise
from typing import get_args
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner.core.errors import UsageError
from runner.core.exit_codes import Exit
from runner.core.models import OncePer
from runner.planning.periods import (
    build_run_key,
    describe_next_run,
    describe_run_key,
    describe_scope,
    label_run_key,
    load_timezone,
)

ONCE_PER_VALUES: tuple[OncePer, ...] = get_args(OncePer)
PERIODS: tuple[OncePer, ...] = ("hour", "day", "week", "month")
ZONES = (
    "UTC",
    "Europe/Berlin",
    "Europe/London",
    "America/New_York",
    "America/St_Johns",
    "America/Havana",  # clocks go back from 01:00 to midnight
    "Australia/Lord_Howe",  # clocks change by half an hour
    "Pacific/Chatham",  # clocks change at 02:45
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Beirut",  # clocks go back from midnight
    "Asia/Pyongyang",
    "Pacific/Apia",
    "Africa/Casablanca",
)

# From 2011-11-07 on, no clock has stepped back past midnight.
INSTANTS = st.datetimes(datetime(2011, 11, 7), datetime(2037, 12, 1), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis requires naive bounds


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def run_key_at(once_per: OncePer, timezone: str | None, text: str) -> str:
    return build_run_key(once_per, timezone, parse_time(text), "r-1")


@pytest.mark.parametrize(
    ("once_per", "timezone", "now", "expected"),
    [
        ("run", None, "2026-11-24T07:45:10Z", "run:r-1"),
        ("forever", None, "2026-11-24T07:45:10Z", "forever"),
        ("hour", None, "2026-11-24T07:45:10.999999Z", "hour:2026-11-24T07:00Z"),
        ("hour", None, "2026-11-24T07:00:00Z", "hour:2026-11-24T07:00Z"),
        ("hour", "Asia/Kolkata", "2026-11-24T07:45:10Z", "hour:2026-11-24T07:30Z"),
        ("hour", "Asia/Kathmandu", "2026-11-24T07:10:00Z", "hour:2026-11-24T06:15Z"),
        ("day", None, "2026-11-24T23:59:59.999999Z", "day:2026-11-24"),
        ("day", "Asia/Kolkata", "2026-11-24T18:29:59Z", "day:2026-11-24"),
        ("day", "Asia/Kolkata", "2026-11-24T18:30:00Z", "day:2026-11-25"),
        ("day", "Europe/Berlin", "2026-07-01T01:00:00+02:00", "day:2026-07-01"),
        ("day", "UTC", "2026-07-01T01:00:00+02:00", "day:2026-06-30"),
        ("week", None, "2026-11-24T07:45:10Z", "week:2026-W48"),
        ("month", None, "2026-11-24T07:45:10Z", "month:2026-11"),
        ("month", "Europe/Berlin", "2026-11-30T23:00:00Z", "month:2026-12"),
    ],
)
def test_run_key(once_per: OncePer, timezone: str | None, now: str, expected: str) -> None:
    assert run_key_at(once_per, timezone, now) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2024-12-29T12:00Z", "week:2024-W52"),
        ("2024-12-30T12:00Z", "week:2025-W01"),
        ("2025-12-29T12:00Z", "week:2026-W01"),
        ("2026-12-31T12:00Z", "week:2026-W53"),
        ("2027-01-03T12:00Z", "week:2026-W53"),
        ("2027-01-04T12:00Z", "week:2027-W01"),
    ],
)
def test_week_belongs_to_its_iso_year(now: str, expected: str) -> None:
    assert run_key_at("week", None, now) == expected


@pytest.mark.parametrize(
    ("timezone", "now", "expected"),
    [
        ("Europe/Berlin", "2026-10-25T02:30:00+02:00", "hour:2026-10-25T00:00Z"),
        ("Europe/Berlin", "2026-10-25T02:30:00+01:00", "hour:2026-10-25T01:00Z"),
        ("Europe/Berlin", "2026-03-29T03:10:00+02:00", "hour:2026-03-29T01:00Z"),
        ("America/New_York", "2026-11-01T01:59:59-04:00", "hour:2026-11-01T05:00Z"),
        ("America/New_York", "2026-11-01T01:00:00-05:00", "hour:2026-11-01T06:00Z"),
        ("Africa/Casablanca", "2026-02-15T02:59:00+01:00", "hour:2026-02-15T01:00Z"),
        ("Africa/Casablanca", "2026-02-15T02:59:00+00:00", "hour:2026-02-15T02:00Z"),
        # Lord Howe: 02:00 becomes 02:30 in October, and 02:00 becomes 01:30 in April.
        ("Australia/Lord_Howe", "2026-10-04T01:59:00+10:30", "hour:2026-10-03T14:30Z"),
        ("Australia/Lord_Howe", "2026-10-04T02:59:00+11:00", "hour:2026-10-03T15:30Z"),
        ("Australia/Lord_Howe", "2026-10-04T03:00:00+11:00", "hour:2026-10-03T16:00Z"),
        ("Australia/Lord_Howe", "2026-04-05T01:59:00+11:00", "hour:2026-04-04T14:00Z"),
        ("Australia/Lord_Howe", "2026-04-05T01:30:00+10:30", "hour:2026-04-04T15:00Z"),
        ("Australia/Lord_Howe", "2026-04-05T01:59:59+10:30", "hour:2026-04-04T15:00Z"),
        ("Australia/Lord_Howe", "2026-04-05T02:00:00+10:30", "hour:2026-04-04T15:30Z"),
        # Chatham: 02:45 becomes 03:45 in September, so the hours of 02 and 03 are both shortened.
        ("Pacific/Chatham", "2026-09-27T02:44:59+12:45", "hour:2026-09-26T13:15Z"),
        ("Pacific/Chatham", "2026-09-27T03:45:00+13:45", "hour:2026-09-26T14:00Z"),
        ("Pacific/Chatham", "2026-09-27T03:59:59+13:45", "hour:2026-09-26T14:00Z"),
    ],
)
def test_hour_is_identified_by_its_utc_start_when_clocks_change(timezone: str, now: str, expected: str) -> None:
    assert run_key_at("hour", timezone, now) == expected


def test_day_skipped_by_a_timezone_has_no_run_key() -> None:
    start = parse_time("2011-12-29T00:00Z")
    keys = [build_run_key("day", "Pacific/Apia", start + timedelta(hours=hour), "r-1") for hour in range(60)]
    assert [name for name, _ in groupby(keys)] == [
        "day:2011-12-28",
        "day:2011-12-29",
        "day:2011-12-31",
        "day:2012-01-01",
    ]


@pytest.mark.parametrize("once_per", PERIODS)
def test_run_key_does_not_contain_the_timezone(once_per: OncePer) -> None:
    noon = "2026-11-24T12:00Z"
    keys = {run_key_at(once_per, name, noon) for name in ("UTC", "Europe/Berlin", "America/New_York")}
    assert len(keys) == 1


def test_default_timezone_is_utc() -> None:
    assert load_timezone(None) is UTC
    assert load_timezone("UTC") is UTC


def test_naive_time_is_rejected() -> None:
    with pytest.raises(ValueError, match="aware"):
        build_run_key("day", None, datetime(2026, 11, 24), "r-1")  # noqa: DTZ001  # naive on purpose


def offset_changes(name: str, year: int) -> Iterator[datetime]:
    """The first whole hour after each change of the zone's offset in a year."""
    zone = ZoneInfo(name)
    start = datetime(year, 1, 1, tzinfo=UTC)

    def offset(hour: int) -> timedelta | None:
        return (start + timedelta(hours=hour)).astimezone(zone).utcoffset()

    for day in range(0, 366 * 24, 24):
        if offset(day) != offset(day + 24):
            for before, after in pairwise(range(day, day + 25)):
                if offset(before) != offset(after):
                    yield start + timedelta(hours=after)


OFFSET_CHANGES = tuple(
    (name, instant) for name in ZONES for year in (2018, 2026) for instant in offset_changes(name, year)
)


def test_sample_timezones_have_offset_changes() -> None:
    assert len({name for name, _ in OFFSET_CHANGES}) >= 10


@pytest.mark.parametrize("once_per", PERIODS)
@pytest.mark.parametrize(("name", "change"), OFFSET_CHANGES, ids=lambda value: str(value).replace(":00+00:00", "Z"))
def test_run_keys_follow_the_wall_clock_around_offset_changes(once_per: OncePer, name: str, change: datetime) -> None:
    minutes = [change + timedelta(minutes=minute) for minute in range(-190, 190)]
    keys = [build_run_key(once_per, name, instant, "r-1") for instant in minutes]
    consecutive_keys = [name for name, _ in groupby(keys)]
    assert len(consecutive_keys) == len(set(consecutive_keys)), "a run key recurred"
    assert consecutive_keys == sorted(consecutive_keys)
    assert len(consecutive_keys) == len(
        [1 for _ in groupby(minutes, lambda instant: wall_clock_period(once_per, name, instant))]
    )


def wall_clock_period(once_per: OncePer, name: str, instant: datetime) -> object:
    """What distinguishes one period from the next on a wall clock that also shows the UTC offset."""
    local = instant.astimezone(ZoneInfo(name))
    match once_per:
        case "hour":
            return (local.date(), local.hour, local.utcoffset())
        case "day":
            return local.date()
        case "week":
            return local.date() - timedelta(days=local.weekday())
        case _:
            return (local.year, local.month)


@given(st.sampled_from(ONCE_PER_VALUES), st.sampled_from(ZONES), INSTANTS, st.integers(-14 * 60, 14 * 60))
def test_run_key_depends_only_on_the_instant(once_per: OncePer, name: str, instant: datetime, offset: int) -> None:
    same_instant = instant.astimezone(timezone(timedelta(minutes=offset)))
    assert build_run_key(once_per, name, same_instant, "r-1") == build_run_key(once_per, name, instant, "r-1")


@given(
    st.sampled_from(PERIODS),
    st.sampled_from(ZONES),
    INSTANTS,
    st.lists(st.timedeltas(timedelta(), timedelta(days=40)), min_size=2, max_size=12),
    st.sampled_from([0.001, 0.03, 1.0]),
)
def test_run_keys_are_monotonic_in_time(
    once_per: OncePer, name: str, start: datetime, steps: list[timedelta], scale: float
) -> None:
    instants = sorted(start + step * scale for step in steps)
    keys = [build_run_key(once_per, name, instant, "r-1") for instant in instants]
    assert keys == sorted(keys)


@given(st.sampled_from(ZONES), INSTANTS)
@example("Australia/Lord_Howe", parse_time("2026-10-03T15:45Z"))
@example("Pacific/Chatham", parse_time("2026-04-04T14:01Z"))
def test_hour_starts_exactly_at_the_time_in_its_run_key(name: str, instant: datetime) -> None:
    run_key = build_run_key("hour", name, instant, "r-1")
    start = parse_time(run_key.removeprefix("hour:"))
    assert timedelta() <= instant - start < timedelta(hours=1)
    assert build_run_key("hour", name, start, "r-1") == run_key
    assert build_run_key("hour", name, start - timedelta(microseconds=1), "r-1") < run_key


@given(st.sampled_from(ZONES), INSTANTS)
def test_days_weeks_and_months_match_the_calendar(name: str, instant: datetime) -> None:
    today = instant.astimezone(ZoneInfo(name)).date()
    assert date.fromisoformat(build_run_key("day", name, instant, "r-1").removeprefix("day:")) == today
    monday = date.fromisoformat(build_run_key("week", name, instant, "r-1").removeprefix("week:"))
    assert timedelta() <= today - monday < timedelta(days=7)
    assert build_run_key("month", name, instant, "r-1") == f"month:{today.isoformat()[:7]}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run:20261124T074510Z-a1b2c3", "the run 20261124T074510Z-a1b2c3"),
        ("run:a:b", "the run a:b"),
        ("hour:2026-11-24T07:30Z", "the hour that began at 2026-11-24 07:30 UTC"),
        ("day:2026-11-24", "the day 2026-11-24"),
        ("week:2026-W48", "the ISO week 2026-W48"),
        ("month:2026-11", "the month 2026-11"),
        ("forever", "ever"),
        ("quarter:2026-Q4", "the run key quarter:2026-Q4"),
        ("", "the run key "),
    ],
)
def test_run_key_description(text: str, expected: str) -> None:
    assert describe_run_key(text) == expected


@pytest.mark.parametrize(
    ("text", "label", "scope"),
    [
        ("run:r-1", "run r-1", " for the run r-1"),
        ("day:2026-11-24", "day 2026-11-24", " for 2026-11-24"),
        ("week:2026-W48", "ISO week 2026-W48", " for the ISO week 2026-W48"),
        ("forever", "once, ever", ""),
    ],
)
def test_run_key_label_and_scope(text: str, label: str, scope: str) -> None:
    assert label_run_key(text) == label
    assert describe_scope(text) == scope


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run:r-1", "resuming run r-1"),
        ("day:2026-11-24", "the next run for the day 2026-11-24"),
        ("forever", "the next run"),
    ],
)
def test_next_run_description(text: str, expected: str) -> None:
    assert describe_next_run(text) == expected


@given(st.sampled_from(ONCE_PER_VALUES), st.sampled_from(ZONES), INSTANTS, st.text())
def test_every_run_key_has_a_description(once_per: OncePer, name: str, instant: datetime, run_id: str) -> None:
    description = describe_run_key(build_run_key(once_per, name, instant, run_id))
    assert description == "ever" or description.startswith("the ")
    assert not description.startswith("the run key ")


@given(st.text())
def test_any_text_has_a_description(text: str) -> None:
    assert describe_run_key(text)


@pytest.mark.parametrize(
    "name",
    [
        "Europe/Berln",
        "America",
        "",
        ".",
        "../etc/passwd",
        "/etc/localtime",
        "a\0b",
        "x" * 300,
        "\udc80",
        "Europe/Berlin ",
    ],
)
def test_unknown_timezone_is_a_usage_error(name: str) -> None:
    with pytest.raises(UsageError, match="unknown timezone") as caught:
        build_run_key("day", name, parse_time("2026-11-24T07:45Z"), "r-1")
    assert caught.value.exit_code is Exit.USAGE
    assert "Europe/Berlin" in caught.value.hint


@pytest.mark.parametrize("once_per", ["run", "forever"])
def test_unused_timezone_is_not_loaded(once_per: OncePer) -> None:
    assert run_key_at(once_per, "Nowhere/At_All", "2026-11-24T07:45Z")


PROGRAM_WITHOUT_TZDATA = """
import sys
sys.modules["tzdata"] = None
from datetime import UTC, datetime
from runner.core.errors import UsageError
from runner.planning.periods import build_run_key
now = datetime(2026, 11, 24, tzinfo=UTC)
print(build_run_key("day", "UTC", now, "r"), build_run_key("hour", None, now, "r"))
try:
    build_run_key("day", "Europe/Berlin", now, "r")
except UsageError as error:
    print(error.message, "|", error.hint)
"""


def test_without_tzdata_utc_works_and_the_error_names_the_package() -> None:
    completed = subprocess.run(
        [sys.executable, "-c", PROGRAM_WITHOUT_TZDATA],
        env={**os.environ, "PYTHONTZPATH": ""},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    keys, error_line = completed.stdout.splitlines()
    assert keys == "day:2026-11-24 hour:2026-11-24T00:00Z"
    assert "'Europe/Berlin'" in error_line
    assert "no timezone data" in error_line
    assert "`tzdata`" in error_line
