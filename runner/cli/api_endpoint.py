"""Where the API is, for a command: with the person's key, which is taken from where the person has it."""

from __future__ import annotations

import os
from pathlib import Path

from runner.cli import console
from runner.client.endpoint import Endpoint, find_proxy, load_api_key, load_ca_bundle, parse_base_url


def real(base_url: str, key_file: Path | None, ca_bundle: str | None, *, allow_http: bool) -> Endpoint:
    """The API at a base URL. Warns of a key file that others can read.

    Raises:
        UsageError: the URL, the key, the CA bundle or the proxy cannot be used.
        RefusedError: there is no key.
    """
    origin = parse_base_url(base_url, allow_http=allow_http)
    trust = load_ca_bundle(ca_bundle)
    key, warnings = load_api_key(os.environ.get("PIXXEL_API_KEY"), key_file)
    for warning in warnings:
        console.warn(warning)
    return Endpoint(origin, key, ca_bundle, find_proxy(origin), trust)
