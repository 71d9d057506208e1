"""A sandbox beside a manifest, which knows the manifest's own workflows and keeps its jobs: for rehearsals."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from runner.client.endpoint import ApiKey, Endpoint
from runner.core.models import Manifest
from runner.core.state_dir import create_state_dir, locate_state_dir
from runner.sandbox.backend import Backend
from runner.sandbox.server import Sandbox
from runner.sandbox.store import JobFile


@contextmanager
def serve(manifest: Manifest) -> Iterator[Endpoint]:
    """The sandbox, reachable while the context lasts.

    Raises:
        RefusedError: its folder cannot be made or read.
    """
    home = locate_state_dir(manifest.path)
    create_state_dir(home)
    key = secrets.token_hex(16)
    with Backend(store=JobFile(home / "sandbox")) as world:
        world.add_pairs(job.pair for job in manifest.jobs)
        with Sandbox(world, key=key) as server:
            yield Endpoint(server.base_url, ApiKey(key))
