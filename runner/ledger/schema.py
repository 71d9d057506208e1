"""The schema of the ledger, version by version, and the state transitions that it allows."""

from __future__ import annotations

import sqlite3

APPLICATION_ID = 0x50495852  # "PIXR": distinguishes a ledger from another program's database

# From each state to the next. A trigger enforces them, whichever code writes.
TRANSITIONS = (
    ("sending", "created"),
    ("sending", "not_created"),
    ("sending", "in_doubt"),
    ("sending", "released"),  # an intent that was never sent
    ("released", "sending"),
    ("not_created", "sending"),
    ("not_created", "created"),  # declared absent by a lookup or a person, and adopted after all
    ("in_doubt", "created"),  # found at the API, or adopted by a person
    ("in_doubt", "not_created"),  # proved absent, or declared absent by a person
)

_VERSION_1 = (
    """
    CREATE TABLE manifests (  -- each manifest at each API
        id INTEGER PRIMARY KEY,
        api TEXT NOT NULL,     -- the origin of the base URL, or 'sandbox'
        name TEXT NOT NULL,
        path TEXT NOT NULL,    -- absolute, of the file last run under this name; '-' for standard input
        UNIQUE (api, name)
    )
    """,
    """
    CREATE TABLE snapshots (  -- a manifest's jobs, stored once however often it is run
        sha256 TEXT PRIMARY KEY,
        jobs BLOB NOT NULL     -- zlib of a JSON array: [name, workflow, project, labels, enabled, line] per job
    )
    """,
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        manifest INTEGER NOT NULL REFERENCES manifests,
        run_key TEXT NOT NULL,
        once_per TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'completed', 'stopped', 'interrupted')),
        reason TEXT NOT NULL DEFAULT '',  -- one word for why it did not send everything
        detail TEXT NOT NULL DEFAULT '',  -- the same for a person
        started_at TEXT NOT NULL,
        finished_at TEXT,
        runner TEXT NOT NULL,
        path TEXT NOT NULL,    -- as given on the command line
        sha256 TEXT NOT NULL REFERENCES snapshots,
        git_commit TEXT,
        settings TEXT NOT NULL -- JSON
    )
    """,
    # When a ledger is opened, each index is compared with its table. So indexes include the columns that decide
    # whether a job is sent, beyond those that are searched for: a flipped bit in them is noticed.
    "CREATE INDEX runs_by_manifest ON runs (manifest, started_at, run_key, once_per, state)",
    """
    CREATE TABLE submissions (
        id INTEGER PRIMARY KEY,
        manifest INTEGER NOT NULL REFERENCES manifests,
        run_key TEXT NOT NULL,
        workflow_id TEXT NOT NULL,
        project_id TEXT NOT NULL,
        ordinal INTEGER NOT NULL CHECK (ordinal > 0),
        again INTEGER NOT NULL DEFAULT 0,  -- 1: sent on purpose beyond what the manifest lists
        api TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('sending', 'released', 'not_created', 'in_doubt', 'created')),
        name TEXT NOT NULL,
        labels TEXT NOT NULL,  -- JSON
        run_id TEXT NOT NULL REFERENCES runs,
        attempts INTEGER NOT NULL,
        claimed_at TEXT NOT NULL,
        ended_at TEXT,         -- end of the exchange; NULL while in flight, or if the process died
        timeout REAL NOT NULL, -- maximum duration of the exchange, in seconds
        estimate INTEGER,      -- expected cost in tokens, if it was requested
        job_id,                -- text; a blob if it is not valid Unicode
        created_by,            -- likewise
        cost INTEGER,
        val_errors INTEGER NOT NULL DEFAULT 0,
        recovered INTEGER NOT NULL DEFAULT 0,
        assigned INTEGER NOT NULL DEFAULT 1,
        error TEXT,            -- JSON
        candidates TEXT NOT NULL DEFAULT '[]',  -- JSON array of job ids
        UNIQUE (manifest, run_key, workflow_id, project_id, ordinal),
        CHECK ((state = 'created') = (job_id IS NOT NULL)),
        CHECK (state NOT IN ('not_created', 'in_doubt') OR error IS NOT NULL)
    )
    """,
    "CREATE UNIQUE INDEX submissions_by_job_id ON submissions (api, job_id) WHERE job_id IS NOT NULL",
    "CREATE INDEX submissions_by_workflow ON submissions (api, workflow_id, again)",
    """
    CREATE INDEX unresolved_submissions ON submissions (state, claimed_at, ended_at, timeout)
    WHERE state IN ('sending', 'in_doubt')
    """,
    """
    CREATE TABLE responses (  -- apart from submissions, so that counting those reads no bodies
        submission INTEGER PRIMARY KEY REFERENCES submissions,
        body BLOB NOT NULL     -- the bytes as received
    )
    """,
    """
    CREATE TABLE final_jobs ( -- job objects once their status is final
        submission INTEGER PRIMARY KEY REFERENCES submissions,
        seen_at TEXT NOT NULL,
        body BLOB NOT NULL
    )
    """,
    """
    CREATE TABLE decisions (  -- how a lookup or a person resolved a submission in doubt
        id INTEGER PRIMARY KEY,
        submission INTEGER NOT NULL REFERENCES submissions,
        decided_at TEXT NOT NULL,
        decided_by TEXT NOT NULL,
        action TEXT NOT NULL,
        detail TEXT NOT NULL
    )
    """,
    f"""
    CREATE TRIGGER check_transition BEFORE UPDATE OF state ON submissions
    WHEN NOT ({" OR ".join(f"OLD.state = '{old}' AND NEW.state = '{new}'" for old, new in TRANSITIONS)})
    BEGIN SELECT RAISE(ABORT, 'transition not allowed'); END
    """,
    """
    CREATE TRIGGER check_adoption BEFORE UPDATE OF state ON submissions
    WHEN OLD.state = 'not_created' AND NEW.state = 'created' AND NOT (NEW.recovered
        AND (OLD.error LIKE '{"kind": "absent"%' OR OLD.error LIKE '{"kind": "not_found"%'))
    BEGIN SELECT RAISE(ABORT, 'transition not allowed'); END
    """,
    """
    CREATE TRIGGER check_first_state BEFORE INSERT ON submissions
    WHEN NEW.state <> 'sending'
    BEGIN SELECT RAISE(ABORT, 'the first state of a submission is sending'); END
    """,
    """
    CREATE TRIGGER refuse_deletion BEFORE DELETE ON submissions
    BEGIN SELECT RAISE(ABORT, 'submissions are never deleted'); END
    """,
)

# The statements that lead from each version to the next.
MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1,)


def latest_version() -> int:
    """The version of the ledgers that this program writes."""
    return len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, old: int, new: int) -> None:
    """Execute the statements that lead from one version to another."""
    for statements in MIGRATIONS[old:new]:
        for statement in statements:
            connection.execute(statement)
