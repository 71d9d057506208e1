"""Shell completion of files and job names.

The functions are click's `shell_complete` callbacks. They read the manifests on the command line, and offer nothing if
one is missing or broken.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

_MAX_MANIFEST_SIZE = 5_000_000  # bytes: a larger one would keep the user waiting

_Offer = Callable[[click.Context, str], Iterable[CompletionItem]]
_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completer(offer: _Offer) -> _Complete:
    """Make a callback for click: it keeps what starts with the incomplete word, and offers nothing on an error."""

    @functools.wraps(offer)
    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with ctx.scope(cleanup=False):
                return [item for item in offer(ctx, incomplete) if str(item.value).startswith(incomplete)]
        except Exception:  # noqa: BLE001 - the user is typing: a message would garble the line
            return []

    return complete


def complete_files(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and directories, which the shell lists itself."""
    return [CompletionItem(incomplete, type="file")]


@completer
def complete_job_names(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The names of the jobs in the manifests on the command line."""
    from runner.manifest import loader  # noqa: PLC0415 - YAML and JSON Schema are slow to import

    for path in find_manifests(ctx):
        if path.stat().st_size <= _MAX_MANIFEST_SIZE:
            manifest = loader.check(loader.read_source(str(path), io.BytesIO()), str(path)).manifest
            yield from (CompletionItem(job.name) for job in (manifest.jobs if manifest else ()))


def find_manifests(ctx: click.Context) -> Iterator[Path]:
    """The manifests on the command line so far. Only regular files: reading anything else might block."""
    # If the line ends with an option that still needs its value, click leaves the arguments in `args`.
    arguments = ctx.params.get("manifests") or ctx.params.get("manifest") or ctx.args
    for path in map(Path, [arguments] if isinstance(arguments, str) else arguments):
        candidates = sorted(path.glob("[!.]*.yaml")) if path.is_dir() else [path]
        yield from (candidate for candidate in candidates if candidate.is_file())
