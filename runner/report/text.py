"""Moved to runner.text."""

from runner.text import clusters, cut, visible, width

__all__ = ["clusters", "cut", "visible", "width"]
