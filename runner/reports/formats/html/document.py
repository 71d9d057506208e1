"""A page as one HTML document: it loads nothing from elsewhere, and runs no script but its own.

`page.html` has what all pages have in common. What the script needs is hidden without it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from string import Template
from urllib.parse import quote

from runner.reports.formats.html import charts, tables
from runner.reports.formats.html.formatting import escape_html, format_count, format_time
from runner.reports.formats.html.model import Badge, Details, Fact, Page, Total


def render_document(page: Page) -> str:
    """The whole document, without a final newline."""
    style, column_style, script = _load("page.css"), tables.render_column_style(page.jobs), _load("page.js")
    return Template(_load("page.html").rstrip()).substitute(
        style=style,
        style_hash=_hash(style),
        column_style=column_style,
        column_style_hash=_hash(column_style),
        script=script,
        script_hash=_hash(script),
        patterns=_load("patterns.svg").rstrip(),
        icon=f"data:image/svg+xml,{quote(_load('icon.svg').rstrip())}",
        kind=escape_html(page.kind),
        title=escape_html(page.title),
        badges="".join(f" {_render_badge(badge)}" for badge in page.badges),
        headline=escape_html(page.headline),
        shares=charts.render_shares([(group.tone, group.count) for group in page.jobs.groups]),
        totals="\n".join(map(_render_total, page.totals)),
        notes="\n".join(_render_notes(page)),
        charts="\n".join(line for chart in page.charts for line in charts.render_chart(chart)),
        tables="\n".join(line for table in page.tables for line in tables.render_small_table(table)),
        details="\n".join(line for details in page.details for line in _render_details(details, page)),
        group_buttons="\n".join(tables.render_group_buttons(page.jobs)),
        row_count=format_count(len(page.jobs.rows), "row", "rows"),
        jobs="\n".join(tables.render_table(page.jobs, "jobs")),
        generator=escape_html(page.generator),
    )


def _render_total(total: Total) -> str:
    look = f' class="badge {total.tone}"' if total.tone else ""
    detail = f'<dd class="detail">{escape_html(total.detail)}</dd>' if total.detail else ""
    return (
        f'<div class="card"><dt{look}>{escape_html(total.title)}</dt><dd>{escape_html(total.value)}</dd>{detail}</div>'
    )


def _render_notes(page: Page) -> Iterator[str]:
    if page.notes:
        yield f'<ul class="notes">{"".join(f"<li>{escape_html(note)}</li>" for note in page.notes)}</ul>'


def _render_details(details: Details, page: Page) -> Iterator[str]:
    """The facts about a run or manifest, folded if there are several."""
    is_folded = len(page.details) > 1
    title = f"<h2>{escape_html(details.title)}</h2>"
    if is_folded:
        yield f'<details class="card about"><summary>{title} {escape_html(details.summary)}</summary>'
    else:
        yield f'<section class="card about">{title}'
    yield '<dl class="facts">'
    for name, fact in details.facts.items():
        if fact is not None:
            yield f"<div><dt>{escape_html(name)}</dt><dd>{_render_fact(fact)}</dd></div>"
    yield "</dl>"
    yield "</details>" if is_folded else "</section>"


def _render_fact(fact: Fact) -> str:
    match fact:
        case Badge():
            return _render_badge(fact)
        case datetime():
            time = format_time(fact)
            return f'<time datetime="{time.replace(" ", "T")}Z">{time} UTC</time>'
        case _:
            return escape_html(fact or "")


def _render_badge(badge: Badge) -> str:
    return f'<span class="badge {badge.tone}">{escape_html(badge.label)}</span>'


def _load(name: str) -> str:
    return (files("runner.reports.formats.html") / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
