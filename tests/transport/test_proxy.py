"""Choose the proxy by the argument or the environment."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dify_kb import AsyncClient, ConfigError
from dify_kb.transport.proxy import choose_proxy

PROXY = "http://proxy.test:3128"
KEY = "dataset-key"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("variables", "url", "expected"),
    [
        ({"HTTP_PROXY": PROXY}, "http://dify.test/v1", PROXY),
        ({"HTTP_PROXY": PROXY}, "https://dify.test/v1", None),
        ({"https_proxy": PROXY}, "https://dify.test/v1", PROXY),
        ({"ALL_PROXY": PROXY}, "https://dify.test/v1", PROXY),
        ({"ALL_PROXY": PROXY, "HTTP_PROXY": "http://other.test"}, "http://dify.test/v1", "other"),
        ({"ALL_PROXY": "proxy.test:3128/"}, "http://dify.test/v1", PROXY),
        ({}, "http://dify.test/v1", None),
    ],
)
def test_a_proxy_of_the_environment_is_chosen_by_scheme(
    variables: dict[str, str], url: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    chosen = choose_proxy(None, url, trust_env=True)

    assert chosen == ("http://other.test" if expected == "other" else expected)
    assert choose_proxy(None, url, trust_env=False) is None
    assert choose_proxy("http://mine.test:1", url, trust_env=True) == "http://mine.test:1"


@pytest.mark.parametrize(
    ("exceptions", "url", "is_direct"),
    [
        ("*", "http://dify.test/v1", True),
        ("dify.test", "http://dify.test/v1", True),
        ("dify.test", "http://DIFY.test/v1", True),
        ("test", "http://dify.test/v1", True),
        (".test", "http://dify.test/v1", True),
        ("*.test", "http://dify.test/v1", True),
        ("ify.test", "http://dify.test/v1", False),
        ("other.test, dify.test", "http://dify.test/v1", True),
        ("other.test dify.test", "http://dify.test/v1", True),
        ("dify.test:80", "http://dify.test/v1", True),
        ("dify.test:443", "https://dify.test/v1", True),
        ("dify.test:8080", "http://dify.test/v1", False),
        ("dify.test:8080", "http://dify.test:8080/v1", True),
        ("10.0.0.0/8", "http://10.1.2.3/v1", True),
        ("10.0.0.0/8", "http://11.1.2.3/v1", False),
        ("10.0.0.5/8", "http://10.1.2.3/v1", True),
        ("10.1.2.3", "http://10.1.2.3:5001/v1", True),
        ("10.1.2.3:5001", "http://10.1.2.3:5001/v1", True),
        ("::1", "http://[::1]:5001/v1", True),
        ("[::1]:5001", "http://[::1]:5001/v1", True),
        ("fd00::/8", "http://[fd12::1]/v1", True),
        ("10.0.0.0/8", "http://dify.test/v1", False),
        ("", "http://dify.test/v1", False),
        (",,", "http://dify.test/v1", False),
        ("10.0.0.0/99,[,:", "http://dify.test/v1", False),
    ],
)
def test_no_proxy_excludes_hosts_ports_and_networks(
    exceptions: str,
    url: str,
    is_direct: bool,  # noqa: FBT001 -- a parameter of the test
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", exceptions)

    assert (choose_proxy(None, url, trust_env=True) is None) is is_direct


@pytest.mark.parametrize(
    ("proxy", "message", "remedy"),
    [
        ("proxy.test:3128", "has no scheme: 'proxy.test:3128'", "Use http://proxy.test:3128."),
        ("socks5://proxy.test:1080", "Unsupported scheme 'socks5'", "SOCKS is not supported"),
        ("http://", "Invalid address", "http://proxy.example:3128"),
        ("http://pro xy.test", "Invalid address", "http://proxy.example:3128"),
        ("http://me:Pa55@exa..mple", "'exa..mple'", "http://proxy.example:3128"),
        ("me:Pa55@proxy.test", "'proxy.test'", "Use http://proxy.test."),
        ("", "has no scheme", "Use http://"),
    ],
)
def test_an_invalid_proxy_is_refused_with_its_remedy(proxy: str, message: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as raised:
        AsyncClient("http://dify.test", KEY, proxy=proxy)

    assert message in raised.value.summary
    assert remedy in raised.value.hint
    assert "Pa55" not in str(raised.value)


def test_a_socks_proxy_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise documents would be sent directly, or HTTP to a SOCKS server."""
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:1080")

    with pytest.raises(ConfigError, match="ALL_PROXY"):
        AsyncClient("http://dify.test", KEY, trust_env=True)


async def list_as_empty(request: web.Request) -> web.Response:
    seen = {name: request.headers.get(name) for name in ("Authorization", "Proxy-Authorization")}
    return web.json_response({"data": [], "limit": 20, "total": 0, "page": 1, **seen})


@pytest.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", list_as_empty)
    async with TestServer(app) as running:
        yield str(running.make_url("")).rstrip("/")


async def test_a_netrc_file_is_never_read(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp would combine its password with the API key, and fail."""
    file = tmp_path / "netrc"
    file.write_text("default login me password Pa55\n")
    monkeypatch.setenv("NETRC", str(file))

    async with AsyncClient(server, KEY, trust_env=True) as client:
        page = await client.datasets.list()

    assert page.extra["Authorization"] == f"Bearer {KEY}"


async def test_a_session_with_a_netrc_file_is_refused_with_the_remedy(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "netrc"
    file.write_text("default login me password Pa55\n")
    monkeypatch.setenv("NETRC", str(file))
    async with (
        aiohttp.ClientSession(trust_env=True) as session,
        AsyncClient(server, KEY, session=session) as client,
    ):
        with pytest.raises(ConfigError) as raised:
            await client.datasets.list()

    assert "netrc" in raised.value.hint
    assert "Pa55" not in str(raised.value)


async def test_the_credentials_of_the_proxy_are_sent_to_it(server: str) -> None:
    proxy = server.replace("http://", "http://me:Pa55@")

    async with AsyncClient("http://dify.test", KEY, proxy=proxy) as client:
        page = await client.datasets.list()

    assert page.extra["Proxy-Authorization"] == "Basic bWU6UGE1NQ=="
    assert page.extra["Authorization"] == f"Bearer {KEY}"


async def test_the_embedded_server_is_reached_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    async with AsyncClient("emulator:", trust_env=True) as client:
        assert (await client.datasets.list()).total == 0
