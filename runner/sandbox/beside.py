"""A sandbox beside a manifest, which knows the manifest's own workflows and keeps its jobs: for rehearsals."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from runner import folder, settings
from runner.model import Manifest
from runner.sandbox.server import Sandbox
from runner.sandbox.store import JobFile
from runner.sandbox.world import World


@contextmanager
def serving(manifest: Manifest) -> Iterator[settings.Endpoint]:
    """The sandbox, reachable while the context lasts.

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
