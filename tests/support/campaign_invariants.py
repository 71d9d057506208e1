"""What a ledger holds of a campaign's runs, read as a stranger would, and what must be true of it and the server."""

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
    """One submission as the ledger has it."""

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
        """Whether its job may exist, and nobody knows which it is."""
        return self.state in ("sending", "in_doubt")


@dataclass(frozen=True)
class RunLine:
    """One run as the ledger has it, and as the results file names it."""

    id: str
    manifest: str
    run_key: str
    state: str


@dataclass(frozen=True)
class LedgerContents:
    """All that a ledger holds."""

    rows: Sequence[SubmissionLine] = ()
    runs: Sequence[RunLine] = ()


_ROWS = """
    SELECT m.name, s.run_key, s.run_id, s.name, s.workflow_id, s.project_id, s.state, s.job_id, s.assigned, s.recovered
    FROM submissions s JOIN manifests m ON m.id = s.manifest ORDER BY s.id
"""
_RUNS = "SELECT r.id, m.name, r.run_key, r.state FROM runs r JOIN manifests m ON m.id = r.manifest ORDER BY r.rowid"


def files_of(ledger: Path) -> list[Path]:
    """The ledger and its log, as far as they are there."""
    return [path for path in (ledger, ledger.with_name(f"{ledger.name}-wal")) if path.exists()]


def read_ledger(ledger: Path) -> LedgerContents:
    """What a ledger holds, read from a copy: the next run finds what the last one left and nothing else."""
    if not ledger.exists():
        return LedgerContents()
    with tempfile.TemporaryDirectory() as folder:
        for path in files_of(ledger):
            shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / ledger.name)) as copy:
            [(words,)] = copy.execute("PRAGMA integrity_check").fetchall()
            assert words == "ok", words
            return LedgerContents(
                [SubmissionLine(*row) for row in copy.execute(_ROWS)], [RunLine(*row) for row in copy.execute(_RUNS)]
            )


def read_submissions(ledger: Path) -> Sequence[SubmissionLine]:
    """The submissions that it holds."""
    return read_ledger(ledger).rows


class Invariants:
    """What must be true of a ledger and a server, whatever happened; each is asked for its own record."""

    def __init__(self, world: Backend, ledger: Path, pairs: Sequence[Pair]) -> None:
        self.backend = world
        self.ledger = ledger
        self.pairs = pairs

    def jobs(self) -> dict[str, SandboxJob]:
        """What the server created."""
        workflows = dict.fromkeys(workflow_id for workflow_id, _ in self.pairs)
        return {job.id: job for workflow_id in workflows for job in self.backend.jobs(workflow_id)}

    def created(self) -> Counter[Pair]:
        """How often it created each pair."""
        return Counter((job.workflow_id, job.project_id) for job in self.jobs().values())

    def duplicates(self) -> Counter[Pair]:
        """What it created more often than is listed."""
        return self.created() - Counter(self.pairs)

    def lost(self) -> Counter[str]:
        """By workflow: what it created, and the ledger neither has nor is in doubt of."""
        rows = read_submissions(self.ledger)
        held = {row.job_id for row in rows}
        free = Counter(job.workflow_id for job in self.jobs().values() if job.id not in held)
        return free - Counter(row.workflow_id for row in rows if row.is_in_doubt)

    def check(self) -> None:
        """Fail unless nothing was created twice, nothing is forgotten, and nothing is made up."""
        assert not self.duplicates(), f"created more often than listed: {dict(self.duplicates())}"
        assert not self.lost(), f"created, and neither on record nor in doubt: {dict(self.lost())}"
        jobs = self.jobs()
        for row in read_submissions(self.ledger):
            if row.job_id is not None:
                job = jobs.get(row.job_id)
                assert job is not None, f"the ledger has a job that the server has not: {row}"
                assert job.workflow_id == row.workflow_id, row
                assert job.project_id == row.project_id or not row.assigned, row

    def check_complete(self) -> None:
        """Fail unless each job was created exactly once, and the ledger has it."""
        self.check()
        assert self.created() == Counter(self.pairs), "not each job exactly once"
        states = Counter(row.state for row in read_submissions(self.ledger))
        assert states == {"created": len(self.pairs)}, f"the ledger has {states}"
