"""What applies to a run: flag > environment > manifest > default, made into frozen Limits and an Endpoint."""

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
_LARGEST_KEY = 65_536  # bytes: more than any server takes in a header

_SUCH_AS = f"Such as {PRODUCTION_URL}."

_LAST_LINE_BREAK = re.compile(r"\r?\n\Z")
_PORTS = {"http": 80, "https": 443}
# Parsers of URLs disagree on odd hosts, and the key must go where the person reads that it goes.
_HOST = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII)


class ApiKey:
    """The key. It shows itself only when asked by name, so that no repr, log or traceback holds it."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def reveal(self) -> str:
        """The key as it is sent."""
        return self._key

    @property
    def has_bearer_prefix(self) -> bool:
        """Whether it begins with `Bearer `, which the API does not want."""
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
    """Where the API is and how it is reached. `base_url` is an origin; `ca_bundle` a file of trusted certificates.

    `trust` is what was made of such a file, which may be a pipe and is read once.
    """

    base_url: str
    key: ApiKey
    ca_bundle: str | None = None
    proxy: Proxy | None = None
    ssl_context: ssl.SSLContext | None = field(default=None, repr=False)


def parse_base_url(text: str, *, allow_http: bool) -> str:
    """Check a base URL and return its origin: scheme, host and port, without a final slash.

    Raises:
        UsageError: not an http or https URL, more than an origin, or plain http off loopback and not allowed.
    """
    parts = _split(text)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UsageError(f"the base URL{_shown(text)} is not an http or https address", _SUCH_AS)
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            "the base URL holds credentials", "The key is given by PIXXEL_API_KEY or --api-key-file alone."
        )
    if not _HOST.fullmatch(parts.hostname):
        raise UsageError(
            "the base URL has a host name that is none",
            f"A name with letters beyond ASCII is written in its xn-- form. {_SUCH_AS}",
        )
    if parts.hostname.endswith(".") and not is_loopback(parts.hostname):
        # The same place under another name, which would have a record of its own.
        raise UsageError(f"the base URL{_shown(text)} has a host name that ends in a dot", "Leave the dot out.")
    if parts.path not in ("", "/") or parts.query or parts.fragment or text.endswith(("?", "#")):
        shown = _shown(text)
        raise UsageError(
            f"the base URL{shown} has a path, a query or a fragment",
            f"Give the origin alone{f':{shown}' if shown else ', and no credentials'}.",
        )
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise UsageError(
            f"the base URL{_shown(text)} is plain http: the key would cross the network readable by all",
            "Use https, or --allow-http if that network is yours.",
        )
    return _origin(parts)


def _split(text: str) -> SplitResult:
    unreadable = UsageError("the base URL cannot be read as a URL", _SUCH_AS)
    if any(not character.isprintable() or character.isspace() for character in text):
        raise unreadable
    try:
        parts = urlsplit(text)
        _ = parts.port  # read here, where a bad one raises
    except ValueError:
        raise unreadable from None
    return parts


def _shown(url: str) -> str:
    """A space and the origin of a URL, for a person; nothing of what is none.

    Whatever else there is may be a key or a password: in the wrong variable, in a query, with a slash in it before
    the `@`.
    """
    try:
        parts = urlsplit(url)
        origin = _origin(parts)
    except ValueError:
        return ""
    misplaced = "@" in url.partition("://")[2][len(parts.netloc) :]
    return f" {origin}" if parts.scheme and _HOST.fullmatch(parts.hostname or "") and not misplaced else ""


def _origin(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, _PORTS.get(parts.scheme)) else f":{parts.port}")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine by its form alone: nothing is resolved."""
    if host.lower() in ("localhost", "localhost."):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def find_proxy(origin: str) -> Proxy | None:
    """The proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for an origin. Loopback is never sent to a proxy.

    Raises:
        UsageError: the proxy is of a kind that is not supported.
    """
    parts = urlsplit(origin)
    proxies = getproxies()
    url = proxies.get(parts.scheme) or proxies.get("all")
    if not url or is_loopback(parts.hostname or "") or proxy_bypass(parts.netloc):
        return None
    return _proxy(url if "://" in url else f"http://{url}")


