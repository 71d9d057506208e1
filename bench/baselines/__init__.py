"""Baseline scripts that only send the requests. Each runs as its own program."""
