"""Certificates for TLS on loopback: a valid one, and invalid ones of each kind."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """`bundle` is the path of the CA certificate that signed all of these except `self_signed`."""

    bundle: str
    good: ssl.SSLContext
    wrong_host: ssl.SSLContext
    expired: ssl.SSLContext
    self_signed: ssl.SSLContext


def make(directory: Path) -> Certificates:
    """Create a CA and its certificates."""
    ca, other_ca = trustme.CA(), trustme.CA()
    bundle = directory / "ca.pem"
    ca.cert_pem.write_to_path(bundle)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return Certificates(
        str(bundle),
        good=_server_context(ca.issue_cert("localhost", "127.0.0.1")),
        wrong_host=_server_context(ca.issue_cert("elsewhere.example")),
        expired=_server_context(
            ca.issue_cert("localhost", not_before=yesterday - timedelta(days=1), not_after=yesterday)
        ),
        self_signed=_server_context(other_ca.issue_cert("localhost")),
    )


def _server_context(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context
