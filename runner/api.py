"""The Pixxel API over a urllib3 pool: one method per endpoint, and for each exchange whether a byte of it left.

Everything that urllib3 would do on its own with a POST is off: retries, redirects, a proxy or a key of its own
finding. What it does not do is added here: a deadline for the whole exchange (its timeouts start again with each
read), a mark set just before the first write, a bound on the body, and no reuse of a connection that has been idle
so long that the server may be closing it (https://github.com/urllib3/urllib3/issues/3184 shows that race).
"""

from __future__ import annotations

import http.client
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Self
from urllib.parse import quote

import urllib3
from urllib3 import exceptions as faults
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from runner.exchange import CutError, Exchange
from runner.settings import Endpoint, Proxy
from runner.verdict import Answer, Cause, Happening, NoAnswer

LARGEST_BODY = 8 * 2**20  # bytes, decoded: a job object is some kilobytes
_CHUNK = 2**16
_IDLE = 2.0  # seconds: below the keep-alive of every common server (gunicorn's 2 s is the shortest)
_TICK = 0.1  # seconds between looks at the deadlines


class _TooLargeError(Exception):
    """The body is larger than any job object."""


_exchange: ContextVar[Exchange] = ContextVar("exchange")


class _Marking(HTTPConnection):
    """A connection that tells its exchange before the first byte of the request is written."""

    idle_since = 0.0
    _in_tunnel = False

    def _tunnel(self) -> None:
        self._in_tunnel = True  # what is sent now is the CONNECT, for the proxy alone
        try:
            super()._tunnel()
        finally:
            self._in_tunnel = False

    def send(self, data: Any) -> None:
        if not self._in_tunnel:
            if self.sock is None:  # http.client enters `send` before it connects
                self.connect()
            _exchange.get().about_to_write()
        super().send(data)


class _MarkingTLS(_Marking, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    """A pool that hands each exchange its connection, and drops those that have been idle too long."""

    ConnectionCls = _Marking

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        if not connection.is_closed and time.monotonic() - connection.idle_since > _IDLE:
            connection.close()
        _exchange.get().connection = connection
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since = time.monotonic()
        super()._put_conn(conn)


class _PoolTLS(_Pool, HTTPSConnectionPool):
    """The same over TLS."""

    ConnectionCls = _MarkingTLS


class Reader:
    """The API at one endpoint, as far as asking goes: there is no method here that creates anything.

    Threads may share it; `close` ends its connections. No method raises: what went wrong is in what it returns.
    """

    def __init__(self, endpoint: Endpoint, connections: int) -> None:
        self._endpoint = endpoint
        self._headers = {
            "Authorization": endpoint.key.reveal(),
            "Accept": "application/json",
            "User-Agent": endpoint.user_agent,
        }
        self._pools = _pool_manager(endpoint, connections)
        self._active: set[Exchange] = set()
        self._closed = threading.Event()
        self._watch = threading.Thread(target=self._watch_deadlines, name="deadlines", daemon=True)
        self._watch.start()

    @property
    def bearer(self) -> bool:
        """Whether the key begins with `Bearer `."""
        return self._endpoint.key.bearer

    def list_jobs(self, workflow_id: str, exchange: Exchange) -> Happening:
        """`GET /v0/workflows/{workflow_id}/jobs`."""
        return self._send("GET", f"/v0/workflows/{_segment(workflow_id)}/jobs", exchange)

    def get_job(self, workflow_id: str, job_id: str, exchange: Exchange) -> Happening:
        """`GET /v0/workflows/{workflow_id}/jobs/{job_id}`."""
        return self._send("GET", f"/v0/workflows/{_segment(workflow_id)}/jobs/{_segment(job_id)}", exchange)

    def cut(self) -> None:
        """End every exchange that is under way, as after an interrupt. Safe in a signal handler."""
        for exchange in self._active.copy():
            exchange.cut("interrupted")

    def close(self) -> None:
        """Close the connections and end the watch."""
        self._closed.set()
        self._watch.join()
        self._pools.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, method: str, target: str, exchange: Exchange) -> Happening:
        with self._under_watch(exchange):
            try:
                return self._receive(self._open(method, target, exchange), exchange)
            except Exception as error:  # noqa: BLE001 - whatever it was, only `written` says whether the job may exist
                return _no_answer(error, exchange)

    def _open(self, method: str, target: str, exchange: Exchange) -> urllib3.BaseHTTPResponse:
        return self._pools.urlopen(
            method,
            self._endpoint.base_url + target,
            headers=self._headers,
            timeout=urllib3.Timeout(connect=exchange.timeout, read=exchange.timeout),
            retries=False,
            redirect=False,
            preload_content=False,
        )

    def _receive(self, response: urllib3.BaseHTTPResponse, exchange: Exchange) -> Happening:
        try:
            body = _body(response, exchange)
        except BaseException:
            response.close()
            raise
        response.release_conn()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, headers, body, datetime.now(UTC))

    @contextmanager
    def _under_watch(self, exchange: Exchange) -> Iterator[None]:
        token = _exchange.set(exchange)
        exchange.start()
        self._active.add(exchange)
        try:
            yield
        finally:
            self._active.discard(exchange)
            _exchange.reset(token)

    def _watch_deadlines(self) -> None:
        while not self._closed.wait(_TICK):
            for exchange in self._active.copy():
                # Again at each tick: during a TLS handshake there is no socket yet to shut down.
                if exchange.overdue():
                    exchange.cut("timeout")


