"""The requests library with threads, one session each: POSTs each URL and checks the status, nothing else."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

_OK = 200
_TIMEOUT = 30.0  # seconds


def main(key: str, urls: str, threads: str) -> int:
    """Send all requests. The exit code is 0 if every response has status 200."""
    targets = Path(urls).read_text(encoding="ascii").split()
    count = int(threads)

    def send(share: list[str]) -> int:
        with requests.Session() as session:
            session.headers["Authorization"] = key
            return sum(session.post(url, timeout=_TIMEOUT).status_code == _OK for url in share)

    with ThreadPoolExecutor(count) as executor:
        created = sum(executor.map(send, [targets[start::count] for start in range(count)]))
    return 0 if created == len(targets) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
