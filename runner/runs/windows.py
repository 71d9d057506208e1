"""When a job in doubt was created, if it was: time windows, and how far the clocks may be wrong."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from runner.client.headers import parse_http_date
from runner.ledger.rows import SubmissionRow
from runner.runs.listing import Listing

SLACK = timedelta(seconds=10)  # `Date` and `created_at` are rounded, and clocks drift during a run
# A machine's clock is set by hand, or by the network after a run: until the server has told the time, it may have been
# wrong by as much as a wrong timezone makes it. With a clock that is wrong by more, no certificate is valid.
MAX_CLOCK_ERROR = timedelta(days=1)
# `created_at` and `Date` come from two clocks, the backend's and the gateway's. This is how far they may be apart if
# jobs of ours, sent at about the same time, show that the server's times are right.
_MAX_CALIBRATED_ERROR = timedelta(minutes=15)
_CALIBRATION_RANGE = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Window:
    """When a job in doubt was created, if it was: from its claim until a slow backend must be done with it.

    `sent` is when the exchange had ended, at the latest.
    """

    start: datetime
    sent: datetime
    end: datetime

    @classmethod
    def of_doubt(cls, doubt: SubmissionRow, settle: timedelta) -> Window:
        """Return the window of a job in doubt."""
        sent = doubt.ended_at or doubt.claimed_at + timedelta(seconds=doubt.timeout)
        return cls(doubt.claimed_at - SLACK, sent, sent + settle + SLACK)

    def contains(self, time: datetime | None, margin: timedelta = timedelta(0)) -> bool:
        """Whether a time may be in the window, if a clock was wrong by `margin`. An unknown time may be."""
        return time is None or self.start - margin <= time <= self.end + margin


def group_overlapping(
    submissions: Sequence[SubmissionRow], windows: Mapping[int, Window]
) -> Iterator[list[SubmissionRow]]:
    """Group submissions whose windows overlap: a job may belong to any one of its group, and to no other group."""
    group: list[SubmissionRow] = []
    end = datetime.min.replace(tzinfo=UTC)
    for submission in sorted(submissions, key=lambda submission: windows[submission.id].start):
        if group and windows[submission.id].start > end:
            yield group
            group = []
        group.append(submission)
        end = max(end, windows[submission.id].end)
    if group:
        yield group


def clock_margins(
    doubts: Sequence[SubmissionRow], known: Sequence[SubmissionRow], listing: Listing
) -> dict[int, timedelta]:
    """Return, by id, how far outside its window the job of each doubt may claim to have been created.

    That is a day, as any clock may be wrong. It is less if the doubt's own response shows that this machine's clock was
    right, and known jobs, one of them sent at about the same time, show that the server's times are.
    """
    calibration = _calibrate(known, listing)
    margins: dict[int, timedelta] = {}
    for doubt in doubts:
        first = bisect_left(calibration, doubt.claimed_at - _CALIBRATION_RANGE)
        calibrated = first < len(calibration) and calibration[first] <= doubt.claimed_at + _CALIBRATION_RANGE
        is_exact = calibrated and _was_clock_right(doubt, listing)
        margins[doubt.id] = _MAX_CALIBRATED_ERROR if is_exact else MAX_CLOCK_ERROR
    return margins


def response_date(doubt: SubmissionRow) -> datetime | None:
    """Return the date of the response that left a job in doubt, by the server's clock."""
    return parse_http_date(doubt.error.date or "") if doubt.error else None


def _calibrate(known: Sequence[SubmissionRow], listing: Listing) -> list[datetime]:
    """Return when the known jobs were sent, in order, if the list says of each that it was created meanwhile.

    Returns nothing if the list says otherwise of any: then its times come from a clock that is neither ours nor that of
    `Date`.
    """
    listed = {job.id: listing.created_at(job) for job in listing.jobs}
    answered = [row for row in known if not row.recovered and row.ended_at is not None and row.job_id in listed]
    for submission in answered:
        created_at = listed[submission.job_id or ""]
        if created_at is None or not Window.of_doubt(submission, timedelta(0)).contains(created_at):
            return []
    return sorted(submission.claimed_at for submission in answered)


def _was_clock_right(doubt: SubmissionRow, listing: Listing) -> bool:
    """Whether the response that left the doubt shows that our clock differed from the server's as it does now."""
    date = response_date(doubt)
    return (
        date is not None and doubt.ended_at is not None and abs(date - doubt.ended_at - listing.clock_offset) <= SLACK
    )
