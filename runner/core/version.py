"""The version of this program: the one place that says it, which the packaging reads too."""

VERSION = "0.1.0"  # importlib.metadata would read it from the installation, and take as long to import as click
