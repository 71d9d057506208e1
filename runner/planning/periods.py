"""When two runs count as the same one: `once_per` and a timezone made into a run key, and a run key put into words."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from typing import assert_never
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from runner.core.errors import UsageError
from runner.core.models import OncePer

_HOUR_START = "%Y-%m-%dT%H:%MZ"


def build_run_key(once_per: OncePer, timezone: str | None, now: datetime, run_id: str) -> str:
    """The key that all runs of one period share.

    The keys are `run:<run id>`, `hour:2026-11-24T07:30Z`, `day:2026-11-24`, `week:2026-W48` (of the ISO week's year),
    `month:2026-11` and `forever`. None holds the timezone: changing it must not buy a whole day again.

    Args:
        once_per: the kind of period.
        timezone: the IANA name of the zone whose wall clock counts; None is UTC.
        now: the instant, aware, in any zone.
        run_id: the run that asks; it matters for `run` alone.

    Raises:
        UsageError: the timezone is not known on this machine.
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
    """The period or run that a key stands for, as words that fit after "in" or "for".

    Any text is answered: a ledger may hold a kind of key that only a later version knows.
    """
    kind, _, value = key.partition(":")
    match kind:
        case "run":
            return f"the run {value}"
        case "hour":
            return _describe_hour(value)
        case "day" | "month":
            return f"the {kind} {value}"
        case "week":
            return f"the ISO week {value}"
        case "forever":
            return "ever"
        case _:
            return f"the run key {key}"


def load_timezone(timezone: str | None) -> tzinfo:
    """The zone of an IANA name. UTC, which None stands for too, needs no timezone data.

    Raises:
        UsageError: the name is not known on this machine, or is none.
    """
    if timezone in (None, "UTC"):
        return UTC
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # the last from tzdata: a folder's name
        raise _unknown(timezone) from None


def _unknown(timezone: str) -> UsageError:
    if available_timezones():
        return UsageError(
            f"the timezone {timezone!r} is not known",
            "Give an IANA name, such as Europe/Berlin. If it is newer than this machine's data: pip install tzdata",
        )
    return UsageError(
        f"the timezone {timezone!r} cannot be looked up: this machine has no timezone data",
        "Install the `tzdata` package (pip install tzdata), or use UTC.",
    )


def _local(now: datetime, timezone: str | None) -> datetime:
    if now.utcoffset() is None:  # Python would take it for the machine's own time
        raise ValueError("a run key needs an aware datetime")
    return now.astimezone(load_timezone(timezone))


def _hour_start(local: datetime) -> datetime:
    """The first instant, in UTC, of the hour that the wall clock shows.

    An instant, because the clock's reading does not do: when clocks go back there are two hours of one name. The hour
    also starts where the clock was changed within it (Lord Howe by half an hour, Chatham at a quarter to).
    """
    past = local.minute * 60 + local.second
    full = local.astimezone(UTC).replace(microsecond=0) - timedelta(seconds=past)

    def same_clock(second: int) -> bool:
        return (full + timedelta(seconds=second)).astimezone(local.tzinfo).utcoffset() == local.utcoffset()

    return full + timedelta(seconds=bisect_left(range(past), True, key=same_clock))


def _describe_hour(value: str) -> str:
    """An hour by its start alone: a change of the clock may cut it short, and the key does not hold the zone."""
    return f"the hour that began at {value.removesuffix('Z').replace('T', ' ')} UTC"
