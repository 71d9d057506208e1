"""Whether what a run told is one story: its exit code, stdout, results files and reports against each other."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from support.campaign_invariants import LedgerContents, RunLine
from support.schemas import check_results

REPORTS = ("csv", "json", "junit", "markdown", "prometheus")
_OUTCOMES = ("created", "not_created", "in_doubt", "skipped")
_TOTALS = re.compile(
    r"^(?:(?P<manifest>\w+): )?(?P<jobs>\d+) jobs?: (?P<created>\d+) created(?: \(\d+ by an earlier run\))?, "
    r"(?P<not_created>\d+) not created, (?P<in_doubt>\d+) in doubt, (?P<skipped>\d+) skipped",
    re.MULTILINE,
)
_METRIC = re.compile(r'^pixxel_runner_run_jobs\{manifest="(\w+)",.*outcome="(\w+)"\} (\d+)$', re.MULTILINE)
_INTENDED_SKIPS = ("disabled", "not_selected")  # why a job is not sent in a run that did all that it was to do

Counts = Counter[str]


@dataclass(frozen=True)
class RunOutput:
    """What one run told: `ran` are its lines in the ledger, one for each manifest that it came to."""

    folder: Path
    code: int
    out: str
    err: str
    runs: Sequence[RunLine]
    reports: Sequence[str]

    @property
    def totals(self) -> Mapping[str, Counts]:
        """The counts on stdout, by manifest; those of all of them together under an empty name.

        On stderr where the jobs can't be listed, as the ledger can't be read any more.
        """
        found = list(_TOTALS.finditer(self.out)) or list(_TOTALS.finditer(self.err))
        return {one["manifest"] or "": _counts(one.groupdict()) for one in found}

    def results(self, run: RunLine) -> dict[str, Any] | None:
        """A manifest's results file as this run wrote it; None when it did not."""
        path = self.folder / f"{run.manifest}.results.json"
        if not path.exists():
            return None
        found = check_results(path)
        return found if found["run"]["id"] == run.id else None

    @property
    def reports_ledger_error(self) -> bool:
        """Whether the record could not be written, as the run itself says."""
        return any(words in self.err for words in ("not saved to the ledger", "cannot be used", "cannot be written"))


def check(told: RunOutput, listed: Mapping[str, Sequence[str]], held: LedgerContents, before: LedgerContents) -> None:
    """Fail unless everything that was told agrees.

    Args:
        told: what the run told.
        listed: the names of each manifest's jobs, in order.
        held: what the ledger holds now.
        before: what it held before the run.
    """
    totals = told.totals
    if not totals:
        assert told.code != 0, "all is well, and nothing was told"
        return
    every = {run.manifest: told.results(run) for run in told.runs}
    written = {name: results for name, results in every.items() if results is not None}
    for run in told.runs:
        results = every[run.manifest]
        if results is None:
            sent = any(row.run_id == run.id for row in held.rows)
            word = "was run, but its results are unknown" if sent else "not run"
            said = any(words in told.err for words in ("results: not written", f"{run.manifest}.yaml: {word}"))
            assert said, f"no results file of {run.manifest}, and nothing is said of it"
            assert told.code not in (0, 1), told.code
        else:
            check_document(results, listed[run.manifest])
            _check_against_ledger(results, run, held, lenient=told.reports_ledger_error)
            if len(told.runs) > 1 and set(totals) != {""}:  # where stdout can't be made, all together are counted
                assert totals[run.manifest] == _summary(results), f"stdout says {totals[run.manifest]}"
    if len(written) == len(told.runs):
        together = sum((_summary(results) for results in written.values()), Counter())
        assert +totals[""] == +together, f"stdout says {totals['']}, the results files {together}"
        _check_code(told, written)
    for name in told.reports:
        _check_report(told, name, written)
    _check_no_submission_lost(held, before)


def check_document(results: Mapping[str, Any], listed: Sequence[str]) -> None:
    """Fail unless each job of the manifest is told of once, and in its order."""
    parts = [[one["name"] for one in results[part]] for part in ("created", "errors", "skipped")]
    names = [name for part in parts for name in part]
    assert Counter(names) == Counter(listed), f"the results file tells of {sorted(names)}"
    for part in parts:
        assert part == [name for name in listed if name in part], f"not in the manifest's order: {part}"


