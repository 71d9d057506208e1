"""Builds run records: specific ones for examples, and hypothesis strategies for arbitrary ones."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

from runner.core.models import Created, Entry, ErrorInfo, InDoubt, Job, NotCreated, Outcome, Run, RunRecord, Skipped

SENT = datetime(2026, 10, 20, 1, 0, 3, 120_000, tzinfo=UTC)

RUN = Run(
    id="run-2",
    key="day:2026-10-20",
    state="completed",
    started_at=datetime(2026, 10, 20, 1, 0, tzinfo=UTC),
    finished_at=datetime(2026, 10, 20, 1, 2, 0, 999, tzinfo=UTC),
    runner="pixxel-runner 0.1.0",
    manifest_name="nightly",
    manifest_path="nightly.yaml",
    manifest_sha256="ab" * 32,
    git_commit=None,
    base_url="https://api.pixxel.space",
    settings={"concurrency": 8, "rate": None},
)


def record(*entries: Entry, **run: Any) -> RunRecord:
    return RunRecord(replace(RUN, **run), entries)


def entry(name: str, outcome: Outcome, *, run_id: str = RUN.id, **labels: str) -> Entry:
    return Entry(Job(name, f"w-{name}", "p-1", labels), outcome, run_id)


def created(job_id: str, **members: Any) -> Created:
    return Created(job_id, json.dumps({"id": job_id, **members}).encode(), 1, SENT)


def not_created(kind: str = "rejected", message: str = "no such workflow", **error: Any) -> NotCreated:
    return NotCreated(ErrorInfo(kind, message, **error), 1, SENT)


def in_doubt(message: str = "no answer came", candidates: tuple[str, ...] = ()) -> InDoubt:
    return InDoubt(ErrorInfo("timeout", message), 1, SENT, candidates)


HOSTILE = (
    "\x1b[31m",
    "\x1b]8;;http://x\x07",
    "\x9b2J",
    "\r\n",
    "\n::set-output name=a::b",
    "::error::",
    " ::stop-commands::x",
    "##[add-mask]x",
    "###[",
    "##vso[task]",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
    "\u2028",
    "\x85",
    "\udcff",
    "\ud800",
    "\x00",
    "\x01",
    "\ue000",
    "\ue001",
    "\u0301",
    "a\u0301\u0301\u0301\u0301\u0301\u0301",
    "名前",
    "👨\u200d👩",
    "|",
    "\\|",
    "\\",
    "<img src=x>",
    "`",
    "**a**",
    "@octocat",
    "#1",
    "https://x.example",
    '"',
    ",",
    "=1+1",
    "-1",
    "+1",
    "@SUM(A1)",
    "\t=1",
    "1e5",
    "007",
    " ",
    "…",
    "",
)

# Arbitrary text, including lone surrogates, with more special strings than chance would give.
_pieces = st.one_of(st.sampled_from(HOSTILE), st.text(st.characters(exclude_categories=()), max_size=8))
texts = st.one_of(_pieces, st.builds(str.__add__, _pieces, _pieces))
words = texts.filter(bool)
labels = st.dictionaries(texts, texts, max_size=2)
times = st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(10**40), 10**40), st.floats(), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=3,
)
bodies = st.one_of(
    st.just(b""),
    st.binary(max_size=40),
    st.builds(
        lambda members, job_id, ascii_only: json.dumps({**members, "id": job_id}, ensure_ascii=ascii_only).encode(
            "utf-8", "surrogatepass"
        ),
        st.dictionaries(st.one_of(texts, st.sampled_from(["cost", "status", "val_errors"])), json_values, max_size=4),
        words,
        st.booleans(),
    ),
    words.map(lambda text: b'{"id": "x",\r\n\t"deep": ' + b"[" * 300 + json.dumps(text).encode() + b"]" * 300 + b"}\n"),
)
errors = st.builds(
    ErrorInfo,
    texts,
    texts,
    http_status=st.none() | st.integers(100, 599),
    api_error=json_values,
    request_id=st.none() | texts,
)
candidates = st.lists(words, max_size=2).map(tuple)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Created, words, bodies, st.integers(1, 9), times, st.booleans(), st.booleans(), candidates),
    st.builds(NotCreated, errors, st.integers(0, 9), st.none() | times),
    st.builds(InDoubt, errors, st.integers(0, 9), st.none() | times, candidates),
    st.builds(Skipped, texts, texts),
)
entries = st.builds(
    Entry, st.builds(Job, words, words, words, labels), outcomes, st.one_of(st.just(RUN.id), st.just("run-1"))
)
records = st.builds(RunRecord, st.just(RUN), st.lists(entries, max_size=4).map(tuple))
