"""Fixtures that several test files share."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from support import certs

# How many examples a property test tries that does not say so itself: CI has a time limit, a person has not.
if examples := os.environ.get("PIXXEL_TEST_EXAMPLES"):
    settings.register_profile("ci", settings.default, max_examples=int(examples))
    settings.load_profile("ci")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> certs.Certificates:
    return certs.make(tmp_path_factory.mktemp("certificates"))
