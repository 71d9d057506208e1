"""Text as HTML, and numbers, times and durations as text. Nothing else on the page escapes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html import escape

from runner.core.text import escape_unprintable

SECOND = 1_000_000  # microseconds
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MIN_TIME = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_MAX_TIME = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND

# The largest value in seconds, exclusive, the size of the two units, and their names.
_DURATION_UNITS = ((3600, 60, 1, "min", "s"), (86400, 3600, 60, "h", "min"), (float("inf"), 86400, 3600, "d", "h"))
_MAX_SECONDS = 59.95  # what rounds to 60.0 s is shown as a minute


def escape_html(text: str) -> str:
    """Text from anywhere as HTML, for an element or a double-quoted attribute."""
    return escape(escape_unprintable(text))


def format_number(number: int) -> str:
    """A whole number with its digits in groups of three."""
    return f"{number:,}"


def format_count(number: int, singular: str, plural: str) -> str:
    """A number and its noun."""
    return f"{number:,} {singular if number == 1 else plural}"


def to_microseconds(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def from_microseconds(microseconds: int) -> datetime:
    """The time so many microseconds after 1970, or the first or last time that `datetime` has."""
    return _EPOCH + min(max(microseconds, _MIN_TIME), _MAX_TIME) * _MICROSECOND


def format_time(time: datetime, *, with_date: bool = True) -> str:
    """A time in UTC, to the second, without saying that it is UTC."""
    naive = time.astimezone(UTC).replace(tzinfo=None)
    return naive.isoformat(" ", "seconds") if with_date else naive.time().isoformat("seconds")


def format_period(start: datetime, end: datetime) -> str:
    """A start and an end in UTC; the date is not repeated if both are on one day."""
    same_day = start.astimezone(UTC).date() == end.astimezone(UTC).date()
    return f"{format_time(start)} to {format_time(end, with_date=not same_day)} UTC"


def seconds_between(start: datetime, end: datetime) -> float:
    """The seconds from one time to another."""
    return (to_microseconds(end) - to_microseconds(start)) / SECOND


def format_duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))} ms"
    if seconds < _MAX_SECONDS:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    large, small, large_name, small_name = next(units[1:] for units in _DURATION_UNITS if whole < units[0])
    return f"{whole // large:,} {large_name} {whole % large // small:02} {small_name}"
