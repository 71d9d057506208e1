"""The Pixxel API: one method per endpoint, a deadline for each request, and the cause when no response came.

urllib3's own retries, redirects and proxy lookup are off, as they would send a POST again or elsewhere. Added are a
timeout for the whole exchange (urllib3's starts again with each read) and a bound on the body.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Self, cast
from urllib.parse import quote

import urllib3
from urllib3 import exceptions

from runner.client.endpoint import Endpoint
from runner.client.exchange import Exchange
from runner.client.headers import USER_AGENT
from runner.client.redaction import Redactor
from runner.client.response import Cause, ExchangeResult, NoResponse
from runner.client.transport import MAX_BODY_SIZE, POOL_CLASSES, BodyTooLargeError, Pool
from runner.core.errors import ThreadLimitError

_TICK = 0.1  # seconds between checks of the deadlines


class ReadOnlyClient:
    """The API at one endpoint, without the request that creates a job.

    Thread-safe; `close` closes its connections. No request raises: what goes wrong is in its result. The constructor
    raises ThreadLimitError when the thread that watches the deadlines cannot be started.
    """

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        self._endpoint = endpoint
        self._pools = _pool_manager(endpoint, connections)
        self._pool = cast("Pool", self._pools.connection_from_url(endpoint.base_url))
        self._origin, self._headers = _request_parts(endpoint)
        credentials = endpoint.proxy.credentials if endpoint.proxy is not None else ""
        sent = (endpoint.key.reveal(), _basic(credentials))
        self._sent = Redactor(sent)
        # The proxy's bare password is not redacted in responses: no server sees it, and a job may contain such a word.
        self._secrets = Redactor((*sent, credentials.partition(":")[2]))
        self._active: set[Exchange] = set()
        self._closed = threading.Event()
        self._aborted = False  # permanently: later exchanges are aborted as they start
        self._watch = threading.Thread(target=self._watch_deadlines, name="deadlines", daemon=True)
        try:
            self._watch.start()
        except RuntimeError:  # a request without a deadline could block the run forever
            raise ThreadLimitError from None

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""
        return self._endpoint.key.has_bearer_prefix

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """`GET /v0/workflows/{workflow_id}/jobs`."""
        return self._send("GET", f"/v0/workflows/{_quote(workflow_id)}/jobs", exchange)

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:
        """`GET /v0/workflows/{workflow_id}/jobs/{job_id}`."""
        return self._send("GET", f"/v0/workflows/{_quote(workflow_id)}/jobs/{_quote(job_id)}", exchange)

    def get_workflow(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
        """`GET /v0/workflows/{workflow_id}?project_id=…`."""
        return self._send("GET", f"/v0/workflows/{_quote(workflow_id)}?project_id={_quote(project_id)}", exchange)

    def get_estimate(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """`GET /v0/workflows/{workflow_id}/estimate`."""
        return self._send("GET", f"/v0/workflows/{_quote(workflow_id)}/estimate", exchange)

    def abort_all(self) -> None:
        """Abort every exchange, now and later, as after an interrupt. Safe in a signal handler."""
        self._aborted = True
        for exchange in self._active.copy():
            exchange.abort("interrupted")

    def close(self) -> None:
        """Close the connections and stop watching deadlines."""
        self._closed.set()
        self._watch.join()
        self._pools.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, target: str, exchange: Exchange) -> ExchangeResult:
        # A cached list would lack the latest jobs.
        header = "Content-Length: 0" if method == "POST" else "Cache-Control: no-cache"
        request = f"{method} {self._origin}{target} HTTP/1.1\r\n{self._headers}{header}\r\n\r\n".encode()
        exchange.start()
        self._active.add(exchange)
        if self._aborted:
            exchange.abort("interrupted")
        try:
            response = self._pool.send(request, exchange)
        except Exception as error:  # noqa: BLE001 - whatever it is, `written_at` alone says whether the job may exist
            failure = explain_failure(error, exchange)  # may quote what the server or the proxy sent
            return replace(failure, detail=self._secrets.redact_text(failure.detail))
        finally:
            self._active.discard(exchange)
        headers = {name: self._sent.redact_text(value) for name, value in response.headers.items()}
        return replace(response, headers=headers, body=self._sent.redact_bytes(response.body))

    def _watch_deadlines(self) -> None:
        while not self._closed.wait(_TICK):
            for exchange in self._active.copy():
                # Repeated with each tick: a TLS handshake has no socket yet that could be shut down.
                if exchange.is_overdue():
                    exchange.abort("timeout")


class ApiClient(ReadOnlyClient):
    """The API at one endpoint, with the one request that costs money."""

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
        """`POST /v0/workflows/{workflow_id}/jobs?project_id=…`, sent once, without a body."""
        target = f"/v0/workflows/{_quote(workflow_id)}/jobs?project_id={_quote(project_id)}"
        return self._send("POST", target, exchange)


def _quote(identifier: str) -> str:
    """Percent-encode an id for one segment of a path, or one value of a query."""
    return quote(identifier, safe="", errors="surrogatepass")


def _request_parts(endpoint: Endpoint) -> tuple[str, str]:
    """Return what precedes the path of each request, and the headers of each request.

    A proxy that does not tunnel is sent the complete URL (RFC 9112, section 3.2.2).
    """
    scheme, _, host = endpoint.base_url.partition("://")
    headers = {
        "Host": host,
        "Accept-Encoding": "identity",
        "Authorization": endpoint.key.reveal(),
        "Accept": "application/json",
        "User-Agent": USER_AGENT,
    }
    forwarder = endpoint.proxy if scheme == "http" else None
    if forwarder is not None and forwarder.credentials:
        headers["Proxy-Authorization"] = f"Basic {_basic(forwarder.credentials)}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return "" if forwarder is None else endpoint.base_url, lines


def _pool_manager(endpoint: Endpoint, connections: int) -> urllib3.PoolManager:
    options: dict[str, Any] = {"num_pools": 2, "maxsize": connections, "block": False}
    if endpoint.base_url.startswith("https:"):
        options["ssl_context"] = endpoint.ssl_context or ssl.create_default_context(cafile=endpoint.ca_bundle)
    proxy = endpoint.proxy
    if proxy is None:
        pools = urllib3.PoolManager(**options)
    else:
        headers = {"proxy-authorization": f"Basic {_basic(proxy.credentials)}"} if proxy.credentials else None
        context = options.get("ssl_context") if proxy.url.startswith("https:") else None
        pools = urllib3.ProxyManager(proxy.url, proxy_headers=headers, proxy_ssl_context=context, **options)
    pools.pool_classes_by_scheme = POOL_CLASSES
    return pools


def _basic(credentials: str) -> str:
    """Encode credentials in UTF-8 (RFC 7617); urllib3's own helper only supports Latin-1."""
    return b64encode(credentials.encode()).decode("ascii")


