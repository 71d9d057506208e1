"""A page as one HTML document: nothing in it asks anybody for anything, and nothing but its own script runs in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from datetime import datetime
from importlib.resources import files
from urllib.parse import quote

from runner.reports.formats.html import charts, tables
from runner.reports.formats.html.formatting import stamp, text
from runner.reports.formats.html.model import About, Fact, Figure, Mark, Page

# A picture for the tab: without one, a browser asks the server of the page for it.
_ICON = "data:image/svg+xml," + quote(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'><rect width='16' height='16' rx='4' fill='#1f5fd1'/>"
    "<path d='M4 12V8M8 12V4M12 12V6' stroke='white' stroke-width='2.4' stroke-linecap='round'/></svg>"
)


def document(page: Page) -> str:
    """The whole document, without the last line's end."""
    return "\n".join(_lines(page))


def _lines(page: Page) -> Iterator[str]:
    style, columns, script = _asset("page.css"), tables.style(page.jobs), _asset("page.js")
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield (
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        f"style-src {_hash(style)} {_hash(columns)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'\">"
    )
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield '<meta name="referrer" content="no-referrer">'
    yield '<meta name="robots" content="noindex">'
    yield '<meta name="format-detection" content="telephone=no, date=no, address=no, email=no">'
    yield f"<title>{text(page.title)} · {text(page.verdict)}</title>"
    yield f'<link rel="icon" href="{_ICON}">'
    yield f"<style>{style}</style>"
    yield f"<style>{columns}</style>"
    yield f"<script>{script}</script>"
    yield "</head>\n<body>"
    yield from _body(page)
    yield "</body>\n</html>"


def _body(page: Page) -> Iterator[str]:
    yield '<a class="skip" href="#jobs">Skip to the table of jobs</a>'
    yield charts.PATTERNS
    yield f'<header><p class="subject">{text(page.subject)}</p>'
    yield f"<h1>{text(page.title)}{''.join(f' {_mark(one)}' for one in page.marks)}</h1>"
    yield f'<p class="verdict">{text(page.verdict)}</p></header>'
    yield "<main>"
    yield from _figures(page)
    for chart in page.charts:
        yield from charts.chart(chart)
    for table in page.tables:
        yield from tables.small(table)
    yield from _abouts(page)
    yield from tables.jobs(page.jobs)
    yield "</main>"
    yield f"<footer><p>Times are in UTC, costs in tokens. Made by {text(page.made_by)}.</p></footer>"


def _figures(page: Page) -> Iterator[str]:
    yield '<section aria-label="Totals">'
    yield charts.shares([(one.tone, one.count) for one in page.jobs.choices])
    yield '<dl class="figures">'
    for figure in page.figures:
        yield _figure(figure)
    yield "</dl>"
    if page.notes:
        yield f'<ul class="notes">{"".join(f"<li>{text(note)}</li>" for note in page.notes)}</ul>'
    yield "</section>"


def _figure(figure: Figure) -> str:
    look = f' class="mark {figure.tone}"' if figure.tone else ""
    detail = f'<dd class="detail">{text(figure.detail)}</dd>' if figure.detail else ""
    return f'<div class="card"><dt{look}>{text(figure.title)}</dt><dd>{text(figure.value)}</dd>{detail}</div>'


def _abouts(page: Page) -> Iterator[str]:
    """One that is alone lies open."""
    several = len(page.abouts) > 1
    for about in page.abouts:
        if several:
            yield f'<details class="card about"><summary><h2>{text(about.title)}</h2> {text(about.summary)}</summary>'
            yield from _facts(about)
            yield "</details>"
        else:
            yield f'<section class="card about"><h2>{text(about.title)}</h2>'
            yield from _facts(about)
            yield "</section>"


def _facts(about: About) -> Iterator[str]:
    yield '<dl class="facts">'
    for fact in about.facts:
        if fact[1] is not None:
            yield f"<div><dt>{text(fact[0])}</dt><dd>{_fact(fact)}</dd></div>"
    yield "</dl>"


def _fact(fact: Fact) -> str:
    match fact[1]:
        case Mark() as mark:
            return _mark(mark)
        case datetime() as time:
            shown = stamp(time)
            return f'<time datetime="{shown[:10]}T{shown[11:19]}Z">{shown}</time>'
        case words:
            return text(words or "")


def _mark(mark: Mark) -> str:
    return f'<span class="mark {mark.tone}">{text(mark.word)}</span>'


def _asset(name: str) -> str:
    return (files("runner.reports.formats.html") / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
