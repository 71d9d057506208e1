"""Where the API is, for a command: the real one with the person's key, or a sandbox inside this process."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runner import folder, settings
from runner.cli import console
from runner.model import Manifest
from runner.sandbox.server import Sandbox
from runner.sandbox.store import JobFile
from runner.sandbox.world import World


def real(base_url: str, key_file: Path | None, ca_bundle: str | None, *, allow_http: bool) -> settings.Endpoint:
    """The API at a base URL. Warns of a key file that others can read.

    Raises:
        UsageError: the URL, the key, the CA bundle or the proxy cannot be used.
        RefusedError: there is no key.
    """
    origin = settings.base_url(base_url, allow_http=allow_http)
    settings.check_ca_bundle(ca_bundle)
    key, warnings = settings.api_key(os.environ.get("PIXXEL_API_KEY"), key_file)
    for warning in warnings:
        console.warn(warning)
    return settings.Endpoint(origin, key, ca_bundle, settings.proxy_for(origin))


@contextmanager
def sandbox(manifest: Manifest) -> Iterator[settings.Endpoint]:
    """A sandbox beside the manifest, which knows the manifest's own workflows and keeps its jobs.

    Raises:
        RefusedError: its folder cannot be made or read.
    """
    home = folder.beside(manifest.path)
    folder.make(home)
    key = secrets.token_hex(16)
    with World(store=JobFile(home / "sandbox")) as world:
        world.admit(job.pair for job in manifest.jobs)
        with Sandbox(world, key=key) as server:
            yield settings.Endpoint(server.base_url, settings.ApiKey(key))
