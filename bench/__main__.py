"""The benchmark's command line: `python -m bench`."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench import report, servers
from bench.errors import BenchError
from bench.kit import Kit
from bench.measurement import measure
from bench.rows import ROWS
from bench.sizes import FULL, TINY, Sizes

_RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Measure, print the table, and write the results. The exit code is 1 if a program failed."""
    signal.signal(signal.SIGTERM, lambda _signum, _frame: sys.exit(143))  # so that servers and directories are removed
    options = _arguments()
    rows = [row for row in ROWS if not options.only or row.name in options.only]
    try:
        kit = Kit(_sizes(options), options.folder, _server(options.server))
        outcomes = measure(kit, rows, _log)
        text = report.document(outcomes, kit, tiny=options.tiny)
    except BenchError as error:
        _log(f"bench: {error}")
        return 1
    sys.stdout.write(f"{text}\n")
    complete = not options.tiny and len(rows) == len(ROWS)
    path = options.output or (_RESULTS if complete else None)
    if path is not None:
        report.write(text, path)
        _log(f"written: {path.name}")
    return 0


def _arguments() -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="bench", description="Measure pixxel-runner against common alternatives.")
    parser.add_argument("--tiny", action="store_true", help="use tiny sizes, to check only that the benchmark works")
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="ROW",
        help=f"measure this row; repeatable: {', '.join(names)}",
    )
    parser.add_argument("--repeat", type=_positive, metavar="N", help="turns per program")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="jobs in all manifests but the largest")
    parser.add_argument("--many", type=_positive, metavar="N", help="jobs in the largest manifest")
    parser.add_argument("--server", choices=("auto", "nginx", "asyncio"), default="auto", help="fast server to use")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="parent of temporary directories; should be on a disk",
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="file for the results (default: bench/RESULTS.md if all rows are measured)",
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = TINY if options.tiny else FULL
    if options.repeat:
        sizes = replace(sizes, turns=options.repeat, turns_of_many=options.repeat, turns_of_start=options.repeat)
    return replace(sizes, jobs=options.jobs or sizes.jobs, many=options.many or sizes.many)


def _server(choice: str) -> str | None:
    path = None if choice == "asyncio" else servers.nginx()
    if choice == "nginx" and path is None:
        raise BenchError("no nginx with the module stub_status is installed")
    return path


def _log(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
