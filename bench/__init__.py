"""The benchmark of pixxel-runner against common alternatives: `python -m bench --help`."""
