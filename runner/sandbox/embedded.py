"""A sandbox in this process that has the workflows of a manifest and saves its jobs next to it."""

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
    """Run a sandbox for a manifest while the context lasts.

    Raises:
        RefusedError: its directory cannot be created or read.
    """
    directory = locate_state_dir(manifest.path)
    create_state_dir(directory)
    key = secrets.token_hex(16)
    with Backend(store=JobFile(directory / "sandbox")) as backend:
        backend.add_pairs(job.pair for job in manifest.jobs)
        with Sandbox(backend, key=key) as server:
            yield Endpoint(server.base_url, ApiKey(key))
