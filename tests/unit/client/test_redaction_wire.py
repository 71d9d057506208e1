"""Where the key goes on the wire: to a server that is trusted at each connection, and to no proxy, whatever it says."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trustme
from support.canary import KEY
from support.certs import Certificates
from support.wire import Reply, Script, Stall, Tunnel, WireServer, created, reply

from runner.client.api import ApiClient
from runner.client.endpoint import ApiKey, Endpoint, Proxy
from runner.client.exchange import Exchange
from runner.client.response import ExchangeResult, NoResponse, Response

SHORT = 0.3  # seconds


@contextmanager
def api_at(url: str, ca_bundle: str, proxy: Proxy | None = None) -> Iterator[ApiClient]:
    with ApiClient(Endpoint(url, ApiKey(KEY), ca_bundle, proxy), connections=2) as api:
        yield api


def unsent(result: ExchangeResult, cause: str | None = None) -> str:
    """Why nothing was sent."""
    assert isinstance(result, NoResponse)
    assert not result.written
    assert cause in (None, result.cause)
    return result.detail


# A certificate that goes bad.


def test_a_certificate_that_becomes_invalid_between_two_connections() -> None:
    ours, stranger = trustme.CA(), trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.issue_cert("localhost").configure_cert(serving)
    answer = reply(200, b'{"id": "job-1"}', [("Connection", "close")], creates=True)
    with (
        ours.cert_pem.tempfile() as bundle,
        WireServer(answer, tls=serving) as server,
        api_at(server.url, bundle) as api,
    ):
        assert isinstance(api.create_job("w", "p", Exchange(10.0)), Response)
        stranger.issue_cert("localhost").configure_cert(serving)
        unsent(api.create_job("w", "p", Exchange(10.0)), "certificate")
        assert (len(server.requests), server.log.connections) == (1, 2)


# A proxy that lies.

OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"
LIE = created("job-that-is-a-lie").data
LIES: dict[str, tuple[Script, str]] = {
    "plain http in the tunnel": (Reply(OPEN + LIE), ""),
    "an answer for a tunnel": (Reply(LIE), ""),
    "garbage in the tunnel": (Reply(OPEN + b"\x16\x03\x01\xff\xff" * 9), ""),
    "an end in the tunnel": (Reply(OPEN, end=True), ""),
    "silence in the tunnel": (Stall(threading.Event(), before=OPEN), "timeout"),
    "a redirect": (reply(302, headers=[("Location", "https://elsewhere.example/")]), "proxy"),
    "another success": (reply(201, b'{"id": "job-1"}'), "proxy"),
    "it goes on": (Reply(b"HTTP/1.1 100 Continue\r\n\r\n" + OPEN), "proxy"),
    "it switches": (Reply(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "proxy"),
    "credentials again": (reply(407, headers=[("Proxy-Authenticate", 'Basic realm="API key, please"')]), "proxy"),
    "no access at all": (reply(401, headers=[("WWW-Authenticate", "Basic")]), "proxy"),
}


@pytest.mark.parametrize(("script", "cause"), LIES.values(), ids=LIES)
def test_a_lying_proxy_gets_no_key_and_creates_no_job(certificates: Certificates, script: Script, cause: str) -> None:
    before = time.monotonic()
    with (
        WireServer(script) as proxy,
        api_at("https://localhost:1", certificates.bundle, Proxy(proxy.url, "user:pass-word")) as api,
    ):
        detail = unsent(api.create_job("w", "p", Exchange(SHORT)), cause or None)
    assert time.monotonic() - before < SHORT + 3
    assert "pass-word" not in detail
    assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert KEY not in repr(proxy.requests)


@pytest.mark.parametrize("wrong", ["self_signed", "expired", "wrong_host"])
def test_an_intercepting_proxy_is_not_trusted(certificates: Certificates, wrong: str) -> None:
    with (
        WireServer(tls=getattr(certificates, wrong)) as middle,
        WireServer(Tunnel(middle.port)) as proxy,
        api_at("https://localhost:1", certificates.bundle, Proxy(proxy.url)) as api,
    ):
        assert "server's certificate" in unsent(api.create_job("w", "p", Exchange(10.0)), "certificate")
        assert middle.requests == []


@pytest.mark.parametrize("wrong", ["self_signed", "expired", "wrong_host"])
def test_a_proxy_with_an_untrusted_certificate_is_sent_nothing(certificates: Certificates, wrong: str) -> None:
    with (
        WireServer(tls=getattr(certificates, wrong)) as proxy,
        api_at("https://localhost:1", certificates.bundle, Proxy(proxy.url, "user:pass-word")) as api,
    ):
        assert "proxy's certificate" in unsent(api.create_job("w", "p", Exchange(10.0)), "certificate")
        assert proxy.requests == []  # not its credentials either
