"""What was probably meant by a word that is not known: one rule for keys, commands, values and names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_NEAR = 0.7  # of 1, as difflib measures: takes `daily` for `day`, but not `owner` for `once_per`
_MOST_LOOKED_AT = 100  # characters: each costs time with each choice, and what is much longer is near to none


def closest_matches(word: str, choices: Iterable[str], most: int = 1) -> list[str]:
    """The choices that a word is near to, the nearest first, at most so many. Upper and lower case are one."""
    folded: dict[str, list[str]] = {}
    for choice in dict.fromkeys(choices):
        folded.setdefault(choice.casefold(), []).append(choice)
    if word.casefold() in folded:
        return folded[word.casefold()][:most]
    matches = difflib.get_close_matches(word[:_MOST_LOOKED_AT].casefold(), folded, n=most, cutoff=_NEAR)
    return [choice for match in matches for choice in folded[match]][:most]
