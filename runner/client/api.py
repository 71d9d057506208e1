"""The Pixxel API over a urllib3 pool: one method per endpoint, and for each exchange whether a byte of it left.

Everything that urllib3 would do on its own with a POST is off: retries, redirects, and finding a proxy. What it does
not do is added: a deadline for the whole exchange (its timeouts start again with each read), a bound on the body.
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
from urllib3 import exceptions as faults

from runner.client.endpoint import Endpoint, Proxy
from runner.client.exchange import Exchange
from runner.client.headers import USER_AGENT
from runner.client.redaction import Redactor
from runner.client.response import Cause, ExchangeResult, NoResponse
from runner.client.transport import MAX_BODY_SIZE, POOL_CLASSES, BodyTooLargeError, Pool
from runner.core.errors import ThreadLimitError

_TICK = 0.1  # seconds between looks at the deadlines


class ReadOnlyClient:
    """The API at one endpoint, as far as asking goes: there is no method here that creates anything.

    Threads may share it; `close` ends its connections. No method raises: what went wrong is in what it returns. To be
    made it needs a thread of its own: ThreadLimitError says that there is none.
    """

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        self._endpoint = endpoint
        self._pools = _pool_manager(endpoint, connections)
        self._pool = cast("Pool", self._pools.connection_from_url(endpoint.base_url))
        self._origin, self._head = _framing(endpoint)
        credentials = endpoint.proxy.credentials if endpoint.proxy is not None else ""
        sent = (endpoint.key.reveal(), _basic(credentials))
        self._sent = Redactor(sent)
        # No answer is searched for the bare password: no server has seen it, and it may be a word that stands in a job.
        self._secrets = Redactor((*sent, credentials.partition(":")[2]))
        self._active: set[Exchange] = set()
        self._closed = threading.Event()
        self._cut = False  # for good: what comes after it is ended as it begins
        self._watch = threading.Thread(target=self._watch_deadlines, name="deadlines", daemon=True)
        try:
            self._watch.start()
        except RuntimeError:  # a send without its deadline could hold the run for ever
            raise ThreadLimitError from None

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""
        return self._endpoint.key.has_bearer_prefix

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """`GET /v0/workflows/{workflow_id}/jobs`."""
        return self._send("GET", f"/v0/workflows/{_segment(workflow_id)}/jobs", exchange)

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> ExchangeResult:
        """`GET /v0/workflows/{workflow_id}/jobs/{job_id}`."""
        return self._send("GET", f"/v0/workflows/{_segment(workflow_id)}/jobs/{_segment(job_id)}", exchange)

    def get_workflow(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
        """`GET /v0/workflows/{workflow_id}?project_id=…`."""
        return self._send("GET", f"/v0/workflows/{_segment(workflow_id)}?project_id={_segment(project_id)}", exchange)

    def get_estimate(self, workflow_id: str, exchange: Exchange) -> ExchangeResult:
        """`GET /v0/workflows/{workflow_id}/estimate`."""
        return self._send("GET", f"/v0/workflows/{_segment(workflow_id)}/estimate", exchange)

    def abort_all(self) -> None:
        """End every exchange that is under way, as after an interrupt. Safe in a signal handler."""
        self._cut = True
        for exchange in self._active.copy():
            exchange.abort("interrupted")

    def close(self) -> None:
        """Close the connections and end the watch."""
        self._closed.set()
        self._watch.join()
        self._pools.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, target: str, exchange: Exchange) -> ExchangeResult:
        # A list that a cache has kept shows no job of since then.
        more = "Content-Length: 0" if method == "POST" else "Cache-Control: no-cache"
        request = f"{method} {self._origin}{target} HTTP/1.1\r\n{self._head}{more}\r\n\r\n".encode()
        self._begin(exchange)
        try:
            response = self._pool.send(request, exchange)
        except Exception as error:  # noqa: BLE001 - whatever it was, only `written` says whether the job may exist
            silence = _no_answer(error, exchange)  # it may quote what came instead of an answer
            return replace(silence, detail=self._secrets.redact_text(silence.detail))
        finally:
            self._active.discard(exchange)
        headers = {name: self._sent.redact_text(value) for name, value in response.headers.items()}
        return replace(response, headers=headers, body=self._sent.redact_bytes(response.body))

    def _begin(self, exchange: Exchange) -> None:
        """Begin the time that an exchange may take, and have it watched."""
        exchange.start()
        self._active.add(exchange)
        if self._cut:
            exchange.abort("interrupted")

    def _watch_deadlines(self) -> None:
        while not self._closed.wait(_TICK):
            for exchange in self._active.copy():
                # Again at each tick: during a TLS handshake there is no socket yet to shut down.
                if exchange.is_overdue():
                    exchange.abort("timeout")


class ApiClient(ReadOnlyClient):
    """The API at one endpoint, with the one request that costs money."""

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> ExchangeResult:
        """`POST /v0/workflows/{workflow_id}/jobs?project_id=…`, once, with no body."""
        return self._send(
            "POST", f"/v0/workflows/{_segment(workflow_id)}/jobs?project_id={_segment(project_id)}", exchange
        )


def _segment(identifier: str) -> str:
    """An id as one segment of a path, or one value of a query: all but the unreserved characters percent-encoded."""
    return quote(identifier, safe="", errors="surrogatepass")


def _framing(endpoint: Endpoint) -> tuple[str, str]:
    """What goes before each target, and the headers of each request.

    To a proxy that is no tunnel the whole URL is said (RFC 9112, section 3.2.2).
    """
    scheme, _, host = endpoint.base_url.partition("://")
    headers = {
        "Host": host,
        "Accept-Encoding": "identity",
        "Authorization": endpoint.key.reveal(),
        "Accept": "application/json",
        "User-Agent": USER_AGENT,
    }
    forwarded = endpoint.proxy is not None and scheme == "http"
    if forwarded and endpoint.proxy is not None and endpoint.proxy.credentials:
        headers["Proxy-Authorization"] = f"Basic {_basic(endpoint.proxy.credentials)}"
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return endpoint.base_url if forwarded else "", head


def _pool_manager(endpoint: Endpoint, connections: int) -> urllib3.PoolManager:
    options: dict[str, Any] = {"num_pools": 2, "maxsize": connections, "block": False}
    if endpoint.base_url.startswith("https:"):
        options["ssl_context"] = endpoint.ssl_context or ssl.create_default_context(cafile=endpoint.ca_bundle)
    pools = urllib3.PoolManager(**options) if endpoint.proxy is None else _through(endpoint.proxy, options)
    pools.pool_classes_by_scheme = POOL_CLASSES
    return pools


def _through(proxy: Proxy, options: dict[str, Any]) -> urllib3.PoolManager:
    headers = {"proxy-authorization": f"Basic {_basic(proxy.credentials)}"} if proxy.credentials else None
    context = options.get("ssl_context") if proxy.url.startswith("https:") else None
    return urllib3.ProxyManager(proxy.url, proxy_headers=headers, proxy_ssl_context=context, **options)


def _basic(credentials: str) -> str:
    """Credentials in UTF-8, as RFC 7617 has it; urllib3's own helper takes Latin-1 alone."""
    return b64encode(credentials.encode()).decode("ascii")


