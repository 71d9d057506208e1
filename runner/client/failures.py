"""Why an exchange failed and what to do about it: the messages of its errors, and the hint for each kind of error."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from runner.client.job import decode_lossless, parse_json_object
from runner.client.response import ExchangeResult, NoResponse, Response
from runner.core.models import ErrorInfo

_WITH_PREFIX = "sent with a 'Bearer ' prefix"
_EXCERPT = 2_000  # characters of an unusable response that an error keeps

_HINTS = {  # by kind, for errors that are not about a single job
    "unreachable": "Check the base URL, the proxy (HTTPS_PROXY, NO_PROXY) and the network, or try again later.",
    "untrusted": "Ask the server's administrator to check its certificate.",
    "unauthorized": "Set PIXXEL_API_KEY or --api-key-file to a key of this API.",
    "forbidden": "Check the project, and the permissions of the key.",
    "redirected": "Check the base URL.",
    "throttled": "Try again later.",
    "server_error": "Try again later.",
}
_UNKNOWN_AUTHORITY = (
    "Trust a private certificate authority with --ca-bundle FILE; if you did, the file lacks this host's authority."
)
_CERTIFICATE_HINTS = {  # by what OpenSSL says
    "has expired": "Check this machine's clock; if it is right, the host needs a new certificate.",
    "not yet valid": "Check this machine's clock; if it is right, the host's certificate is not valid yet.",
    "mismatch": "Check the host name in the base URL; if it is right, the host needs a certificate for that name.",
    "issuer certificate": _UNKNOWN_AUTHORITY,
    "self-signed": _UNKNOWN_AUTHORITY,
    "self signed": _UNKNOWN_AUTHORITY,  # before OpenSSL 3.0
    "verify the first certificate": _UNKNOWN_AUTHORITY,
}


def error_from_read(result: ExchangeResult, *, bearer: bool = False) -> ErrorInfo:
    """Describe why a GET request failed. `bearer`: the key begins with `Bearer `."""
    if isinstance(result, NoResponse):
        return ErrorInfo("untrusted" if result.cause == "certificate" else "unreachable", result.detail)
    match result.status:
        case 301 | 302 | 303 | 307 | 308:
            return redirect_error(result)
        case 401:
            return key_error(result, bearer=bearer)
        case 425 | 429:
            return throttle_error(result)
    if result.status < HTTPStatus.MULTIPLE_CHOICES:
        return error_from_response(result, "unreadable", "the response cannot be read")
    failed = result.status >= HTTPStatus.INTERNAL_SERVER_ERROR
    kind, explanation = (
        ("server_error", "the server failed") if failed else ("rejected", "the API rejected the request")
    )
    return error_from_response(result, kind, explanation)


def hint_for(error: ErrorInfo) -> str:
    """Return what to do about an error; empty when it is about a single job or workflow."""
    if error.kind == "untrusted":
        for reason, hint in _CERTIFICATE_HINTS.items():
            if reason in error.message:
                return hint
    if error.kind == "unauthorized" and _WITH_PREFIX in error.message:
        return "Try the key alone, without the prefix."
    return _HINTS.get(error.kind, "")


def redirect_error(response: Response) -> ErrorInfo:
    """Return the error of a redirect, which names its target."""
    target = response.headers.get("location", "an unknown location")
    return error_from_response(response, "redirected", f"the server redirects to {target}; redirects are not followed")


def key_error(response: Response, *, bearer: bool) -> ErrorInfo:
    """Return the error of a 401, with what the form of the key suggests. `bearer`: it begins with `Bearer `."""
    prefix = _WITH_PREFIX if bearer else "sent without a 'Bearer ' prefix"
    return error_from_response(response, "unauthorized", f"the API does not recognize the key ({prefix})")


def throttle_error(response: Response) -> ErrorInfo:
    """Return the error of a 425 or 429, whose phrase says enough."""
    return error_from_response(response, "throttled", "")


def error_from_response(response: Response, kind: str, explanation: str) -> ErrorInfo:
    """Return the error of a response, with what the API says about it and what the API's support asks for."""
    api_error = (parse_json_object(response.body) or {}).get("error")
    message = _api_message(api_error)
    if not message or not explanation:
        message = message or explanation
    elif kind != "rejected":  # of a rejection the API gives the reason itself
        message = f"{message}; {explanation}" if explanation.endswith(")") else f"{message} ({explanation})"
    return ErrorInfo(
        kind=kind,
        message=f"HTTP {response.status}{_phrase(response.status)}{': ' * bool(message)}{message}",
        http_status=response.status,
        api_error=api_error,
        request_id=response.headers.get("x-request-id"),
        date=response.headers.get("date"),
        retry_after=response.headers.get("retry-after"),
        body=None if api_error is not None else decode_lossless(response.body)[:_EXCERPT] or None,
    )


def _phrase(status: int) -> str:
    try:
        return f" {HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _api_message(api_error: Any) -> str:
    """What the `error` field of a response says; empty when it has none of the documented forms."""
    if isinstance(api_error, str):
        return api_error
    if not isinstance(api_error, dict):
        return ""
    parts = [api_error.get(key) for key in ("code", "message", "details")]
    return ": ".join(part if isinstance(part, str) else json.dumps(part) for part in parts if part)
