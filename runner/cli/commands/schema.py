"""The command `schema`: prints a JSON Schema."""

from __future__ import annotations

import click

from runner.cli import console
from runner.core.exit_codes import Exit
from runner.manifest import schema_files


@click.command("schema")
@click.argument("name", type=click.Choice(["manifest", "results"]), default="manifest", metavar="[manifest|results]")
def command(name: schema_files.SchemaName) -> Exit:
    """Print the JSON Schema of the manifest or of the results file.

    Editors with a YAML language server use it to check and complete a manifest whose first line is
    `# yaml-language-server: $schema=PATH`, where PATH is a file with this schema.
    """
    console.output(schema_files.schema_text(name).rstrip("\n"))
    return Exit.OK
