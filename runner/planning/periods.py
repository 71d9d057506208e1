"""Run keys: which runs count as the same one, by `once_per` and the timezone; and how to describe a run key."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from typing import assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from runner.core.errors import UsageError
from runner.core.models import OncePer

_HOUR_START = "%Y-%m-%dT%H:%MZ"


def build_run_key(once_per: OncePer, timezone: str | None, now: datetime, run_id: str) -> str:
    """Return the key that all runs of one period share.

    The keys are `run:<run id>`, `hour:2026-11-24T07:30Z`, `day:2026-11-24`, `week:2026-W48` (in the ISO week's year),
    `month:2026-11` and `forever`. They do not contain the timezone, so that a change of it does not start a new day.

    Args:
        once_per: the kind of period.
        timezone: the IANA name of the timezone; None is UTC.
        now: an aware datetime in any timezone.
        run_id: the id of the run, which `run:` keys contain.

    Raises:
        UsageError: this machine does not know the timezone.
    """
    match once_per:
        case "run":
            return f"run:{run_id}"
        case "hour":
            return f"hour:{_hour_start(_local(now, timezone)):{_HOUR_START}}"
        case "day":
            return f"day:{_local(now, timezone).date()}"
        case "week":
            week = _local(now, timezone).isocalendar()
            return f"week:{week.year:04}-W{week.week:02}"
        case "month":
            local = _local(now, timezone)
            return f"month:{local.year:04}-{local.month:02}"
        case "forever":
            return "forever"
    assert_never(once_per)


def describe_run_key(key: str) -> str:
    """Return the period or run of a key, in words that fit after "for".

    Accepts any text: a ledger may contain keys of a kind that only a later version knows.
    """
    kind, _, value = key.partition(":")
    match kind:
        case "run":
            return f"the run {value}"
        case "hour":  # by its start alone: a clock change may shorten it, and the key does not contain the timezone
            return f"the hour that began at {value.removesuffix('Z').replace('T', ' ')} UTC"
        case "day" | "month":
            return f"the {kind} {value}"
        case "week":
            return f"the ISO week {value}"
        case "forever":
            return "ever"
        case _:
            return f"the run key {key}"


def label_run_key(key: str) -> str:
    """Return the period or run of a key, as a label."""
    return "once, ever" if key == "forever" else describe_run_key(key).removeprefix("the ")


def describe_scope(key: str) -> str:
    """Return " for" and the period or run of a key, a day by its date alone; nothing for `forever`."""
    return "" if key == "forever" else f" for {describe_run_key(key).removeprefix('the day ')}"


def describe_next_run(key: str) -> str:
    """Return the run that would submit a run key's job again, in words that fit before "will"."""
    kind, _, value = key.partition(":")
    match kind:
        case "run":
            return f"resuming run {value}"
        case "forever":
            return "the next run"
        case _:
            return f"the next run for {describe_run_key(key)}"


def load_timezone(timezone: str | None) -> tzinfo:
    """Return the timezone of an IANA name. UTC, which None stands for too, needs no timezone data.

    Raises:
        UsageError: this machine does not know the name.
    """
    if timezone in (None, "UTC"):
        return UTC
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name is that of a directory in tzdata
        raise _unknown_timezone_error(timezone) from None


def _unknown_timezone_error(timezone: str) -> UsageError:
    if available_timezones():
        return UsageError(
            f"unknown timezone {timezone!r}",
            "Use an IANA name, such as Europe/Berlin. If it is newer than this machine's timezone data: "
            "pip install tzdata",
        )
    return UsageError(
        f"unknown timezone {timezone!r}: this machine has no timezone data",
        "Install the `tzdata` package (pip install tzdata), or use UTC.",
    )


def _local(now: datetime, timezone: str | None) -> datetime:
    if now.utcoffset() is None:  # Python would assume the machine's own timezone
        raise ValueError("a run key needs an aware datetime")
    return now.astimezone(load_timezone(timezone))


def _hour_start(local: datetime) -> datetime:
    """Return the first instant, in UTC, of the hour that the wall clock shows.

    It is an instant because a wall-clock time is ambiguous: when clocks go back, two hours have the same name. The hour
    also starts where the clock was changed within it (Lord Howe by half an hour, Chatham at a quarter to).
    """
    past = local.minute * 60 + local.second
    full_hour = local.astimezone(UTC).replace(microsecond=0) - timedelta(seconds=past)

    def has_same_offset(second: int) -> bool:
        return (full_hour + timedelta(seconds=second)).astimezone(local.tzinfo).utcoffset() == local.utcoffset()

    return full_hour + timedelta(seconds=bisect_left(range(past), True, key=has_same_offset))
