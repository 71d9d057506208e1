"""Fixtures that several test files share."""

from __future__ import annotations

import pytest
from support import certs


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> certs.Certificates:
    return certs.make(tmp_path_factory.mktemp("certificates"))
