"""Text as HTML, and numbers, times and lengths of time as words: the one place of the page that escapes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape

from runner.core.text import escape_unprintable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

SECOND = 1_000_000  # microseconds
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def text(value: str) -> str:
    """Text from anywhere, as HTML that shows it, in an element or in an attribute with double quotes."""
    return escape(escape_unprintable(value))


def number(value: int) -> str:
    """A whole number, its digits in groups of three."""
    return f"{value:,}"


def count(value: int, one: str, more: str) -> str:
    """A number and its noun."""
    return f"{value:,} {one if value == 1 else more}"


def micros(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def moment(since: int) -> datetime:
    """The time that is so many microseconds since 1970; where Python has no such year, its first or last time."""
    return _EPOCH + min(max(since, _FIRST), _LAST) * _MICROSECOND


def stamp(time: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{time.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'seconds')} UTC"


def clock(time: datetime, *, dated: bool) -> str:
    """A time in UTC, to the second, for a column whose title says that it is UTC."""
    shown = time.astimezone(UTC).replace(tzinfo=None)
    return shown.isoformat(" ", "seconds") if dated else shown.time().isoformat("seconds")


def period(start: datetime, end: datetime) -> str:
    """From when until when, the day said once where it is one."""
    first, last = start.astimezone(UTC), end.astimezone(UTC)
    return f"{clock(first, dated=True)} to {clock(last, dated=last.date() != first.date())} UTC"


def length(seconds: float) -> str:
    """A length of time in its two largest units."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < 59.95:  # noqa: PLR2004 - what is shown as 60.0 is a minute
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, unit, rest in ((60, 1, "min", "s"), (3600, 60, "h", "min"), (86400, 3600, "d", "h")):
        if whole < large * (24 if large == 3600 else 60) or unit == "d":  # noqa: PLR2004 - seconds in an hour
            return f"{whole // large:,} {unit} {whole % large // small:02} {rest}"
    raise AssertionError("any number of days is one")