def _proxy(url: str) -> Proxy:
    parts = _proxy_parts(url)
    if parts is None:
        raise UsageError(
            f"the proxy{_shown(url)} from the environment is not an http or https proxy, or has more than its address",
            "Set HTTPS_PROXY to one such as http://proxy.example:3128 (a password's odd characters as %XX), or "
            "NO_PROXY to the API's host.",
        )
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return Proxy(_origin(parts), credentials)


def _proxy_parts(url: str) -> SplitResult | None:
    """The URL of a proxy in parts; None when it is more than an origin and credentials, or no URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here, where a bad one raises
    except ValueError:
        return None
    whole = parts.scheme in _PORTS and parts.path in ("", "/") and not parts.query and not parts.fragment
    return parts if whole and _HOST.fullmatch(parts.hostname or "") else None


def load_api_key(environment: str | None, file: Path | None) -> tuple[ApiKey, tuple[str, ...]]:
    """The key, from a file where one is named, else from the environment; and warnings for the person.

    It is sent exactly as given; only one line break at the end of a file is dropped.

    Raises:
        RefusedError: there is no key, the file cannot be read, or the key is one that a header cannot carry.
    """
    if file is not None:
        key, warnings = _read_key(file)
        return ApiKey(_checked(key, f"the key in {file}")), warnings
    if not environment:
        raise RefusedError(
            "no API key", "Set PIXXEL_API_KEY, or name a file with --api-key-file. To try things out: --sandbox."
        )
    return ApiKey(_checked(environment, "the key in PIXXEL_API_KEY")), ()


def parse_api_key(key: str) -> ApiKey:
    """A key that a program hands over. Raises RefusedError when a header cannot carry it."""
    return ApiKey(_checked(key, "the key"))


def _read_key(file: Path) -> tuple[str, tuple[str, ...]]:
    try:
        with file.open("rb") as stream:
            found = os.fstat(stream.fileno())
            raw = stream.read(_LARGEST_KEY + 1)
    except OSError as error:
        if _is_path(file):
            raise RefusedError(
                f"the key file {file} cannot be read: {error.strerror}", "Check its path and modes."
            ) from None
        raise RefusedError(
            f"the key file cannot be read: {error.strerror}",
            "--api-key-file takes the path of a file. What it was given is not shown, as it may be the key itself.",
        ) from None
    if len(raw) > _LARGEST_KEY or not raw.isascii():
        raise RefusedError(f"the key file {file} holds more or other than a key", "Save the bare key as plain text.")
    warnings = (f"others can read the key file {file}: chmod 600 {file}",) if _is_open(found) else ()
    return _LAST_LINE_BREAK.sub("", raw.decode("ascii")), warnings


def _is_path(file: Path) -> bool:
    """Whether what was given for a key file is plainly a path, and not the key: it is there, or a folder on its way is.

    A key may have slashes, even as its first character: one is not enough, nor is the current folder or the root.
    """
    folders = [one for one in map(os.fspath, file.parents) if one not in (".", "/")]
    return os.path.lexists(file) or any(map(os.path.isdir, folders))


def _is_open(found: os.stat_result) -> bool:
    """Whether others can read a key file, and its owner should mend that.

    One that is handed over by its group is meant so: a Secret of Kubernetes is root's and the pod's `fsGroup`'s, and
    with an access list, as systemd's credentials have one, the group's bits are its mask.
    """
    owned = found.st_uid == os.geteuid()
    return bool(found.st_mode & (0o077 if owned else 0o007))


def _checked(key: str, what: str) -> str:
    if not key:
        raise RefusedError(f"{what} is empty", "Put the bare key there.")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise RefusedError(
            f"{what} has a line break, a space at an end, or another character that a header cannot carry",
            "Put the bare key there, with nothing around it.",
        )
    return key


def load_ca_bundle(ca_bundle: str | None) -> ssl.SSLContext | None:
    """What a file of certificates says who is trusted, read once; None without one, for the system's.

    Raises:
        UsageError: the file cannot be used, or its name is empty, which OpenSSL would take for none.
    """
    if ca_bundle is None:
        return None
    if not ca_bundle:
        raise UsageError("the CA bundle's name is empty", "Name a file of PEM certificates, or leave it out.")
    try:
        return ssl.create_default_context(cafile=ca_bundle)
    except (OSError, ValueError) as error:  # ssl.SSLError is one; a name with a NUL is the other
        why = getattr(error, "strerror", None) or error
        raise UsageError(
            f"the CA bundle {ca_bundle} cannot be used: {why}", "It is to be a file of PEM certificates."
        ) from None
