"""Reads a campaign's ledger with plain SQL, and checks the invariants between the ledger and the server."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from runner.sandbox.backend import Backend
from runner.sandbox.lifecycle import SandboxJob

Pair = tuple[str, str]


@dataclass(frozen=True)
class SubmissionLine:
    """A submission in the ledger."""

    manifest: str
    run_key: str
    run_id: str
    name: str
    workflow_id: str
    project_id: str
    state: str
    job_id: str | None
    assigned: bool
    recovered: bool

    @property
    def pair(self) -> Pair:
        return (self.workflow_id, self.project_id)

    @property
    def is_in_doubt(self) -> bool:
        """Whether its job may or may not have been created."""
        return self.state in ("sending", "in_doubt")


@dataclass(frozen=True)
class RunLine:
    """A run in the ledger."""

    id: str
    manifest: str
    run_key: str
    state: str


@dataclass(frozen=True)
class LedgerContents:
    """The submissions and runs of a ledger."""

    rows: Sequence[SubmissionLine] = ()
    runs: Sequence[RunLine] = ()


_ROWS = """
    SELECT m.name, s.run_key, s.run_id, s.name, s.workflow_id, s.project_id, s.state, s.job_id, s.assigned, s.recovered
    FROM submissions s JOIN manifests m ON m.id = s.manifest ORDER BY s.id
"""
_RUNS = "SELECT r.id, m.name, r.run_key, r.state FROM runs r JOIN manifests m ON m.id = r.manifest ORDER BY r.rowid"


def files_of(ledger: Path) -> list[Path]:
    """The ledger and its write-ahead log, if they exist."""
    return [path for path in (ledger, ledger.with_name(f"{ledger.name}-wal")) if path.exists()]


def read_ledger(ledger: Path) -> LedgerContents:
    """Read a ledger from a copy, so that the next run finds exactly what the last one left."""
    if not ledger.exists():
        return LedgerContents()
    with tempfile.TemporaryDirectory() as directory:
        for path in files_of(ledger):
            shutil.copy(path, directory)
        with closing(sqlite3.connect(Path(directory) / ledger.name)) as copy:
            [(status,)] = copy.execute("PRAGMA integrity_check").fetchall()
            assert status == "ok", status
            return LedgerContents(
                [SubmissionLine(*row) for row in copy.execute(_ROWS)], [RunLine(*row) for row in copy.execute(_RUNS)]
            )


def read_submissions(ledger: Path) -> Sequence[SubmissionLine]:
    """The submissions of a ledger."""
    return read_ledger(ledger).rows


class Invariants:
    """What must hold between a ledger and a server, whatever happened."""

    def __init__(self, world: Backend, ledger: Path, pairs: Sequence[Pair]) -> None:
        self.backend = world
        self.ledger = ledger
        self.pairs = pairs

    def jobs(self) -> dict[str, SandboxJob]:
        """The jobs on the server, by id."""
        workflows = dict.fromkeys(workflow_id for workflow_id, _ in self.pairs)
        return {job.id: job for workflow_id in workflows for job in self.backend.jobs(workflow_id)}

    def created(self) -> Counter[Pair]:
        """How many jobs the server created for each pair."""
        return Counter((job.workflow_id, job.project_id) for job in self.jobs().values())

    def duplicates(self) -> Counter[Pair]:
        """The jobs created in excess of the manifest, by pair."""
        return self.created() - Counter(self.pairs)

    def lost(self) -> Counter[str]:
        """By workflow: created jobs that are neither in the ledger nor covered by a submission in doubt."""
        rows = read_submissions(self.ledger)
        ledger_ids = {row.job_id for row in rows}
        unknown = Counter(job.workflow_id for job in self.jobs().values() if job.id not in ledger_ids)
        return unknown - Counter(row.workflow_id for row in rows if row.is_in_doubt)

    def check(self) -> None:
        """Fail if a job was created twice, lost, or invented."""
        assert not self.duplicates(), f"duplicates created: {dict(self.duplicates())}"
        assert not self.lost(), f"created, but neither in the ledger nor in doubt: {dict(self.lost())}"
        jobs = self.jobs()
        for row in read_submissions(self.ledger):
            if row.job_id is not None:
                job = jobs.get(row.job_id)
                assert job is not None, f"the ledger has a job that the server does not have: {row}"
                assert job.workflow_id == row.workflow_id, row
                assert job.project_id == row.project_id or not row.assigned, row

    def check_complete(self) -> None:
        """Fail unless each job was created exactly once and is in the ledger."""
        self.check()
        assert self.created() == Counter(self.pairs), "not every job was created exactly once"
        states = Counter(row.state for row in read_submissions(self.ledger))
        assert states == {"created": len(self.pairs)}, f"the ledger has {states}"
