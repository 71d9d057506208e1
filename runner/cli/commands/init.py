"""The command `init`: writes a manifest to start from, and never over anything."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import click

from runner.cli import console
from runner.core.errors import RefusedError, RunnerError, UsageError
from runner.core.exit_codes import Exit
from runner.manifest import schema

# The starter's first line names it, so that an editor finds it beside the manifest.
_SCHEMA = "manifest.schema.json"


@click.command("init")
@click.argument("path", default="jobs.yaml", type=click.Path(path_type=Path))
def command(path: Path) -> Exit:
    """Write a commented manifest to PATH (default: jobs.yaml), and its JSON Schema for editors beside it.

    Nothing is ever overwritten. The manifest is valid, and its jobs run on the sandbox.
    """
    _create(path, _starter(path))
    schema_path = path.with_name(_SCHEMA)
    written = f"{path} and {schema_path}" if _add_schema(schema_path) else str(path)
    console.info(f"wrote {written}")
    console.info(f"next: pixxel-runner run {click.format_filename(path)} --sandbox   (a rehearsal: no key, no cost)")
    return Exit.OK


def _starter(path: Path) -> str:
    """The starter with the manifest's own name in the commands that its comment lists."""
    return (files("runner.cli.commands") / "starter.yaml").read_text(encoding="utf-8").replace("jobs.yaml", path.name)


def _add_schema(path: Path) -> bool:
    """Write the schema unless it is there. An editor's help is no reason to fail."""
    try:
        _create(path, schema.schema_text("manifest"))
    except RunnerError:
        return False
    return True


def _create(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file:  # "x": another's file is never written over
            try:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                with suppress(OSError):
                    path.unlink()  # else the next one would refuse to write over it
                raise
    except FileExistsError:
        raise UsageError(f"{path} is there already", "Nothing was changed. Name another file: init PATH.") from None
    except FileNotFoundError:
        raise UsageError(f"there is no folder {path.parent}", f"Make it first: mkdir -p {path.parent}") from None
    except (PermissionError, NotADirectoryError) as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", "Choose a folder that you can write.") from None
    except OSError as error:
        raise RefusedError(
            f"{path} cannot be written: {error.strerror}", "Nothing is left of it. Choose another folder, or make room."
        ) from None
