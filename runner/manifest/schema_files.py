"""The JSON Schema files that are part of the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Literal

SchemaName = Literal["manifest", "results"]


def schema_text(name: SchemaName) -> str:
    """The text of a JSON Schema, as shipped: packaged as `runner.schemas`, or beside the package in a checkout."""
    package = files("runner")
    packaged = package / "schemas"
    directory = packaged if packaged.is_dir() else Path(str(package)).parent / "schemas"
    return (directory / f"{name}.schema.json").read_text(encoding="utf-8")
