"""What a report may look like: how wide, in colour or not, and whether every job is listed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """How to show a record.

    `width` is the terminal's, in columns; None cuts nothing. `color` allows escape sequences for colour. `every` lists
    every job however many there are. `several`: more than one manifest was asked for, so each is named, even if it is
    the only one that there is something to say of. A report leaves aside what means nothing to it.
    """

    width: int | None = None
    color: bool = False
    list_all: bool = False
    several_manifests: bool = False
