"""The ledger's tables, version by version, and the transitions that a submission may make."""

from __future__ import annotations

APPLICATION_ID = 0x50495852  # "PIXR", so that another program's database is not taken for a ledger

# What each state may turn into. A trigger enforces it where it is written, whoever writes.
TRANSITIONS = (
    ("sending", "created"),
    ("sending", "not_created"),
    ("sending", "in_doubt"),
    ("sending", "released"),  # an intent that was never sent
    ("released", "sending"),
    ("not_created", "sending"),
    ("not_created", "created"),  # said to be absent by a look or a person, and adopted after all
    ("in_doubt", "created"),  # found at the API, or adopted by a person
    ("in_doubt", "not_created"),  # certainly not there, or a person says so
)

_VERSION_1 = (
    """
    CREATE TABLE manifests (  -- whose: a manifest at an API
        id INTEGER PRIMARY KEY,
        api TEXT NOT NULL,     -- the origin of the base URL, or 'sandbox'
        name TEXT NOT NULL,
        path TEXT NOT NULL,    -- absolute, of the file that was last run under this name; '-' for standard input
        UNIQUE (api, name)
    )
    """,
    """
    CREATE TABLE snapshots (  -- a manifest's jobs, kept once however often it is run
        sha256 TEXT PRIMARY KEY,
        jobs BLOB NOT NULL     -- zlib of a JSON array: [name, workflow, project, labels, enabled, line] a job
    )
    """,
    """
    CREATE TABLE runs (
        id TEXT PRIMARY KEY,
        manifest INTEGER NOT NULL REFERENCES manifests,
        run_key TEXT NOT NULL,
        once_per TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'completed', 'stopped', 'interrupted')),
        reason TEXT NOT NULL DEFAULT '',  -- a word for what kept it from sending everything
        why TEXT NOT NULL DEFAULT '',     -- the same for a person
        started_at TEXT NOT NULL,
        finished_at TEXT,
        runner TEXT NOT NULL,
        path TEXT NOT NULL,    -- as the person gave it
        sha256 TEXT NOT NULL REFERENCES snapshots,
        git_commit TEXT,
        settings TEXT NOT NULL -- JSON
    )
    """,
    # What an index holds as well as its table is compared when a ledger is opened. So each of these has what decides
    # whether a job is sent, and not only what is searched for: a bit that a disk flips there is noticed.
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
        ended_at TEXT,         -- when the exchange was over; NULL while it goes, or when the process died
        timeout REAL NOT NULL, -- seconds that the exchange could take
        estimate INTEGER,      -- tokens that it was expected to cost, where that was asked for
        job_id,                -- text; a blob where it is not valid Unicode
        created_by,        -- likewise
        cost INTEGER,
        val_errors INTEGER,
        recovered INTEGER NOT NULL DEFAULT 0,
        assigned INTEGER NOT NULL DEFAULT 1,
        error TEXT,            -- JSON
        candidates TEXT,       -- JSON array of job ids
        UNIQUE (manifest, run_key, workflow_id, project_id, ordinal),
        CHECK ((state = 'created') = (job_id IS NOT NULL)),
        CHECK (state NOT IN ('not_created', 'in_doubt') OR error IS NOT NULL)
    )
    """,
    "CREATE UNIQUE INDEX one_submission_a_job ON submissions (api, job_id) WHERE job_id IS NOT NULL",
    "CREATE INDEX submissions_by_workflow ON submissions (api, workflow_id, again)",
    """
    CREATE INDEX unsettled ON submissions (state, claimed_at, ended_at, timeout) WHERE state IN ('sending', 'in_doubt')
    """,
    """
    CREATE TABLE answers (    -- beside the submissions, so that counting them reads no bodies
        submission INTEGER PRIMARY KEY REFERENCES submissions,
        body BLOB NOT NULL     -- the bytes that came
    )
    """,
    """
    CREATE TABLE endings (    -- what became of a job at the API, once that was final
        submission INTEGER PRIMARY KEY REFERENCES submissions,
        seen_at TEXT NOT NULL,
        body BLOB NOT NULL     -- the job object
    )
    """,
    """
    CREATE TABLE decisions (  -- what a person or a look-up settled: who, when, what
        id INTEGER PRIMARY KEY,
        submission INTEGER NOT NULL REFERENCES submissions,
        decided_at TEXT NOT NULL,
        decided_by TEXT NOT NULL,
        what TEXT NOT NULL,
        detail TEXT NOT NULL
    )
    """,
    "CREATE TABLE transitions (old TEXT NOT NULL, new TEXT NOT NULL, PRIMARY KEY (old, new)) WITHOUT ROWID",
    "INSERT INTO transitions VALUES " + ", ".join(f"('{old}', '{new}')" for old, new in TRANSITIONS),  # noqa: S608 - our own words
    """
    CREATE TRIGGER only_allowed_transitions BEFORE UPDATE OF state ON submissions
    WHEN NOT EXISTS (SELECT 1 FROM transitions WHERE old = OLD.state AND new = NEW.state)
    BEGIN SELECT RAISE(ABORT, 'transition not allowed'); END
    """,
    """
    CREATE TRIGGER only_somebodys_word_is_taken_back BEFORE UPDATE OF state ON submissions
    WHEN OLD.state = 'not_created' AND NEW.state = 'created' AND NOT (NEW.recovered
        AND (OLD.error LIKE '{"kind": "absent"%' OR OLD.error LIKE '{"kind": "not_found"%'))
    BEGIN SELECT RAISE(ABORT, 'transition not allowed'); END
    """,
    """
    CREATE TRIGGER every_submission_begins_with_an_intent BEFORE INSERT ON submissions
    WHEN NEW.state <> 'sending'
    BEGIN SELECT RAISE(ABORT, 'a submission begins with an intent'); END
    """,
    """
    CREATE TRIGGER nothing_is_forgotten BEFORE DELETE ON submissions
    BEGIN SELECT RAISE(ABORT, 'submissions are never deleted'); END
    """,
)

# The statements that lead from each version to the next; the last one's number is the version of today.
MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1,)
