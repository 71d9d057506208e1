"""Runs the fuzzers, each in its own process: `tox -e fuzz -- --seconds 240 manifests`.

They are coverage-guided (atheris), start from the cases of the tests, and stop at the first failure, which they write
to a file. `python -m fuzz.run --example FILE manifests` reproduces it. Failures become examples in
`tests/unit/**/test_fuzz_*.py`, which run the same checks on random examples.
"""

from __future__ import annotations

import argparse
import importlib
import resource
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NAMES = ("manifests", "responses", "ledgers")
_MEMORY = 1536  # MiB of memory per process; the fuzzer's own tables take a few hundred
_HANG = 10  # seconds of wall-clock time; each check has a stricter limit on CPU time


def main() -> int:
    options = _options()
    if options.inner:
        _fuzz(options.names[0], options.seconds, options.seed, Path(options.inner))
    if options.example:
        _load_target(options.names[0]).check(options.example.read_bytes())
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        return max([_run_target(name, options.seconds, options.seed, Path(scratch)) for name in options.names or NAMES])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], help="fuzzers to run (default: all)")
    parser.add_argument("--seconds", type=int, default=60, help="duration of each fuzzer")
    parser.add_argument("--seed", type=int, default=1 + secrets.randbelow(2**31), help="random seed")
    parser.add_argument("--example", type=Path, help="check only the contents of this file")
    parser.add_argument("--inner", help=argparse.SUPPRESS)
    return parser.parse_args()


def _load_target(name: str) -> Any:
    return importlib.import_module(f"fuzz.{name}")


def _run_target(name: str, seconds: int, seed: int, scratch: Path) -> int:
    corpus = scratch / name
    corpus.mkdir()
    given = ["--inner", str(corpus), "--seconds", str(seconds), "--seed", str(seed)]
    command = [sys.executable, "-P", "-m", "fuzz.run", *given, name]
    sys.stdout.write(f"{name}, --seed {seed}:\n")
    sys.stdout.flush()
    return subprocess.run(command, check=False).returncode


def _fuzz(name: str, seconds: int, seed: int, corpus: Path) -> None:
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["runner", "yaml"]):
        target = _load_target(name)
    for number, example in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(example)
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY * 2**20 * 4, _MEMORY * 2**20 * 4))
    flags = {
        "max_len": target.LONGEST,
        "max_total_time": seconds,
        "seed": seed,
        "timeout": _HANG,
        "rss_limit_mb": _MEMORY,
        "print_final_stats": 1,
        "artifact_prefix": f"{name}-",
    }
    atheris.Setup([sys.argv[0], *(f"-{flag}={value}" for flag, value in flags.items()), str(corpus)], target.check)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
