"""A pseudo-terminal in place of a standard stream of the test."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest


class Terminal:
    """A pseudo-terminal, and what was written to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._ours, theirs = os.openpty()
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")

    def replace_stream(self, name: str) -> None:
        """Replace a standard stream; in the test itself, as pytest sets its own after the fixtures."""
        self._monkeypatch.setattr(sys, name, self.stream)

    def read(self) -> str:
        """Close it, and return all that was written."""
        self.stream.close()
        output = bytearray()
        try:
            while data := os.read(self._ours, 65_536):
                output += data
        except OSError as error:  # how Linux reports that the other side is closed
            assert error.errno == errno.EIO  # noqa: PT017 - an end of file, not a failure
        return output.decode()

    def hang_up(self) -> None:
        """Hang up, as on a lost SSH session: each write fails with EIO from now on."""
        os.close(self._ours)
        self._ours = -1

    def close(self) -> None:
        close(self.stream)
        if self._ours >= 0:
            os.close(self._ours)


def close(stream: io.TextIOWrapper) -> None:
    """Close a stream whose buffer may not be writable any more."""
    try:
        stream.close()
    except OSError as error:
        assert error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO)  # noqa: PT017 - ways to lose a stream