def _no_answer(error: Exception, exchange: Exchange) -> NoResponse:
    written = exchange.written_at is not None
    if exchange.aborted_by == "interrupted":
        return NoResponse("interrupted", written, "the run was interrupted before an answer came")
    if exchange.aborted_by == "timeout":
        return NoResponse("timeout", written, f"no complete answer within {exchange.timeout:g} s")
    return _explain(list(_chain(error)), written=written)


# Met first, said first: the classes of error, whether that holds before or after a byte was written (None: both),
# and what it is called. `{root}` is the innermost error in words, `{whose}` says who is at the other end of the line.
_CAUSES: tuple[tuple[tuple[type[BaseException], ...], bool | None, Cause, str], ...] = (
    ((BodyTooLargeError,), None, "too_large", f"the answer is larger than {MAX_BODY_SIZE // 2**20} MiB"),
    ((ssl.SSLCertVerificationError,), None, "certificate", "the {whose} certificate is not trusted: {root}"),
    ((faults.NameResolutionError,), None, "resolve", "the host name cannot be resolved: {root}"),
    ((faults.ProxyError,), False, "proxy", "no connection through the proxy: {root}"),
    ((faults.NewConnectionError,), False, "connect", "no connection: {root}"),  # urllib3 counts it as a timeout
    ((faults.TimeoutError, TimeoutError), False, "timeout", "connecting took too long"),
    ((faults.TimeoutError, TimeoutError), True, "timeout", "no answer in time"),
    ((ssl.SSLError,), False, "tls", "the TLS handshake failed: {root}"),
    ((Exception,), False, "connect", "no connection: {root}"),
    (
        (http.client.IncompleteRead, faults.InvalidChunkLength),
        True,
        "truncated",
        "the connection ended within the answer",
    ),
    ((ConnectionError, ssl.SSLError), True, "closed", "the connection ended before the answer: {root}"),
    ((http.client.HTTPException, faults.DecodeError), True, "garbage", "what came is not an HTTP answer: {root}"),
    ((faults.ProtocolError,), True, "truncated", "the answer does not end as it should: {root}"),
    ((faults.HTTPError,), True, "garbage", "what came is not an HTTP answer: {root}"),
    ((Exception,), True, "broken", "{root}"),
)


def _explain(chain: list[BaseException], *, written: bool) -> NoResponse:
    root = _in_words(chain[-1])
    whose = "proxy's" if any(isinstance(link, faults.ProxyError) for link in chain) else "server's"
    for kinds, when, cause, words in _CAUSES:
        if when in (None, written) and any(isinstance(link, kinds) for link in chain):
            return NoResponse(cause, written, words.format(root=root, whose=whose))
    return NoResponse("broken", written, root)


def _in_words(error: BaseException) -> str:
    for attribute in ("verify_message", "strerror"):
        words = getattr(error, attribute, None)
        if isinstance(words, str) and words:
            return words
    return str(error) or type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first; urllib3 hides causes in `reason` and in arguments as well."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        inner = [part for part in (getattr(link, "reason", None), *link.args) if isinstance(part, BaseException)]
        link = inner[0] if inner else link.__cause__ or link.__context__
