"""Reads the locks in requirements/: what is pinned, under which condition, by which hashes, and for whom."""

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
    """One release of a package. `via` names who asks for it: other packages, or a group of pyproject.toml."""

    requirement: Requirement
    hashes: tuple[str, ...]
    via: frozenset[str]

    @property
    def name(self) -> str:
        """The package's name, as names are compared."""
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        """The version, and nothing but one."""
        [one] = self.requirement.specifier
        assert one.operator == "==", self.requirement
        return one.version

    @property
    def applies(self) -> bool:
        """Whether it is installed here."""
        return self.requirement.marker is None or self.requirement.marker.evaluate()


def read(name: str) -> dict[str, Pin]:
    """The pins of a lock by their names. Every line is understood, or it is an error."""
    text = (DIRECTORY / name).read_text(encoding="utf-8")
    pins: dict[str, Pin] = {}
    for entry in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        if not entry or entry.startswith("#"):
            continue
        first, *rest = entry.rstrip("\n").split("\n")
        hashes = [found[1] for line in rest if (found := _HASH.fullmatch(line.removesuffix(" \\")))]
        via = [found[1] or found[2] for line in rest if (found := _VIA.fullmatch(line))]
        strange = [line for line in rest if not _HASH.fullmatch(line.removesuffix(" \\")) and not _VIA.fullmatch(line)]
        assert strange in ([], ["    # via"]), strange
        pin = Pin(Requirement(first.removesuffix("\\")), tuple(hashes), frozenset(via))
        assert pin.name not in pins, pin
        pins[pin.name] = pin
    return pins
