"""A YAML file as read: its values, the place of each, and the problems found on the way."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from typing import Any

from runner.core.errors import Problem
from runner.manifest.yaml.messages import FieldPath, format_path

# Where a value stands: a scalar's offset; the offset and the text of a plain scalar that is not text to YAML; or
# a collection's offset and its children's places (for a mapping, each with its key's offset).
Location = int | tuple[int, str | list[Any] | dict[str, Any]]

_LINE_BREAK = re.compile(r"\r\n?|\n")


class Lines:
    """The places where a text's lines begin, to turn an offset into a line and a column."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(found.end() for found in _LINE_BREAK.finditer(text))]

    def position(self, offset: int) -> tuple[int, int]:
        """The line and the column, both from 1, columns in characters, of an offset in characters."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file's one document.

    `value` is made of dict, list, str, int, float, bool, None and `scalars.Timestamp`; a key is always text.
    `problems` are those that did not stop the reading.
    """

    file: str
    value: Any
    location: Location
    lines: Lines
    problems: tuple[Problem, ...]

    def position(self, path: FieldPath) -> tuple[int, int]:
        """The line and the column of the value at a path, or of the nearest value above it that is there."""
        return self.lines.position(offset_of(self._descend(path)))

    def key_position(self, path: FieldPath) -> tuple[int, int]:
        """The line and the column of the key that ends a path."""
        children = children_of(self._descend(path[:-1]))
        if isinstance(children, dict) and path[-1] in children:
            return self.lines.position(children[str(path[-1])][0])
        return self.position(path)

    def raw(self, path: FieldPath) -> str | None:
        """What was written, if the value at a path is a plain scalar that YAML does not read as text."""
        found = children_of(self._descend(path))
        return found if isinstance(found, str) else None

    def problem(self, path: FieldPath, message: str, hint: str = "") -> Problem:
        """A problem with the value at a path."""
        line, column = self.position(path)
        return Problem(self.file, line, column, format_path(path), message, hint)

    def key_problem(self, path: FieldPath, message: str, hint: str = "") -> Problem:
        """A problem with the key that ends a path."""
        line, column = self.key_position(path)
        return Problem(self.file, line, column, format_path(path), message, hint)

    def _descend(self, path: FieldPath) -> Location:
        place = self.location
        for step in path:
            children = children_of(place)
            if isinstance(children, dict) and step in children:
                place = children[str(step)][1]
            elif isinstance(children, list) and isinstance(step, int) and step < len(children):
                place = children[step]
            else:
                break
        return place


def offset_of(place: Location) -> int:
    """Where a value stands, in characters from the text's start."""
    return place if isinstance(place, int) else place[0]


def children_of(place: Location) -> str | list[Any] | dict[str, Any] | None:
    """What a place holds besides its offset; None if nothing."""
    return None if isinstance(place, int) else place[1]
