"""Looking ahead: what a run of a manifest would do now, without doing any of it, or being able to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.client.fetcher import Fetcher
from runner.core import settings
from runner.core.models import Manifest
from runner.ledger import lock
from runner.ledger.location import LedgerLocation, path_exists
from runner.ledger.store import Ledger
from runner.planning import estimates, forecast, manifest_identity, plan
from runner.planning import run_key as run_keys
from runner.planning.estimates import Estimate
from runner.planning.forecast import Preview

_NEXT = "next"  # stands for the id of a run that there is not yet


class Unwritten(Ledger):
    """The ledger that a first run would make: whatever it is asked, it holds nothing yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self, query: str, *values: Any) -> list[Any]:  # noqa: ARG002 - what every question comes to
        """No rows."""
        return []


@dataclass(frozen=True, slots=True)
class PreviewRequest:
    """What a run would be asked for: as `execution.Order` has it."""

    manifest: Manifest
    api: str
    limits: settings.Limits
    only: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    resume: bool = False
    new: bool = False


def check_free(place: LedgerLocation, question: PreviewRequest) -> None:
    """See that nobody is running the manifest.

    Raises:
        LockedError: somebody is.
        RefusedError: it cannot be told: the ledger, or a lock beside it, is where this user may not look.
    """
    path_exists(place.path)  # its own words come before those of the lock
    holder = lock.describe_holder(place.path, question.api, question.manifest.name)
    if holder is not None:
        raise lock.LockedError(
            f"manifest {question.manifest.name!r} is being run at {question.api} by {holder}",
            "What it has still to do is its own; plan again when it has ended.",
        )


@contextmanager
def record(place: LedgerLocation) -> Iterator[Ledger]:
    """The record, to be read; an empty one where there is none yet, and a run would make it.

    Raises:
        RefusedError: there was one.
        LedgerError: it can't be read.
    """
    if not place.explicit and not path_exists(place.path):
        if path_exists(lock.directory(place.path)):
            raise lock.missing_ledger_error(place.path)
        yield Unwritten(place.path)
        return
    with Ledger(place.path, read_only=True) as ledger:
        yield ledger


def look(
    question: PreviewRequest,
    ledger: Ledger,
    reader: estimates.Reader | None = None,
    *,
    cost: bool = False,
    check: bool = False,
) -> tuple[Preview, tuple[str, ...]]:
    """What a run would do now, and notes for a person.

    Args:
        question: what a run would be asked for.
        ledger: the record; an `Unwritten` one where there is none yet.
        reader: who is asked; None asks nobody.
        cost: ask what each workflow costs.
        check: ask whether each workflow that a run would use is there.

    Raises:
        RefusedError: a run would be refused.
        UsageError: `only` or `again` name no job.
    """
    manifest, now = question.manifest, datetime.now(UTC)
    answer = run_keys.UnfinishedPolicy.of(manifest, resume=question.resume, new=question.new)
    manifest_identity.check(ledger, question.api, manifest, new=question.new)
    chosen = run_keys.choose(ledger, question.api, manifest, answer, _NEXT, now)
    standings = ledger.submissions(question.api, manifest.name, chosen.run_key)
    planned = plan.make(manifest, question.only or chosen.only, standings, question.again)
    prices: Mapping[str, Estimate] | None = None
    problems: Mapping[tuple[str, str], str] = {}
    remedies: Mapping[str, str] = {}
    if reader is not None:
        pairs = [one.job.pair for one in planned.sends] if check else []
        workflows = forecast.workflows(planned, standings) if cost and planned.sends else []
        told = estimates.ask(Fetcher(question.limits), reader, workflows, pairs)
        prices, problems, remedies = told.estimates if cost else None, told.problems, told.remedies
    made = forecast.make(
        manifest,
        question.api,
        chosen.run_key,
        planned,
        standings,
        prices,
        problems,
        question.limits.max_cost,
    )
    return replace(made, remedies=remedies), (*chosen.notes, *_elsewhere(ledger, question, chosen.run_key))


def _elsewhere(ledger: Ledger, question: PreviewRequest, run_key: str) -> Sequence[str]:
    doubts = ledger.unresolved(question.api, question.manifest.name)
    others = sum(one.run_key != run_key for one in doubts)
    return [f"{others} of earlier runs of this manifest still in doubt: pixxel-runner resolve"] if others else []
