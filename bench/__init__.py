"""The benchmark: what pixxel-runner costs, against what a person would use instead. `python -m bench --help`."""