class Api(Reader):
    """The API at one endpoint, with the one request that costs money."""

    def create_job(self, workflow_id: str, project_id: str, exchange: Exchange) -> Happening:
        """`POST /v0/workflows/{workflow_id}/jobs?project_id=…`, once, with no body."""
        return self._send(
            "POST", f"/v0/workflows/{_segment(workflow_id)}/jobs?project_id={_segment(project_id)}", exchange
        )


def _segment(identifier: str) -> str:
    """An id as one segment of a path, or one value of a query: all but the unreserved characters percent-encoded."""
    return quote(identifier, safe="", errors="surrogatepass")


def _body(response: urllib3.BaseHTTPResponse, exchange: Exchange) -> bytes:
    body = bytearray()
    for chunk in response.stream(_CHUNK, decode_content=True):
        body += chunk
        if len(body) > LARGEST_BODY:
            raise _TooLargeError
    if exchange.cut_by is not None:  # a body that ends where the connection does would look whole
        raise CutError
    return bytes(body)


def _pool_manager(endpoint: Endpoint, connections: int) -> urllib3.PoolManager:
    options: dict[str, Any] = {"num_pools": 2, "maxsize": connections, "block": False}
    if endpoint.base_url.startswith("https:"):
        options["ssl_context"] = ssl.create_default_context(cafile=endpoint.ca_bundle)
    pools = urllib3.PoolManager(**options) if endpoint.proxy is None else _through(endpoint.proxy, options)
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _PoolTLS}
    return pools


def _through(proxy: Proxy, options: dict[str, Any]) -> urllib3.PoolManager:
    headers = urllib3.make_headers(proxy_basic_auth=proxy.credentials) if proxy.credentials else None
    context = options.get("ssl_context") if proxy.url.startswith("https:") else None
    return urllib3.ProxyManager(proxy.url, proxy_headers=headers, proxy_ssl_context=context, **options)


def _no_answer(error: Exception, exchange: Exchange) -> NoAnswer:
    written = exchange.written is not None
    if exchange.cut_by == "interrupted":
        return NoAnswer("interrupted", written, "the run was interrupted before an answer came")
    if exchange.cut_by == "timeout":
        return NoAnswer("timeout", written, f"no complete answer within {exchange.timeout:g} s")
    return _explain(list(_chain(error)), written=written)


# Met first, said first: the classes of error, whether that holds before or after a byte was written (None: both),
# and what it is called. `{root}` is the innermost error in words.
_CAUSES: tuple[tuple[tuple[type[BaseException], ...], bool | None, Cause, str], ...] = (
    ((_TooLargeError,), None, "too_large", f"the answer is larger than {LARGEST_BODY // 2**20} MiB"),
    ((ssl.SSLCertVerificationError,), None, "certificate", "the server's certificate is not trusted: {root}"),
    ((faults.NameResolutionError,), None, "resolve", "the host name cannot be resolved: {root}"),
    ((faults.TimeoutError, TimeoutError), False, "timeout", "connecting took too long"),
    ((faults.TimeoutError, TimeoutError), True, "timeout", "no answer in time"),
    ((faults.ProxyError,), False, "proxy", "no connection through the proxy: {root}"),
    ((ssl.SSLError,), False, "tls", "the TLS handshake failed: {root}"),
    ((Exception,), False, "connect", "no connection: {root}"),
    ((faults.IncompleteRead, faults.InvalidChunkLength), True, "truncated", "the connection ended within the answer"),
    ((ConnectionError, ssl.SSLError), True, "closed", "the connection ended before the answer: {root}"),
    ((http.client.HTTPException, faults.HTTPError), True, "garbage", "what came is not an HTTP answer: {root}"),
    ((Exception,), True, "broken", "{root}"),
)


def _explain(chain: list[BaseException], *, written: bool) -> NoAnswer:
    root = _in_words(chain[-1])
    for kinds, when, cause, words in _CAUSES:
        if when in (None, written) and any(isinstance(link, kinds) for link in chain):
            return NoAnswer(cause, written, words.format(root=root))
    return NoAnswer("broken", written, root)


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
