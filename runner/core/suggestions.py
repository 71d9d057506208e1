"""Suggestions for a misspelled word: one rule for manifest keys, commands, values and names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_CUTOFF = 0.7  # difflib's similarity, up to 1: matches `daily` to `day`, but not `owner` to `once_per`
_MAX_LENGTH = 100  # characters; comparing more is slow, and a much longer word matches nothing


def closest_matches(word: str, choices: Iterable[str], limit: int = 1, cutoff: float = _CUTOFF) -> list[str]:
    """Return up to `limit` choices that are similar to a word, best first, ignoring case."""
    by_folded: dict[str, list[str]] = {}
    for choice in dict.fromkeys(choices):
        by_folded.setdefault(choice.casefold(), []).append(choice)
    if word.casefold() in by_folded:
        return by_folded[word.casefold()][:limit]
    matches = difflib.get_close_matches(word[:_MAX_LENGTH].casefold(), by_folded, n=limit, cutoff=cutoff)
    return [choice for match in matches for choice in by_folded[match]][:limit]
