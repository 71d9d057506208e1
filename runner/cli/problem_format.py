"""Formats the problems of a manifest: a line for people and editors, a GitHub annotation, or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal

from runner.core.errors import Problem
from runner.core.models import Manifest

Severity = Literal["error", "warning"]


def format_line(problem: Problem) -> str:
    """One line: `file:line:column: field: message (hint)`, without the parts that are empty."""
    place = f"{problem.file}:{problem.line}:{problem.column}" if problem.line else problem.file
    line = ": ".join(part for part in (place, problem.field, problem.message) if part)
    return f"{line} ({problem.hint})" if problem.hint else line


def format_github(problem: Problem, severity: Severity) -> str:
    """A workflow command that GitHub Actions shows at the line of the file in a pull request."""
    from runner.reports.formats.github import Annotation, format_command  # noqa: PLC0415 - slow to import, and rarely needed

    text = f"{problem.message} ({problem.hint})" if problem.hint else problem.message
    title = problem.field or "manifest"
    return format_command(Annotation(severity, title, text, problem.file, problem.line, problem.column))


def format_json(problems: Iterable[tuple[Problem, Severity]]) -> str:
    """A JSON array of objects with file, line, column, field, message, hint and severity."""
    return json.dumps([asdict(problem) | {"severity": severity} for problem, severity in problems], indent=2)


def format_valid(name: str, manifest: Manifest) -> str:
    """The line for a valid manifest and the name of its file: `jobs.yaml: ok, 6 jobs (1 disabled)`."""
    jobs = len(manifest.jobs)
    disabled = sum(not job.enabled for job in manifest.jobs)
    suffix = f" ({disabled:,} disabled)" if disabled else ""
    return f"{name}: ok, {jobs:,} job{'' if jobs == 1 else 's'}{suffix}"
