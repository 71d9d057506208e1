"""Where the API is, for a command: with the person's key, which is taken from where the person has it."""

from __future__ import annotations

import os
from pathlib import Path

from runner.cli import console
from runner.client import endpoint


def real(base_url: str, key_file: Path | None, ca_bundle: str | None, *, allow_http: bool) -> endpoint.Endpoint:
    """The API at a base URL. Warns of a key file that others can read.

    Raises:
        UsageError: the URL, the key, the CA bundle or the proxy cannot be used.
        RefusedError: there is no key.
    """
    origin = endpoint.base_url(base_url, allow_http=allow_http)
    trust = endpoint.trust(ca_bundle)
    key, warnings = endpoint.api_key(os.environ.get("PIXXEL_API_KEY"), key_file)
    for warning in warnings:
        console.warn(warning)
    return endpoint.Endpoint(origin, key, ca_bundle, endpoint.proxy_for(origin), trust)
