"""Reads the lock files in requirements/: pinned versions, markers, hashes, and what requires each package."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support.pages import CHECKOUT

DIRECTORY = CHECKOUT / "requirements"

_HASH = re.compile(r"    --hash=sha256:([0-9a-f]{64})")
_VIA = re.compile(r"    #   (?:via )?(\S.*)|    # via (\S.*)")


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned release. `via` lists what requires it: other packages, or a dependency group of pyproject.toml."""

    requirement: Requirement
    hashes: tuple[str, ...]
    via: frozenset[str]

    @property
    def name(self) -> str:
        """The normalized name of the package."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The pinned version; fails unless there is exactly one `==` specifier."""
        [specifier] = self.requirement.specifier
        assert specifier.operator == "==", self.requirement
        return specifier.version

    @property
    def applies(self) -> bool:
        """Whether its marker matches this environment."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def read(name: str) -> dict[str, Pin]:
    """The pins of a lock file, by name. Fails on a line that it does not understand."""
    text = (DIRECTORY / name).read_text(encoding="utf-8")
    pins: dict[str, Pin] = {}
    for entry in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        if not entry or entry.startswith("#"):
            continue
        first, *rest = entry.rstrip("\n").split("\n")
        hashes = [match[1] for line in rest if (match := _HASH.fullmatch(line.removesuffix(" \\")))]
        via = [match[1] or match[2] for line in rest if (match := _VIA.fullmatch(line))]
        unknown = [line for line in rest if not _HASH.fullmatch(line.removesuffix(" \\")) and not _VIA.fullmatch(line)]
        assert unknown in ([], ["    # via"]), unknown
        pin = Pin(Requirement(first.removesuffix("\\")), tuple(hashes), frozenset(via))
        assert pin.name not in pins, pin
        pins[pin.name] = pin
    return pins
