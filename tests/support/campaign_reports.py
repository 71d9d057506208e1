"""Checks that the exit code, output, results files and reports of a run agree with each other and the ledger."""

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
_INTENDED_SKIPS = ("disabled", "not_selected")  # skip reasons of jobs that a successful run does not send

Counts = Counter[str]


@dataclass(frozen=True)
class RunOutput:
    """The output of a command: `runs` are its runs in the ledger, one for each manifest that it started."""

    directory: Path
    code: int
    out: str
    err: str
    runs: Sequence[RunLine]
    reports: Sequence[str]

    @property
    def totals(self) -> Mapping[str, Counts]:
        """The counts on stdout by manifest, with the total of several manifests under an empty name.

        They are on stderr if the jobs cannot be listed because the ledger is no longer readable.
        """
        matches = list(_TOTALS.finditer(self.out)) or list(_TOTALS.finditer(self.err))
        return {match["manifest"] or "": _counts(match.groupdict()) for match in matches}

    def results(self, run: RunLine) -> dict[str, Any] | None:
        """The results file that this run wrote; None if it did not write one."""
        path = self.directory / f"{run.manifest}.results.json"
        if not path.exists():
            return None
        found = check_results(path)
        return found if found["run"]["id"] == run.id else None

    @property
    def reports_ledger_error(self) -> bool:
        """Whether the run reported that it could not write to the ledger."""
        return any(
            message in self.err for message in ("not saved to the ledger", "cannot be used", "cannot be written")
        )


def check(
    output: RunOutput, listed: Mapping[str, Sequence[str]], contents: LedgerContents, before: LedgerContents
) -> None:
    """Fail unless all outputs agree.

    Args:
        output: the output of the run.
        listed: the job names of each manifest, in order.
        contents: the current contents of the ledger.
        before: its contents before the run.
    """
    totals = output.totals
    if not totals:
        assert output.code != 0, "the run succeeded without a summary"
        return
    all_results = {run.manifest: output.results(run) for run in output.runs}
    written = {name: results for name, results in all_results.items() if results is not None}
    for run in output.runs:
        results = all_results[run.manifest]
        if results is None:
            sent = any(row.run_id == run.id for row in contents.rows)
            word = "was run, but its results are unknown" if sent else "not run"
            reported = any(
                message in output.err for message in ("results: not written", f"{run.manifest}.yaml: {word}")
            )
            assert reported, f"no results file of {run.manifest}, and no message about it"
            assert output.code not in (0, 1), output.code
        else:
            check_document(results, listed[run.manifest])
            _check_against_ledger(results, run, contents, lenient=output.reports_ledger_error)
            if len(output.runs) > 1 and set(totals) != {""}:  # without stdout, only the total is printed
                assert totals[run.manifest] == _summary(results), f"stdout says {totals[run.manifest]}"
    if len(written) == len(output.runs):
        together = sum((_summary(results) for results in written.values()), Counter())
        assert +totals[""] == +together, f"stdout says {totals['']}, the results files {together}"
        _check_code(output, written)
    for name in output.reports:
        _check_report(output, name, written)
    _check_no_submission_lost(contents, before)


def check_document(results: Mapping[str, Any], listed: Sequence[str]) -> None:
    """Fail unless the results file lists each job of the manifest once, in the manifest's order."""
    parts = [[item["name"] for item in results[part]] for part in ("created", "errors", "skipped")]
    names = [name for part in parts for name in part]
    assert Counter(names) == Counter(listed), f"the results file lists {sorted(names)}"
    for part in parts:
        assert part == [name for name in listed if name in part], f"not in the manifest's order: {part}"


def _check_against_ledger(results: Mapping[str, Any], run: RunLine, contents: LedgerContents, *, lenient: bool) -> None:
    rows = [row for row in contents.rows if (row.manifest, row.run_key) == (run.manifest, run.run_key)]
    on_record = Counter(row.job_id for row in rows if row.job_id is not None)
    listed = Counter(item["job"]["id"] for item in results["created"])
    doubts = Counter(_pair(item) for item in results["errors"] if item["outcome"] == "in_doubt")
    failures = Counter(_pair(item) for item in results["errors"] if item["outcome"] == "not_created")
    if (
        lenient
    ):  # results that were not saved are printed anyway; the ledger has them as `sending`, never as not created
        in_doubt = Counter(row.pair for row in rows if row.is_in_doubt)
        assert not on_record - listed, "the results file lacks a job of the ledger"
        unrecorded = Counter(_pair(item) for item in results["created"] if item["job"]["id"] not in on_record)
        assert not unrecorded - in_doubt, "a listed job is neither in the ledger nor in doubt"
        return
    assert listed == on_record, f"the results file has {listed}, the ledger {on_record}"
    assert doubts == Counter(row.pair for row in rows if row.is_in_doubt), (
        f"jobs in doubt in the results file: {doubts}"
    )
    assert failures == Counter(row.pair for row in rows if row.state == "not_created"), (
        f"jobs not created in the results file: {failures}"
    )
    assert not [row for row in rows if row.state == "sending"], "a submission is still in state `sending`"


