"""A bare urllib3 pool with threads: POSTs each path and checks the status. No validation, ledger or results.

This is the fastest that threads and urllib3 get: one shared pool, and the paths are divided among the threads in
advance, so that no thread waits for another.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import urllib3

_OK = 200


def main(key: str, urls: str, threads: str) -> int:
    """Send all requests. The exit code is 0 if every response has status 200."""
    parts = [urlsplit(url) for url in Path(urls).read_text(encoding="ascii").split()]
    targets = [f"{part.path}?{part.query}" for part in parts]
    count = int(threads)
    pool = urllib3.HTTPConnectionPool(str(parts[0].hostname), parts[0].port, maxsize=count)
    headers = {"Authorization": key, "Accept": "application/json"}

    def send(share: list[str]) -> int:
        return sum(pool.urlopen("POST", path, headers=headers, retries=False).status == _OK for path in share)

    with ThreadPoolExecutor(count) as executor:
        created = sum(executor.map(send, [targets[start::count] for start in range(count)]))
    return 0 if created == len(targets) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
