"""Base URLs, API keys, proxies and CA bundles: what is accepted, and that no secret is shown."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.certs import Certificates

from runner.client.endpoint import (
    PRODUCTION_URL,
    ApiKey,
    Endpoint,
    Proxy,
    find_proxy,
    is_loopback,
    load_api_key,
    load_ca_bundle,
    parse_base_url,
)
from runner.core.errors import RefusedError, RunnerError, UsageError

SECRET = "s3cr3t"


def error_text(caught: pytest.ExceptionInfo[RunnerError]) -> str:
    return f"{caught.value.message}\n{caught.value.hint}\n{caught.value!r}"


# Base URLs


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        (PRODUCTION_URL, PRODUCTION_URL),
        ("https://api.pixxel.space/", PRODUCTION_URL),
        ("https://api.pixxel.space:443", PRODUCTION_URL),
        ("HTTPS://API.Pixxel.Space:443/", PRODUCTION_URL),
        ("https://api.pixxel.space:", PRODUCTION_URL),
        ("https://api.pixxel.space:8443", "https://api.pixxel.space:8443"),
        ("https://[2001:DB8::1]:443/", "https://[2001:db8::1]"),
        ("https://10.0.0.1:80", "https://10.0.0.1:80"),
        ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
        ("http://localhost", "http://localhost"),
        ("http://LOCALHOST:80/", "http://localhost"),
        ("http://localhost.:8080", "http://localhost.:8080"),
        ("http://127.0.0.1:443", "http://127.0.0.1:443"),
        ("http://127.0.0.2:8080", "http://127.0.0.2:8080"),
        ("http://127.255.255.254", "http://127.255.255.254"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
        ("http://[0:0:0:0:0:0:0:1]", "http://[0:0:0:0:0:0:0:1]"),
    ],
)
def test_base_url_is_normalized_to_an_origin(text: str, origin: str) -> None:
    assert parse_base_url(text, allow_http=False) == origin


@pytest.mark.parametrize(
    "host",
    ["api.pixxel.space", "localhost.evil.example", "127.0.0.1.evil.example", "127.1", "0177.0.0.1", "2130706433",
     "0.0.0.0", "10.0.0.1", "128.0.0.1", "[::2]", "[fe80::1]"],  # noqa: S104 - an address that must be rejected
)  # fmt: skip
def test_plain_http_to_other_hosts_must_be_allowed(host: str) -> None:
    with pytest.raises(UsageError, match=r"plain http") as caught:
        parse_base_url(f"http://{host}", allow_http=False)
    assert "--allow-http" in caught.value.hint
    assert not is_loopback(host.strip("[]"))
    assert parse_base_url(f"http://{host}:80/", allow_http=True) == f"http://{host}"


@pytest.mark.parametrize("host", ["１２７.0.0.1", "ⓛocalhost", "127。0。0。1"])
def test_names_that_normalize_to_loopback_are_not_loopback(host: str) -> None:
    with pytest.raises(UsageError):
        parse_base_url(f"http://{host}", allow_http=False)
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an http or https URL"),
        ("api.pixxel.space", "not an http or https URL"),
        ("localhost:8080", "not an http or https URL"),
        ("ftp://api.pixxel.space", "not an http or https URL"),
        ("file:///etc/passwd", "not an http or https URL"),
        ("//api.pixxel.space", "not an http or https URL"),
        ("https:api.pixxel.space", "not an http or https URL"),
        ("https://", "not an http or https URL"),
        ("https://:443", "not an http or https URL"),
        ("https://api.pixxel.space/v0", "has a path"),
        ("https://api.pixxel.space//", "has a path"),
        ("https://api.pixxel.space.", "ends with a dot"),
        ("https://api.pixxel.space.:443/", "ends with a dot"),
        ("https://api.pixxel.space/?a=1", "a query"),
        ("https://api.pixxel.space?", "a query"),
        ("https://api.pixxel.space#part", "a fragment"),
        ("https://api.pixxel.space/#", "a fragment"),
        ("https://api.pixxel.space:99999", "not a valid URL"),
        ("https://api.pixxel.space:-1", "not a valid URL"),
        ("https://api.pixxel.space:https", "not a valid URL"),
        ("https://api.pixxel.space:٤٤٣", "not a valid URL"),
        ("https://[::1", "not a valid URL"),
        ("https://[::g]", "not a valid URL"),
        (" https://api.pixxel.space", "not a valid URL"),
        ("https://api.pixxel.space\n", "not a valid URL"),
        ("https://api.pixxel.space\r\nX: y", "not a valid URL"),
        ("https://api.pixxel .space", "not a valid URL"),
        ("https://api.pixxel\u2003.space", "not a valid URL"),
        ("https://api.pixxel\t.space", "not a valid URL"),
        ("https://api\x00.pixxel.space", "not a valid URL"),
        ("https://api\u202e.pixxel.space", "not a valid URL"),
        ("https://api\ud800.pixxel.space", "not a valid URL"),
    ],
)
def test_url_that_is_not_an_origin_is_rejected_with_a_printable_message(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_base_url(text, allow_http=True)
    assert message in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        r"https://evil.example\.api.pixxel.space",  # urllib3 would connect to evil.example
        "https://ex%61mple.com",  # and to example.com here
        "https://api<pixxel>.space",
    ],
)
def test_host_that_url_parsers_read_differently_is_rejected(text: str) -> None:
    with pytest.raises(UsageError):
        parse_base_url(text, allow_http=False)


def test_non_ascii_host_is_rejected_or_converted() -> None:
    """Unconverted, it would need a library that is not installed, and every job would fail as `unreachable`."""
    try:
        origin = parse_base_url("https://münchen.example", allow_http=False)
    except UsageError:
        return
    assert origin == "https://xn--mnchen-3ya.example"


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@api.pixxel.space",
        f"https://{SECRET}@api.pixxel.space/v0",
        f"https://:{SECRET}@api.pixxel.space",
        f"https://user:{SECRET}@api.pixxel.space:99999",
        f"https://user:{SECRET}@api.pixxel .space",
        f"https://user:{SECRET}\n@api.pixxel.space",
        f"ftp://user:{SECRET}@api.pixxel.space",
        f"//user:{SECRET}@api.pixxel.space",
        f"user:{SECRET}@api.pixxel.space",
        f"https:user:{SECRET}@api.pixxel.space",
        f"https:/user:{SECRET}@api.pixxel.space",
        f"https://user:pass/{SECRET}@api.pixxel.space",
        f"https://user:pass?{SECRET}@api.pixxel.space",
        f"https://user:pass#{SECRET}@api.pixxel.space",
    ],
)
def test_credentials_in_a_base_url_are_rejected_and_never_shown(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_base_url(text, allow_http=True)
    assert SECRET not in error_text(caught)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (SECRET, ""),
        (f"key:{SECRET}", ""),
        (f"https:{SECRET}", ""),
        (f"https:///{SECRET}", ""),
        (f"https://h.example:1/?api_key={SECRET}", "https://h.example:1"),
        (f"https://h.example/{SECRET}", "https://h.example"),
        (f"https://h.example/{SECRET}@", ""),
        (f"https://h.example#{SECRET}", "https://h.example"),
        (f"ftp://h.example:21/{SECRET}", "ftp://h.example:21"),
        (f"https://{SECRET} /", ""),
        (f"https://<{SECRET}>", ""),
    ],
)
def test_error_shows_only_the_origin_of_a_base_url(text: str, shown: str) -> None:
    """The rest may contain the key: in the wrong variable, or where another API expects it."""
    with pytest.raises(UsageError) as caught:
        parse_base_url(text, allow_http=False)
    assert shown in caught.value.message
    assert SECRET not in error_text(caught)


def test_empty_user_counts_as_credentials() -> None:
    with pytest.raises(UsageError, match="credentials"):
        parse_base_url("https://@api.pixxel.space", allow_http=False)


# A fixed set of characters: for all of Unicode, Hypothesis spends seconds building tables first.
_CHARACTERS = st.sampled_from([*map(chr, range(256)), "\u202e", "１", "ⓛ", "。", "℀", "\ud800"])


@given(
    text=st.text(_CHARACTERS, max_size=30)
    | st.text(st.sampled_from("htps:/@[]%.?#\\1a-é "), max_size=30).map("https://".__add__)
)
def test_any_text_is_an_origin_or_a_usage_error(text: str) -> None:
    try:
        origin = parse_base_url(text, allow_http=False)
    except UsageError:
        return
    assert parse_base_url(origin, allow_http=False) == origin
    assert not set(origin.partition("://")[2]) & set("/?#@ ")


# API keys


@pytest.mark.parametrize("key", ["k", "Bearer abc", "a b", "!~", "k" * 60_000])
def test_key_is_used_exactly_as_given(tmp_path: Path, key: str) -> None:
    file = tmp_path / "key"
    for line_end in ("", "\n", "\r\n"):
        file.write_bytes((key + line_end).encode())
        file.chmod(0o600)
        loaded_key, warnings = load_api_key(None, file)
        assert (loaded_key.reveal(), warnings) == (key, ())
    loaded_key, warnings = load_api_key(key, None)
    assert (loaded_key.reveal(), warnings) == (key, ())


@pytest.mark.parametrize(
    "raw",
    [b"", b"\n", b"\r\n", b"k\r", b"k\n\n", b"k\n\r\n", b"k\r\r\n", b"k\n\r", b"\nk", b"k\nl", b" k", b"k ", b"k \n",
     b"\tk", b"k\x00", b"k\x0b", b"k\x7f", "ké".encode(), b"\xef\xbb\xbfk", "k".encode("utf-16"), b"\xff",
     b"k" * 70_000, b"k" * 1_000_000],
    ids=lambda raw: repr(raw[:12]),
)  # fmt: skip
def test_key_file_without_a_bare_key_is_refused_and_not_shown(tmp_path: Path, raw: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(raw)
    with pytest.raises(RefusedError, match="the key") as caught:
        load_api_key("another", file)
    assert str(file) in caught.value.message
    assert "kl" not in error_text(caught).replace("\n", "")
    assert "kk" not in error_text(caught)


@pytest.mark.parametrize(
    "value", ["s3cr3t\n", "s3cr3t\r\n", "s3cr3t ", " s3cr3t", "s3\ncr3t", "s3cr3té", "s3cr3t\x00", "s3cr3t\ud800", " "]
)
def test_key_invalid_in_a_header_is_refused_and_not_shown(value: str) -> None:
    with pytest.raises(RefusedError, match="PIXXEL_API_KEY") as caught:
        load_api_key(value, None)
    assert "cr3t" not in error_text(caught)


@pytest.mark.parametrize("value", [None, ""])
def test_missing_key_is_refused_with_a_hint(value: str | None) -> None:
    with pytest.raises(RefusedError, match="no API key") as caught:
        load_api_key(value, None)
    assert all(source in caught.value.hint for source in ("PIXXEL_API_KEY", "--api-key-file", "--sandbox"))


def test_key_file_takes_precedence_over_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert load_api_key("from-environment", file)[0].reveal() == "from-file"


def test_unreadable_key_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for file in (tmp_path / "missing", tmp_path, tmp_path / "loop", tmp_path / "missing" / "key"):
        with pytest.raises(RefusedError, match="cannot be read") as caught:
            load_api_key(SECRET, file)
        assert str(file) in caught.value.message


@pytest.mark.parametrize(
    "value", [SECRET, f"{SECRET}/x", f"/{SECRET}", f"/{SECRET}/{SECRET}", SECRET * 100, f"./{SECRET}"]
)
def test_key_passed_as_a_path_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Base64 contains slashes, so only a value that exists, or whose parent directory does, counts as a path."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RefusedError, match="the key file cannot be read") as caught:
        load_api_key(None, Path(value))
    assert SECRET not in error_text(caught)
    assert "--api-key-file expects a file" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_key_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("k")
    file.chmod(0)
    with pytest.raises(RefusedError, match="cannot be read: Permission denied"):
        load_api_key(None, file)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)])
def test_key_file_that_others_can_read_causes_a_warning(tmp_path: Path, mode: int, warned: bool) -> None:
    file = tmp_path / "key"
    file.write_text("k")
    file.chmod(mode)
    warnings = load_api_key(None, file)[1]
    assert [str(file) in warning for warning in warnings] == [True] * warned


def test_key_is_read_from_a_pipe_in_pieces(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)

    def write() -> None:
        with pipe.open("wb", buffering=0) as stream:
            stream.write(b"ab")
            stream.write(b"cd\n")

    writer = threading.Thread(target=write)
    writer.start()
    key, _ = load_api_key(None, pipe)
    writer.join()
    assert key.reveal() == "abcd"


@pytest.mark.parametrize(
    ("key", "bearer"), [("Bearer k", True), ("bearer k", True), ("BEARER k", True), ("Bearer", False), ("k", False)]
)
def test_bearer_prefix_is_detected(key: str, bearer: bool) -> None:
    assert ApiKey(key).has_bearer_prefix is bearer


def test_no_repr_shows_a_secret() -> None:
    proxy = Proxy("http://proxy.example:3128", f"user:{SECRET}")
    endpoint = Endpoint(PRODUCTION_URL, ApiKey(SECRET), None, proxy)
    for value in (endpoint.key, endpoint, proxy, [endpoint], {"proxy": proxy}):
        for text in (repr(value), str(value), f"{value}"):
            assert SECRET not in text
    assert "proxy.example" in repr(endpoint)


# Proxies


@pytest.fixture
def proxy_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Clear the proxy variables of the environment."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")] + ["REQUEST_METHOD"]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("environment", "origin", "url"),
    [
        ({}, PRODUCTION_URL, None),
        ({"HTTPS_PROXY": ""}, PRODUCTION_URL, None),
        ({"HTTPS_PROXY": "http://p.example:3128"}, PRODUCTION_URL, "http://p.example:3128"),
        ({"https_proxy": "https://p.example"}, PRODUCTION_URL, "https://p.example"),
        ({"HTTPS_PROXY": "p.example:3128"}, PRODUCTION_URL, "http://p.example:3128"),
        ({"HTTPS_PROXY": "http://[2001:db8::1]:3128"}, PRODUCTION_URL, "http://[2001:db8::1]:3128"),
        ({"HTTP_PROXY": "http://p.example"}, PRODUCTION_URL, None),
        ({"HTTP_PROXY": "http://p.example"}, "http://10.0.0.1", "http://p.example"),
        ({"ALL_PROXY": "http://p.example"}, PRODUCTION_URL, "http://p.example"),
        ({"HTTPS_PROXY": "http://p.example", "NO_PROXY": "api.pixxel.space"}, PRODUCTION_URL, None),
        ({"HTTPS_PROXY": "http://p.example", "NO_PROXY": "other, .pixxel.space"}, PRODUCTION_URL, None),
        ({"HTTPS_PROXY": "http://p.example", "no_proxy": "*"}, PRODUCTION_URL, None),
        ({"HTTPS_PROXY": "http://p.example", "NO_PROXY": "other.example"}, PRODUCTION_URL, "http://p.example"),
        ({"HTTP_PROXY": "http://p.example"}, "http://localhost:8080", None),
        ({"HTTP_PROXY": "http://p.example"}, "http://127.0.0.2:8080", None),
        ({"HTTP_PROXY": "http://p.example"}, "http://[::1]:8080", None),
        ({"HTTPS_PROXY": "socks5://p.example"}, "https://localhost", None),
    ],
)
def test_proxy_is_read_from_the_environment(
    proxy_environment: pytest.MonkeyPatch, environment: dict[str, str], origin: str, url: str | None
) -> None:
    for name, value in environment.items():
        proxy_environment.setenv(name, value)
    assert find_proxy(origin) == (None if url is None else Proxy(url))


@pytest.mark.parametrize(
    ("user", "credentials"),
    [("u:s3cr3t@", "u:s3cr3t"), ("u%40x:s3cr3t%2F%3A@", "u@x:s3cr3t/:"), ("s3cr3t@", "s3cr3t:"), ("@", "")],
)
def test_proxy_credentials_are_decoded_and_stored_separately(
    proxy_environment: pytest.MonkeyPatch, user: str, credentials: str
) -> None:
    proxy_environment.setenv("HTTPS_PROXY", f"http://{user}p.example:3128")
    proxy = find_proxy(PRODUCTION_URL)
    assert proxy == Proxy("http://p.example:3128", credentials)
    assert SECRET not in repr(proxy)


@pytest.mark.parametrize(
    "url",
    [
        f"socks5://u:{SECRET}@p.example:1080",
        f"socks5h://u:{SECRET}@p.example",
        f"ftp://u:{SECRET}@p.example",
        f"http://u:{SECRET}@",
        f"http://u:{SECRET}@:3128",
        f"http://u:{SECRET}@p.example:99999",
        f"http://u:{SECRET}@p.example:port",
        f"http://u:{SECRET}@[::1",
        f"http://u:{SECRET}@p example",
        f"http://u:pass/{SECRET}@p.example:3128",  # an unquoted password
        f"http://u:pass#{SECRET}@p.example:3128",
        f"http://u:pass?{SECRET}@p.example:3128",
        f"http:/u:{SECRET}@p.example",
        f"u:{SECRET}/x@p.example:3128",
        f"http://p.example:3128/?p={SECRET}",
        f"http://p.example:3128/{SECRET}",
        f"http://p.example:3128#{SECRET}",
        f"p.example/{SECRET}",
    ],
)
def test_invalid_proxy_is_rejected_and_its_credentials_never_shown(
    proxy_environment: pytest.MonkeyPatch, url: str
) -> None:
    proxy_environment.setenv("HTTPS_PROXY", url)
    with pytest.raises(UsageError, match="proxy") as caught:
        find_proxy(PRODUCTION_URL)
    assert SECRET not in error_text(caught)
    assert "NO_PROXY" in caught.value.hint


# CA bundles


def test_ca_bundle_must_be_a_file_of_pem_certificates(tmp_path: Path, certificates: Certificates) -> None:
    assert load_ca_bundle(None) is None
    assert load_ca_bundle(certificates.bundle)
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not a certificate")
    (tmp_path / "truncated").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
    for name in ("missing", "empty", "text", "truncated", "."):
        path = str(tmp_path / name)
        with pytest.raises(UsageError, match="cannot be used") as caught:
            load_ca_bundle(path)
        assert path in caught.value.message
        assert "PEM" in caught.value.hint
    for path in ("", "a\0b"):  # OpenSSL ignores an empty path and trusts the system's certificates
        with pytest.raises(UsageError):
            load_ca_bundle(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
@pytest.mark.parametrize(("mode", "warned"), [(0o440, False), (0o400, False), (0o444, True), (0o404, True)])
def test_key_file_of_another_owner_may_be_group_readable(tmp_path: Path, mode: int, warned: bool) -> None:
    file = tmp_path / "key"
    file.write_text("a-key", encoding="ascii")
    file.chmod(mode)
    os.chown(file, 65534, 0)
    key, warnings = load_api_key(None, file)
    assert (key.reveal(), bool(warnings)) == ("a-key", warned)
