"""Where the API is and how it is reached: base URL, API key, proxy and trusted certificates, each of them checked."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from runner.core.errors import RefusedError, UsageError

PRODUCTION_URL = "https://api.pixxel.space"
SANDBOX_IDENTITY = "sandbox"

_MAX_KEY_SIZE = 65_536  # bytes; more than servers accept in a header
_FINAL_LINE_BREAK = re.compile(r"\r?\n\Z")
_PORTS = {"http": 80, "https": 443}
# URL parsers disagree on other hosts, and the key must go where the user reads that it goes.
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII)


class ApiKey:
    """The API key, revealed only on request: no repr, log or traceback shows it."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def reveal(self) -> str:
        """Return the key as it is sent."""
        return self._key

    @property
    def has_bearer_prefix(self) -> bool:
        """Whether the key begins with `Bearer `, which the API does not accept."""
        return self._key.lower().startswith("bearer ")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy: its URL without credentials, and the credentials as `user:password`."""

    url: str
    credentials: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is. `base_url` is an origin; `ca_bundle` is a file of trusted certificates.

    `ssl_context` is made of that file, which may be a pipe and is read once.
    """

    base_url: str
    key: ApiKey
    ca_bundle: str | None = None
    proxy: Proxy | None = None
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)


def parse_base_url(text: str, *, allow_http: bool) -> str:
    """Check a base URL and return its origin: scheme, host and port, without a final slash.

    Raises:
        UsageError: it is not an http or https URL, has more than an origin, or is plain http beyond this machine
            without `allow_http`.
    """
    parts = _split(text)
    example = f"Use a URL such as {PRODUCTION_URL}."
    if parts is None or any(not character.isprintable() or character.isspace() for character in text):
        raise UsageError("the base URL is not a valid URL", example)
    url = f"the base URL{_origin_shown(text)}"
    host = parts.hostname or ""
    if parts.scheme not in _PORTS or not host:
        raise UsageError(f"{url} is not an http or https URL", example)
    if parts.username is not None or parts.password is not None:
        raise UsageError("the base URL contains credentials", "Pass the key with PIXXEL_API_KEY or --api-key-file.")
    if not _HOST.fullmatch(host):
        raise UsageError(
            "the base URL has an invalid host name", "Use ASCII; write international names in Punycode (xn--…)."
        )
    if host.endswith(".") and not is_loopback(host):  # the same API under another name, and so with another ledger
        raise UsageError(f"{url} has a host name that ends with a dot", "Remove the dot.")
    if parts.path not in ("", "/") or parts.query or parts.fragment or text.endswith(("?", "#")):
        raise UsageError(f"{url} has a path, a query or a fragment", "Use only the scheme, the host and the port.")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise UsageError(
            f"{url} uses plain http, which would send the key unencrypted",
            "Use https, or pass --allow-http on a network that you trust.",
        )
    return _origin(parts)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # an invalid port raises here
    except ValueError:
        return None
    return parts


def _origin_shown(url: str) -> str:
    """The origin of a URL after a space; empty when the URL has none.

    Nothing else is shown: it may be a key in the wrong variable or in a query, or a password with a slash in it.
    """
    parts = _split(url)
    if parts is None or not parts.scheme or not _HOST.fullmatch(parts.hostname or ""):
        return ""
    is_misplaced = "@" in url.partition("://")[2][len(parts.netloc) :]
    return "" if is_misplaced else f" {_origin(parts)}"