# The first match counts: the classes of exceptions, whether it applies before or after a byte was written (None: both),
# the cause and its message. `{reason}` is the message of the innermost exception.
_CAUSES: tuple[tuple[tuple[type[BaseException], ...], bool | None, Cause, str], ...] = (
    ((BodyTooLargeError,), None, "too_large", f"the response is larger than {MAX_BODY_SIZE // 2**20} MiB"),
    ((ssl.SSLCertVerificationError,), None, "certificate", "the {peer}'s certificate is not trusted: {reason}"),
    ((exceptions.NameResolutionError,), None, "resolve", "the host name cannot be resolved: {reason}"),
    ((exceptions.ProxyError,), False, "proxy", "cannot connect through the proxy: {reason}"),
    ((exceptions.NewConnectionError,), False, "connect", "cannot connect: {reason}"),  # a kind of timeout in urllib3
    ((exceptions.TimeoutError, TimeoutError), False, "timeout", "timed out connecting"),
    ((exceptions.TimeoutError, TimeoutError), True, "timeout", "timed out waiting for a response"),
    ((ssl.SSLError,), False, "tls", "the TLS handshake failed: {reason}"),
    ((Exception,), False, "connect", "cannot connect: {reason}"),
    (
        (http.client.IncompleteRead, exceptions.InvalidChunkLength),
        True,
        "truncated",
        "the connection was closed in the middle of the response",
    ),
    ((ConnectionError, ssl.SSLError), True, "closed", "the connection was closed before the response: {reason}"),
    ((http.client.HTTPException, exceptions.DecodeError), True, "garbage", "the response is not valid HTTP: {reason}"),
    ((exceptions.ProtocolError,), True, "truncated", "the response is incomplete: {reason}"),
    ((exceptions.HTTPError,), True, "garbage", "the response is not valid HTTP: {reason}"),
    ((Exception,), True, "broken", "{reason}"),
)


def explain_failure(error: Exception, exchange: Exchange) -> NoResponse:
    """Return why an exchange that raised an exception has no response."""
    written = exchange.written_at is not None
    if exchange.aborted_by == "interrupted":
        return NoResponse.interrupted(written=written)
    if exchange.aborted_by == "timeout":
        return NoResponse("timeout", written, f"no complete response within {exchange.timeout:g} s")
    chain = list(_chain(error))
    peer = "proxy" if any(isinstance(link, exceptions.ProxyError) for link in chain) else "server"
    for classes, when, cause, message in _CAUSES:
        if when in (None, written) and any(isinstance(link, classes) for link in chain):
            return NoResponse(cause, written, message.format(reason=_message(chain[-1]), peer=peer))
    return NoResponse("broken", written, _message(chain[-1]))


def _message(error: BaseException) -> str:
    for attribute in ("verify_message", "strerror"):
        message = getattr(error, attribute, None)
        if isinstance(message, str) and message:
            return message
    return str(error) or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and its causes, outermost first; urllib3 also stores causes in `reason` and in arguments."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        inner = [part for part in (getattr(link, "reason", None), *link.args) if isinstance(part, BaseException)]
        link = inner[0] if inner else link.__cause__ or link.__context__