def _check_against_ledger(results: Mapping[str, Any], run: RunLine, held: LedgerContents, *, lenient: bool) -> None:
    rows = [row for row in held.rows if (row.manifest, row.run_key) == (run.manifest, run.run_key)]
    on_record = Counter(row.job_id for row in rows if row.job_id is not None)
    told = Counter(one["job"]["id"] for one in results["created"])
    doubts = Counter(_pair(one) for one in results["errors"] if one["outcome"] == "in_doubt")
    failures = Counter(_pair(one) for one in results["errors"] if one["outcome"] == "not_created")
    if lenient:  # what could not be recorded is told all the same; the ledger has it as on its way, never as failed
        open_ = Counter(row.pair for row in rows if row.is_in_doubt)
        assert not on_record - told, "a job that is on record is not told of"
        unrecorded = Counter(_pair(one) for one in results["created"] if one["job"]["id"] not in on_record)
        assert not unrecorded - open_, "a job that is told of is neither on record nor open"
        return
    assert told == on_record, f"the results file has {told}, the ledger {on_record}"
    assert doubts == Counter(row.pair for row in rows if row.is_in_doubt), f"the results file has the doubts {doubts}"
    assert failures == Counter(row.pair for row in rows if row.state == "not_created"), f"and the failures {failures}"
    assert not [row for row in rows if row.state == "sending"], "an intent was left"


def _check_code(told: RunOutput, written: Mapping[str, Mapping[str, Any]]) -> None:
    count = sum((_summary(results) for results in written.values()), Counter())
    reasons = {one["reason"] for results in written.values() for one in results["skipped"]} - {*_INTENDED_SKIPS}
    interrupted = told.code in (130, 143)
    if count["in_doubt"]:
        assert told.code == 3 or interrupted, f"{told.code}, and {count['in_doubt']} in doubt"
    elif count["not_created"] or reasons:
        assert told.code in (1, 4) or interrupted, (
            f"{told.code}, and {count['not_created']} not created, {reasons} skipped"
        )
    if told.code == 0:
        assert not told.reports_ledger_error, "all is well, and the record was not written"
    assert told.code != 3 or count["in_doubt"], "nothing is in doubt"


def _check_report(told: RunOutput, name: str, written: Mapping[str, Mapping[str, Any]]) -> None:
    path = told.folder / f"report.{name}"
    if not path.exists():
        why = (f"{path.name} cannot be written", "cannot be used")  # the file, or the ledger that it is made from
        assert any(words in told.err for words in why), f"no report {name}, and nothing is said of it"
        return
    if len(written) < len(told.runs):
        return
    expected = sum((_summary(results) for results in written.values()), Counter())
    text = path.read_text(encoding="utf-8")
    if name == "markdown":
        found = {one["manifest"] or "": _counts(one.groupdict()) for one in _TOTALS.finditer(text)}[""]
    elif name == "prometheus":
        found = _read_prometheus(text, set(written))
    else:
        found = _READERS[name](text)
    assert +found == +expected, f"the report {name} says {found}, the results files {expected}"
    if name == "json":
        document = json.loads(text)
        assert document.get("runs", [document]) == list(written.values()), "the report json differs"


def _check_no_submission_lost(held: LedgerContents, before: LedgerContents) -> None:
    """What was created stays so, and no submission vanishes."""
    assert len(held.rows) >= len(before.rows)
    for old, new in zip(before.rows, held.rows, strict=False):
        assert (old.manifest, old.run_key, old.pair) == (new.manifest, new.run_key, new.pair)
        assert old.job_id in (None, new.job_id), f"it was {old}, and is {new}"


def _read_csv(text: str) -> Counts:
    return Counter(row["outcome"].replace(" ", "_") for row in csv.DictReader(text.splitlines()))


def _read_json(text: str) -> Counts:
    document = json.loads(text)
    return sum((_summary(one) for one in document.get("runs", [document])), Counter())


def _read_junit(text: str) -> Counts:
    counts: Counts = Counter()
    for case in ET.fromstring(text).iter("testcase"):  # noqa: S314 - our own
        results = {child.tag for child in case} & {"failure", "error", "skipped"}
        word = {"failure": "not_created", "error": "in_doubt", "skipped": "skipped"}
        counts[word[results.pop()] if results else "created"] += 1
    return counts


def _read_prometheus(text: str, ran: Collection[str]) -> Counts:
    """Of a manifest that was not run the metrics hold what its last run came to, so that no series ends."""
    counts: Counts = Counter()
    for manifest, outcome, count in _METRIC.findall(text):
        counts[outcome] += int(count) if manifest in ran else 0
    return counts


_READERS = {"csv": _read_csv, "json": _read_json, "junit": _read_junit}


def _pair(one: Mapping[str, Any]) -> tuple[str, str]:
    return (one["workflow_id"], one["project_id"])


def _summary(results: Mapping[str, Any]) -> Counts:
    return _counts(results["summary"])


def _counts(found: Mapping[str, Any]) -> Counts:
    return Counter({word: int(found[word]) for word in _OUTCOMES})
