"""The command `init`: writes a manifest to start from."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import click

from runner.cli import console
from runner.core.errors import RefusedError, RunnerError, UsageError
from runner.core.exit_codes import Exit
from runner.manifest import schema_files

_SCHEMA = "manifest.schema.json"  # named in the first line of the starter, for editors


@click.command("init")
@click.argument("path", default="jobs.yaml", type=click.Path(path_type=Path))
def command(path: Path) -> Exit:
    """Write a commented manifest to PATH (default: jobs.yaml), and its JSON Schema for editors next to it.

    Existing files are never overwritten. The manifest is valid, and its jobs run on the sandbox.
    """
    _create(path, _read_starter(path))
    schema_path = path.with_name(_SCHEMA)
    written = f"{path} and {schema_path}" if _add_schema(schema_path) else str(path)
    console.info(f"wrote {written}")
    console.info(f"next: pixxel-runner run {click.format_filename(path)} --sandbox   (no API key needed, no cost)")
    return Exit.OK


def _read_starter(path: Path) -> str:
    """The starter, with the manifest's own name in the commands that its comments list."""
    return (files("runner.cli.commands") / "starter.yaml").read_text(encoding="utf-8").replace("jobs.yaml", path.name)


def _add_schema(path: Path) -> bool:
    """Write the schema unless it exists. The manifest works without it, so an error is ignored."""
    try:
        _create(path, schema_files.schema_text("manifest"))
    except RunnerError:
        return False
    return True


def _create(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    path.unlink()  # an incomplete file would keep the next attempt from writing it
                raise
    except FileExistsError:
        raise UsageError(f"{path} already exists", "To write another file: pixxel-runner init PATH") from None
    except FileNotFoundError:
        raise UsageError(f"the directory {path.parent} does not exist", f"Create it: mkdir -p {path.parent}") from None
    except (PermissionError, NotADirectoryError) as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "Choose another directory.") from None
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written: {error.strerror}",
            "The incomplete file was removed. Free some space, or choose another directory.",
        ) from None