def _check_code(output: RunOutput, written: Mapping[str, Mapping[str, Any]]) -> None:
    count = sum((_summary(results) for results in written.values()), Counter())
    reasons = {item["reason"] for results in written.values() for item in results["skipped"]} - {*_INTENDED_SKIPS}
    interrupted = output.code in (130, 143)
    if count["in_doubt"]:
        assert output.code == 3 or interrupted, f"{output.code}, and {count['in_doubt']} in doubt"
    elif count["not_created"] or reasons:
        assert output.code in (1, 4) or interrupted, (
            f"{output.code}, and {count['not_created']} not created, {reasons} skipped"
        )
    if output.code == 0:
        assert not output.reports_ledger_error, "the run succeeded although the ledger was not written"
    assert output.code != 3 or count["in_doubt"], "nothing is in doubt"


def _check_report(output: RunOutput, name: str, written: Mapping[str, Mapping[str, Any]]) -> None:
    path = output.directory / f"report.{name}"
    if not path.exists():
        why = (f"{path.name} cannot be written", "cannot be used")  # the file, or the ledger that it needs
        assert any(message in output.err for message in why), f"no {name} report, and no message about it"
        return
    if len(written) < len(output.runs):
        return
    expected = sum((_summary(results) for results in written.values()), Counter())
    text = path.read_text(encoding="utf-8")
    if name == "markdown":
        found = {item["manifest"] or "": _counts(item.groupdict()) for item in _TOTALS.finditer(text)}[""]
    elif name == "prometheus":
        found = _read_prometheus(text, set(written))
    else:
        found = _READERS[name](text)
    assert +found == +expected, f"the {name} report has {found}, the results files {expected}"
    if name == "json":
        document = json.loads(text)
        assert document.get("runs", [document]) == list(written.values()), "the JSON report differs"


def _check_no_submission_lost(contents: LedgerContents, before: LedgerContents) -> None:
    """Fail if a created job changed or a submission disappeared."""
    assert len(contents.rows) >= len(before.rows)
    for old, new in zip(before.rows, contents.rows, strict=False):
        assert (old.manifest, old.run_key, old.pair) == (new.manifest, new.run_key, new.pair)
        assert old.job_id in (None, new.job_id), f"it was {old}, now {new}"


def _read_csv(text: str) -> Counts:
    return Counter(row["outcome"].replace(" ", "_") for row in csv.DictReader(text.splitlines()))


def _read_json(text: str) -> Counts:
    document = json.loads(text)
    return sum((_summary(item) for item in document.get("runs", [document])), Counter())


def _read_junit(text: str) -> Counts:
    counts: Counts = Counter()
    for case in ET.fromstring(text).iter("testcase"):  # noqa: S314 - our own output
        results = {child.tag for child in case} & {"failure", "error", "skipped"}
        word = {"failure": "not_created", "error": "in_doubt", "skipped": "skipped"}
        counts[word[results.pop()] if results else "created"] += 1
    return counts


def _read_prometheus(text: str, ran: Collection[str]) -> Counts:
    """Count the outcomes of the manifests that ran; the metrics of others repeat their last run."""
    counts: Counts = Counter()
    for manifest, outcome, count in _METRIC.findall(text):
        counts[outcome] += int(count) if manifest in ran else 0
    return counts


_READERS = {"csv": _read_csv, "json": _read_json, "junit": _read_junit}


def _pair(item: Mapping[str, Any]) -> tuple[str, str]:
    return (item["workflow_id"], item["project_id"])


def _summary(results: Mapping[str, Any]) -> Counts:
    return _counts(results["summary"])


def _counts(found: Mapping[str, Any]) -> Counts:
    return Counter({word: int(found[word]) for word in _OUTCOMES})
