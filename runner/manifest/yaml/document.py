"""A parsed YAML file: its value, where each part of it is, and the problems found while parsing."""

from __future__ import annotations

import bisect
import re
from dataclasses import dataclass
from typing import Any

from runner.core.errors import Problem
from runner.manifest.yaml.messages import FieldPath, format_path

# Where a value is: a scalar's offset; the offset and the text of a plain scalar that YAML does not read as a string;
# or a collection's offset and the locations of its children (for a mapping, each with its key's offset).
Location = int | tuple[int, str | list[Any] | dict[str, Any]]

_LINE_BREAK = re.compile(r"\r\n?|\n")


class Lines:
    """The offsets at which a text's lines start."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in _LINE_BREAK.finditer(text))]

    def position(self, offset: int) -> tuple[int, int]:
        """The line and column of an offset in characters. Both count from 1; columns count characters."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1


@dataclass(frozen=True, slots=True)
class Document:
    """The single document of a YAML file.

    `value` consists of dict, list, str, int, float, bool, None and `scalars.Timestamp`; keys are always strings.
    `problems` are those that did not stop the parser.
    """

    file: str
    value: Any
    location: Location
    lines: Lines
    problems: tuple[Problem, ...]

    def position(self, path: FieldPath) -> tuple[int, int]:
        """The line and column of the value at a path, or of its closest ancestor that exists."""
        return self.lines.position(offset_of(self._locate(path)))

    def key_position(self, path: FieldPath) -> tuple[int, int]:
        """The line and column of the last key of a path."""
        children = children_of(self._locate(path[:-1]))
        if isinstance(children, dict) and path[-1] in children:
            return self.lines.position(children[str(path[-1])][0])
        return self.position(path)

    def raw(self, path: FieldPath) -> str | None:
        """The source text of the value at a path, if it is a plain scalar that YAML does not read as a string."""
        children = children_of(self._locate(path))
        return children if isinstance(children, str) else None

    def problem(self, path: FieldPath, message: str, hint: str) -> Problem:
        """A problem with the value at a path."""
        return Problem(self.file, *self.position(path), format_path(path), message, hint)

    def key_problem(self, path: FieldPath, message: str, hint: str) -> Problem:
        """A problem with the last key of a path."""
        return Problem(self.file, *self.key_position(path), format_path(path), message, hint)

    def _locate(self, path: FieldPath) -> Location:
        location = self.location
        for step in path:
            children = children_of(location)
            if isinstance(children, dict) and step in children:
                location = children[str(step)][1]
            elif isinstance(children, list) and isinstance(step, int) and step < len(children):
                location = children[step]
            else:
                break
        return location


def offset_of(location: Location) -> int:
    """The offset of a value, in characters from the start of the text."""
    return location if isinstance(location, int) else location[0]


def children_of(location: Location) -> str | list[Any] | dict[str, Any] | None:
    """What a location holds besides its offset, if anything."""
    return None if isinstance(location, int) else location[1]
