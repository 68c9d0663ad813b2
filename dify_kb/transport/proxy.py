"""Choose the proxy for a server: that of the argument, or of the environment."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from dify_kb.config import split_url
from dify_kb.errors import ConfigError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def choose_proxy(proxy: str | None, base_url: str, *, trust_env: bool) -> str | None:
    """Return the address of the proxy for a server, or None for a direct connection.

    With `trust_env` and without `proxy`, the variables HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and
    NO_PROXY decide, also in lower case. Nothing else of the environment is read, and no netrc file.

    Raises:
        ConfigError: the address is invalid, or its scheme is neither `http` nor `https`.
    """
    if proxy is not None:
        return _check_proxy(proxy, "proxy= (--proxy)")
    if not trust_env:
        return None
    server, variables = urlsplit(base_url), getproxies()
    name = next((name for name in (server.scheme, "all") if variables.get(name)), None)
    if name is None or _is_excluded(server, variables.get("no", "")):
        return None
    proxy = variables[name]
    # By convention, the variables may omit the scheme.
    return _check_proxy(proxy if "://" in proxy else f"http://{proxy}", f"{name.upper()}_PROXY")


def _check_proxy(proxy: str, source: str) -> str:
    parts = split_url(proxy.strip())
    # Without the credentials, which may be part of the address.
    shown = proxy.strip().rpartition("@")[2]
    scheme, separator, _ = proxy.strip().partition("://")
    if not separator:
        raise ConfigError(
            f"The address of the proxy in {source} has no scheme: {shown!r}.",
            hint=f"Use http://{shown}.",
        )
    if scheme.lower() not in _DEFAULT_PORTS:
        raise ConfigError(
            f"Unsupported scheme {scheme!r} of the proxy in {source}.",
            hint="Use an HTTP proxy, such as http://proxy.example:3128; SOCKS is not supported.",
        )
    if parts is None:
        raise ConfigError(
            f"Invalid address of the proxy in {source}: {shown!r}.",
            hint="Use an address such as http://proxy.example:3128.",
        )
    return parts._replace(path="", query="", fragment="").geturl()


def _is_excluded(server: SplitResult, exceptions: str) -> bool:
    """Return whether NO_PROXY excludes a server.

    It lists host names, which include their subdomains, addresses and networks (10.0.0.0/8), each
    optionally with a port; `*` excludes every server.
    """
    host = (server.hostname or "").rstrip(".")
    port = server.port or _DEFAULT_PORTS[server.scheme]
    return any(_matches(entry.lower(), host, port) for entry in re.split(r"[,\s]+", exceptions))


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    entry, entry_port = _split_port(entry)
    if entry_port not in {None, port}:
        return False
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:  # one of them is a name
        name = entry.removeprefix("*").strip(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split `host:port` or `[address]:port`; an address without brackets has no port."""
    if match := re.fullmatch(r"\[(.*)\](?::(\d+))?|([^:]*):(\d+)", entry):
        port = match[2] or match[4]
        return match[1] or match[3] or "", int(port) if port else None
    return entry, None
