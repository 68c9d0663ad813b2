"""Convert the errors of aiohttp to those of this package, each with its own remedy."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from dify_kb.errors import ApiError, ConfigError, ConnectError, KnowledgeError, TransportError

if TYPE_CHECKING:
    from collections.abc import Mapping

_WRONG_NAME = (
    "the certificate is for another host name",
    "Use the host name of the certificate in the server address, or replace the certificate.",
)
_TRUST_HINT = (
    "Pass an SSL context with the server's certificate authority as ssl= (--ca FILE), or set ca in"
    " the profile."
)

_CERTIFICATE_PROBLEMS: Mapping[int, tuple[str, str]] = {
    9: ("the certificate is not yet valid", "Check the clocks of this computer and the server."),
    10: ("the certificate has expired", "Renew the certificate on the server."),
    18: ("the certificate is self-signed", _TRUST_HINT),
    19: ("the certificate is self-signed", _TRUST_HINT),
    20: ("the certificate is of an unknown authority", _TRUST_HINT),
    62: _WRONG_NAME,
    64: _WRONG_NAME,
}
"""Problem and remedy by the error code of OpenSSL (X509_V_ERR_…)."""

_TEMPORARY_REFUSALS = frozenset({408, 425, 429})
"""The statuses of a proxy that will connect later."""

_PLAIN_TEXT = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""The errors of OpenSSL for a server that responds in plain text."""

_TLS_ALERT = r"b'\x15\x03"
"""The start of a TLS alert, as aiohttp prints the bytes of an invalid response."""


def convert_error(
    error: Exception, endpoint: str, base_url: str, *, delivered: bool, is_answered: bool
) -> KnowledgeError:
    """Return the error to raise for one of aiohttp, the operating system or the SSL library.

    Args:
        delivered: whether the server may have received the request, if the connection was open.
        is_answered: whether the response had begun to arrive.
    """
    match error:
        case aiohttp.ClientHttpProxyError(status=407):
            return ApiError(
                f"{endpoint}: the proxy requires credentials (407).",
                endpoint=endpoint,
                status=error.status,
                hint="Pass them in the proxy's address: http://USER:PASSWORD@HOST:PORT.",
            )
        case (
            aiohttp.ClientHttpProxyError()
            | aiohttp.ClientConnectorError()
            | aiohttp.ConnectionTimeoutError()
        ):
            peer, reason, hint = _describe_connect_error(error, base_url)
            return ConnectError(
                f"{endpoint}: cannot connect to {peer} ({reason}).",
                endpoint=endpoint,
                permanent=_is_permanent(error),
                hint=hint,
            )
        case ValueError() if not is_answered:
            return ConfigError(
                f"{endpoint}: the request cannot be sent ({error}).",
                hint="Check base_url and proxy. A session that you pass must not have auth or"
                " trust_env, which also reads a netrc file.",
            )
        case _:
            return TransportError(
                f"{endpoint}: lost the connection to {base_url} ({_describe_reason(error)}).",
                endpoint=endpoint,
                delivered=delivered,
                hint=_find_disconnect_hint(error, base_url),
            )


def _is_permanent(error: Exception) -> bool:
    """Return whether a person has to change something before a connection can succeed."""
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return 400 <= error.status < 500 and error.status not in _TEMPORARY_REFUSALS  # noqa: PLR2004 -- 4xx
    return isinstance(error, aiohttp.ClientConnectorCertificateError)


def _describe_connect_error(error: Exception, base_url: str) -> tuple[str, str, str]:
    """Return what could not be reached, the reason, and the remedy."""
    host, port = getattr(error, "host", None), getattr(error, "port", None)
    is_proxy = isinstance(error, aiohttp.ClientProxyConnectionError) or (
        host not in {None, urlsplit(base_url).hostname}
    )
    peer = f"the proxy {host}:{port}" if is_proxy else base_url
    reason = _describe_reason(error)
    hint = "Check the server address and port, and that the server is running and reachable."
    match error:
        case aiohttp.ClientHttpProxyError():
            peer = f"{base_url} through the proxy"
            hint = "Check that the proxy can and may reach the server, or add it to NO_PROXY."
        case aiohttp.ClientConnectorCertificateError(certificate_error=cause):
            code = cause.verify_code if isinstance(cause, ssl.SSLCertVerificationError) else 0
            reason, hint = _CERTIFICATE_PROBLEMS.get(code, (reason, _TRUST_HINT))
        case aiohttp.ClientSSLError() if is_proxy:
            hint = "Use http:// in the proxy's address if the proxy does not use TLS."
        case aiohttp.ClientSSLError():
            plain = base_url.replace("https://", "http://", 1)
            hint = f"Use {plain} if the server does not use TLS on this port."
        case aiohttp.ClientConnectorDNSError():
            hint = f"Check the host name of the {'proxy' if is_proxy else 'server address'}."
        case _ if is_proxy:
            hint = "Check proxy= (--proxy), or HTTPS_PROXY and HTTP_PROXY with trust_env."
    return peer, reason, hint


def _describe_reason(error: Exception) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    match cause:
        case ssl.SSLError(reason=str(reason)):
            is_plain = reason in _PLAIN_TEXT
            return "not a TLS server" if is_plain else reason.replace("_", " ").lower()
        case ConnectionRefusedError():
            return "connection refused"
        case OSError(strerror=str(text)) if text:
            return text
        case aiohttp.ClientHttpProxyError():
            return f"the proxy responded {cause.status} {cause.message}".rstrip()
        case aiohttp.ClientResponseError():
            return f"not HTTP: {' '.join(cause.message.split())[:200]}"
        case _:
            return str(cause) or type(cause).__name__


def _find_disconnect_hint(error: Exception, base_url: str) -> str:
    if _TLS_ALERT in str(getattr(error, "message", "")):
        return f"Use https://{base_url.partition('://')[2]}: the server uses TLS on this port."
    hint = "Check the server, and any proxy in front of it."
    # A TLS server may also just disconnect, as of asyncio.
    is_plain = base_url.startswith("http://") and isinstance(error, aiohttp.ServerDisconnectedError)
    return f"{hint} If the server uses TLS on this port, use https://." if is_plain else hint
