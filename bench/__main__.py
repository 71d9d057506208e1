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
    """Measure, print the table, and write the results. The exit code is 1 when a program failed."""
    signal.signal(signal.SIGTERM, lambda _signum, _frame: sys.exit(143))  # servers and folders are to go as well
    given = _arguments()
    rows = [row for row in ROWS if not given.only or row.name in given.only]
    try:
        kit = Kit(_sizes(given), given.folder, _server(given.server))
        outcomes = measure(kit, rows, _say)
        text = report.document(outcomes, kit, tiny=given.tiny)
    except BenchError as error:
        _say(f"bench: {error}")
        return 1
    sys.stdout.write(f"{text}\n")
    whole = not given.tiny and len(rows) == len(ROWS)
    path = given.output or (_RESULTS if whole else None)
    if path is not None:
        report.write(text, path)
        _say(f"written: {path.name}")
    return 0


def _arguments() -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="bench", description="Measure pixxel-runner against what else there is.")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that the benchmark works")
    parser.add_argument(
        "--only",
        action="append",
        choices=names,
        metavar="ROW",
        help=f"measure this row; repeatable: {', '.join(names)}",
    )
    parser.add_argument("--repeat", type=_positive, metavar="N", help="turns that each program has")
    parser.add_argument("--jobs", type=_positive, metavar="N", help="jobs of a manifest that is not the largest")
    parser.add_argument("--many", type=_positive, metavar="N", help="jobs of the largest manifest")
    parser.add_argument("--server", choices=("auto", "nginx", "asyncio"), default="auto", help="which fast server")
    parser.add_argument(
        "--folder", type=Path, default=Path(tempfile.gettempdir()), help="where temporary folders are made; on a disk"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="where the results go; bench/RESULTS.md when all rows are measured"
    )
    return parser.parse_args()


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _sizes(given: argparse.Namespace) -> Sizes:
    sizes = TINY if given.tiny else FULL
    if given.repeat:
        sizes = replace(sizes, turns=given.repeat, turns_of_many=given.repeat, turns_of_start=given.repeat)
    return replace(sizes, jobs=given.jobs or sizes.jobs, many=given.many or sizes.many)


def _server(choice: str) -> str | None:
    path = None if choice == "asyncio" else servers.nginx()
    if choice == "nginx" and path is None:
        raise BenchError("there is no nginx with the module stub_status")
    return path


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
