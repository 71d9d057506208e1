"""What ends the benchmark: a figure that could not be had honestly is not made up."""

from __future__ import annotations


class BenchError(Exception):
    """A program failed, did less than it was asked, or can't be run here. The message is for a person."""