def _origin(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine, judging by its form: names are not resolved."""
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_proxy(origin: str) -> Proxy | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY set for an origin; never one for loopback.

    Raises:
        UsageError: the proxy's URL is invalid, or of a kind that is not supported.
    """
    origin_parts, proxies = urlsplit(origin), getproxies()
    url = proxies.get(origin_parts.scheme) or proxies.get("all")
    if not url or is_loopback(origin_parts.hostname or "") or proxy_bypass(origin_parts.netloc):
        return None
    url = url if "://" in url else f"http://{url}"
    parts = _split(url)
    is_origin = parts is not None and parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts is None or not is_origin or parts.scheme not in _PORTS or not _HOST.fullmatch(parts.hostname or ""):
        raise UsageError(
            f"the environment's proxy{_origin_shown(url)} is not an http or https URL of only a host and a port",
            "Set HTTPS_PROXY to a URL such as http://proxy.example:3128 (percent-encode special characters of a "
            "password), or add the API's host to NO_PROXY.",
        )
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return Proxy(_origin(parts), credentials)


def load_api_key(environment: str | None, file: Path | None) -> tuple[ApiKey, tuple[str, ...]]:
    """Return the key of a file if there is one, else of the environment, and warnings.

    The key is sent exactly as given; only one line break at the end of a file is removed.

    Raises:
        RefusedError: there is no key, the file cannot be read, or a header cannot carry the key.
    """
    if file is not None:
        key, warnings = _read_key(file)
        return parse_api_key(key, f"the key in {file}"), warnings
    if not environment:
        raise RefusedError(
            "no API key", "Set PIXXEL_API_KEY or pass --api-key-file. To try the program without a key: --sandbox."
        )
    return parse_api_key(environment, "the key in PIXXEL_API_KEY"), ()


def parse_api_key(key: str, source: str = "the key") -> ApiKey:
    """Check a key. Raises RefusedError when a header cannot carry it."""
    if not key:
        raise RefusedError(f"{source} is empty", "Write the key to it.")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise RefusedError(
            f"{source} contains a line break, leading or trailing spaces, or a character that is not allowed in an "
            "HTTP header",
            "It must contain only the key, on one line.",
        )
    return ApiKey(key)


def _read_key(file: Path) -> tuple[str, tuple[str, ...]]:
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            raw = stream.read(_MAX_KEY_SIZE + 1)
    except OSError as error:
        if _is_path(file):
            message, hint = f"the key file {file} cannot be read", "Check its path and its permissions."
        else:
            message = "the key file cannot be read"
            hint = (
                "Check the path. --api-key-file expects a file; "
                "its value is not shown because it may be the key itself."
            )
        raise RefusedError(f"{message}: {error.strerror}", hint) from None
    if len(raw) > _MAX_KEY_SIZE or not raw.isascii():
        raise RefusedError(f"the key file {file} does not contain an API key", "Save the key as plain text.")
    warnings = (f"other users can read the key file {file}. To fix: chmod 600 {file}",) if _is_exposed(status) else ()
    return _FINAL_LINE_BREAK.sub("", raw.decode("ascii")), warnings


def _is_path(file: Path) -> bool:
    """Whether the value given for a key file is a path and not the key: it, or a directory on its way, exists.

    A key may contain slashes, so the current directory and the root do not count.
    """
    directories = [directory for directory in map(os.fspath, file.parents) if directory not in (".", "/")]
    return os.path.lexists(file) or any(map(os.path.isdir, directories))


def _is_exposed(status: os.stat_result) -> bool:
    """Whether others can read a key file, in a way that its owner should change.

    Reading through the group is intended where the file is someone else's: a Kubernetes Secret belongs to root and the
    pod's `fsGroup`, and systemd's credentials have an access control list whose mask are the group's bits.
    """
    is_owned = status.st_uid == os.geteuid()
    return bool(status.st_mode & (0o077 if is_owned else 0o007))


def load_ca_bundle(ca_bundle: str | None) -> ssl.SSLContext | None:
    """Read a file of trusted certificates; None for the system's.

    Raises:
        UsageError: the file cannot be used, or its name is empty, which OpenSSL would ignore.
    """
    if ca_bundle is None:
        return None
    hint = "Pass a file of PEM certificates."
    if not ca_bundle:
        raise UsageError("the path of the CA bundle is empty", hint)
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ValueError) as error:  # including ssl.SSLError, and a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the CA bundle {ca_bundle} cannot be used: {reason}", hint) from None
