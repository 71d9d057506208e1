"""Finds and loads the manifests of a command line: files, directories and standard input."""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.cli import console, problem_format
from runner.core.errors import ManifestError, Problem, UsageError
from runner.core.models import STDIN, Manifest
from runner.core.text import escape_unprintable
from runner.manifest import loader

_SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class LoadedManifest:
    """A valid manifest, the bytes it was loaded from, and its share of the command line's `--only` and `--again`."""

    data: bytes
    manifest: Manifest
    only: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


def may_be_several(arguments: Sequence[str]) -> bool:
    """Whether the arguments can name several manifests: then the output names each one, however many there are."""
    return len(arguments) > 1 or any(map(_is_directory, arguments))


def _is_directory(path: str) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises if a parent directory may not be entered


def find_files(arguments: Sequence[str], *, quiet: bool = False) -> list[str]:
    """The paths of the manifests; for a directory its *.yaml files, sorted, without hidden ones and subdirectories.

    Raises:
        UsageError: a file is named twice, or a directory contains no manifest, or something that is not a file.
    """
    paths = [path for argument in arguments for path in _expand(argument, quiet=quiet)]
    seen: dict[Hashable, str] = {}
    for path in paths:
        identity = _identify(path)
        if identity in seen:
            message = f"{path} is the same file as {seen[identity]}"
            if path == STDIN:
                message = "standard input (-) can be read only once"
            elif path == seen[identity]:
                message = f"{path} was given twice"
            raise UsageError(message, "Specify each manifest once.")
        seen[identity] = path
    return paths


def _identify(path: str) -> Hashable:
    """Identify the file that a path leads to; the path itself if there is no file, or for standard input."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return path
    return path if path == STDIN else (status.st_dev, status.st_ino)


def _expand(argument: str, *, quiet: bool) -> Iterator[str]:
    if argument == STDIN or not _is_directory(argument):
        yield argument
        return
    try:
        entries = sorted(entry for entry in Path(argument).iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"the directory {argument} cannot be read: {error.strerror}") from None
    files = [entry for entry in entries if entry.suffix == _SUFFIX and not _is_directory(str(entry))]
    ignored = escape_unprintable(", ".join(entry.name for entry in entries if entry.suffix == ".yml"))
    if not files:
        suffix = f" (ignored: {ignored})" if ignored else ""
        raise UsageError(
            f"the directory {argument} contains no *{_SUFFIX} files{suffix}",
            f"Specify a manifest, or a directory of *{_SUFFIX} files.",
        )
    _reject_special(files)
    if ignored and not quiet:
        console.warn(f"{escape_unprintable(argument)}: ignored {ignored}; only *{_SUFFIX} files are read")
    yield from map(str, files)


def _reject_special(files: Sequence[Path]) -> None:
    """Reject pipes and devices in a directory: reading them could block. Inaccessible files are left for `load`."""
    for path in files:
        try:
            mode = path.stat().st_mode
        except OSError:
            continue
        if not stat.S_ISREG(mode):
            raise UsageError(
                f"{path} is not a regular file", "Remove it from the directory. A pipe must be named itself."
            )


def load(
    arguments: Sequence[str], only: tuple[str, ...] = (), again: tuple[str, ...] = (), *, quiet: bool = False
) -> list[LoadedManifest]:
    """Load and check every manifest, and share out `only` and `again`.

    With several, a glob need only match in one of them; a manifest without a match is left out.

    Raises:
        ManifestError: some are invalid; it has the problems of all of them.
        UsageError: a file cannot be read, or `only` or `again` match no job.
    """
    loaded: list[LoadedManifest] = []
    problems: list[Problem] = []
    for path in find_files(arguments, quiet=quiet):
        data = loader.read_source(path, console.stdin())
        result = loader.check(data, path)
        if not quiet:
            for warning in result.warnings:
                console.warn(problem_format.format_line(warning))
        problems += result.problems
        if result.manifest is not None:
            loaded.append(LoadedManifest(data, result.manifest, only, again))
    if problems:
        raise ManifestError(tuple(problems))
    return list(_share_out(loaded, only, again)) if len(loaded) > 1 else loaded


def _share_out(
    loaded: Sequence[LoadedManifest], only: tuple[str, ...], again: tuple[str, ...]
) -> Iterator[LoadedManifest]:
    from runner.planning import plan  # noqa: PLC0415 - `validate` does not need it

    plan.check_names([job for each in loaded for job in each.manifest.jobs], only, again)
    for each in loaded:
        own_only, own_again = plan.matching_names(each.manifest.jobs, only, again)
        if only and not own_only:
            if own_again:
                raise UsageError(f"--again {own_again[0]!r} is in {each.manifest.path}, where no job matches --only")
            console.info(f"{escape_unprintable(each.manifest.path)}: no job matches --only")
            continue
        yield LoadedManifest(each.data, each.manifest, own_only, own_again)
