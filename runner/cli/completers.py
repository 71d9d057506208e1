"""What can stand at a place of the command line that is completed: files, and the names of a manifest's jobs.

The functions are what click takes as `shell_complete`. They read the manifest on the line; where it is missing or
broken they offer nothing.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
from click.shell_completion import CompletionItem

_LARGEST = 5_000_000  # bytes of a manifest: a person waits, and who has a longer one does not pick from it

_Offer = Callable[[click.Context, str], Iterable[CompletionItem]]
_Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completer(offer: _Offer) -> _Complete:
    """Nothing instead of an error, and only what begins as it was typed."""

    @functools.wraps(offer)
    def complete(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            with ctx.scope(cleanup=False):
                return [item for item in offer(ctx, incomplete) if str(item.value).startswith(incomplete)]
        except Exception:  # noqa: BLE001 - a person is in the middle of a line: whatever it is, no words
            return []

    return complete


def complete_files(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Files and folders, which the shell finds itself."""
    return [CompletionItem(incomplete, type="file")]


@completer
def complete_job_names(ctx: click.Context, _incomplete: str) -> Iterator[CompletionItem]:
    """The names of the jobs in the manifests on the line."""
    from runner.manifest import loader  # noqa: PLC0415 - YAML and JSON Schema are slow to import

    for path in find_manifests(ctx):
        if path.stat().st_size <= _LARGEST:
            checked = loader.check(loader.read_source(str(path), io.BytesIO()), str(path))
            yield from (CompletionItem(job.name) for job in (checked.manifest.jobs if checked.manifest else ()))


def find_manifests(ctx: click.Context) -> Iterator[Path]:
    """The manifests that stand on the line so far. Only plain files: to read another might wait for ever."""
    # Of a line that ends with an option that waits for its value, click takes the arguments for left over.
    given = ctx.params.get("manifests") or ctx.params.get("manifest") or ctx.args
    for path in map(Path, [given] if isinstance(given, str) else given):
        found = sorted(path.glob("[!.]*.yaml")) if path.is_dir() else [path]
        yield from (one for one in found if one.is_file())
