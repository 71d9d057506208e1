"""The manifests that a command line names: files, folders, standard input; and which of their jobs are meant."""

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
    """A valid manifest, the bytes that it was read from, and what is asked of it: names, and globs of names."""

    data: bytes
    manifest: Manifest
    only: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


def may_be_several(given: Sequence[str]) -> bool:
    """Whether more than one manifest may be meant: then each is named in what comes out, however many there are."""
    return len(given) > 1 or any(map(_is_folder, given))


def _is_folder(given: str) -> bool:
    return os.path.isdir(given)  # noqa: PTH112 - Path.is_dir raises where a folder on the way may not be entered


def find_files(given: Sequence[str], *, quiet: bool = False) -> list[str]:
    """The manifests' files: for a folder its `*.yaml`, sorted, without hidden ones and without its folders.

    Raises:
        UsageError: a file is named twice, a folder has none, or has what is no file among them; or a name is empty.
    """
    if "" in given:  # for Path that is the current folder
        raise UsageError("a manifest's name is empty", "Name its file.")
    found = [path for one in given for path in _files(one, quiet=quiet)]
    seen: dict[Hashable, str] = {}
    for path in found:
        real = _identity(path)
        if real in seen:
            if path == STDIN:
                raise UsageError("standard input (-) can be read only once", "Name each manifest once.")
            raise UsageError(f"{path} is the same file as {seen[real]}", "Name each manifest once.")
        seen[real] = path
    return found


def _identity(path: str) -> Hashable:
    """Which file a path leads to; the path itself where there is none, or it is standard input."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return path
    return path if path == STDIN else (found.st_dev, found.st_ino)


def _files(given: str, *, quiet: bool) -> Iterator[str]:
    if given == STDIN or not _is_folder(given):
        yield given
        return
    try:
        entries = sorted(one for one in Path(given).iterdir() if not one.name.startswith("."))
    except OSError as error:
        raise UsageError(f"the folder {given} cannot be read: {error.strerror}") from None
    files = [one for one in entries if one.suffix == _SUFFIX and not _is_folder(str(one))]
    others = [one.name for one in entries if one.suffix == ".yml"]
    if not files:
        also = f" (it has {escape_unprintable(others[0])}: manifests in a folder end in {_SUFFIX})" if others else ""
        raise UsageError(f"the folder {given} has no *{_SUFFIX}{also}", "Name a manifest, or a folder with some in it.")
    _refuse_special(files)
    if others and not quiet:
        console.warn(
            f"{given}: {escape_unprintable(', '.join(others))} not read: manifests in a folder end in {_SUFFIX}"
        )
    yield from map(str, files)


def _refuse_special(files: Sequence[Path]) -> None:
    """Refuse a pipe in a folder, which would be waited for without end, and whatever else is no file.

    What is not there, as a link may lead nowhere, or may not be read is told as it is read.
    """
    for one in files:
        try:
            mode = one.stat().st_mode
        except OSError:
            continue
        if not stat.S_ISREG(mode):
            raise UsageError(f"{one} is no plain file", "Take it out of the folder. A pipe is read where it is named.")


def load(
    given: Sequence[str], only: tuple[str, ...] = (), again: tuple[str, ...] = (), *, quiet: bool = False
) -> list[LoadedManifest]:
    """Read and check every manifest, and say what each is asked for.

    With several, a glob need only match in one of them; a manifest of which no job is meant is left out.

    Raises:
        ManifestError: some have problems: all of them, of all.
        UsageError: a file cannot be read, or `only` or `again` name no job of any.
    """
    sources: list[LoadedManifest] = []
    wrong: list[Problem] = []
    for path in find_files(given, quiet=quiet):
        data = loader.read_source(path, console.stdin())
        checked = loader.check(data, path)
        if not quiet:
            for warning in checked.warnings:
                console.warn(problem_format.format_line(warning))
        wrong += checked.problems
        if checked.manifest is not None:
            sources.append(LoadedManifest(data, checked.manifest, only, again))
    if wrong:
        raise ManifestError(tuple(wrong))
    return list(_meant(sources, only, again)) if len(sources) > 1 else sources


def _meant(
    sources: Sequence[LoadedManifest], only: tuple[str, ...], again: tuple[str, ...]
) -> Iterator[LoadedManifest]:
    from runner.planning import plan  # noqa: PLC0415 - `validate` has no use for it

    jobs = [job for source in sources for job in source.manifest.jobs]
    plan.check_names(jobs, only, again)
    for source in sources:
        own_only, own_again = plan.matching_names(source.manifest.jobs, only, again)
        if only and not own_only:
            if own_again:
                raise UsageError(f"--again {own_again[0]!r} is of {source.manifest.path}, where --only matches no job")
            console.info(f"{escape_unprintable(source.manifest.path)}: --only matches no job of it")
            continue
        yield LoadedManifest(source.data, source.manifest, own_only, own_again)
