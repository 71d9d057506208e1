"""The error that ends the benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """A program failed, did not send all jobs, or cannot be run here. The message is for the user."""
