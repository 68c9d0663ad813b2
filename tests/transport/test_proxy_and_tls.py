from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer

from dify_kb import AsyncClient, Client, ConfigError, ConnectError, Policy
from dify_kb.cli import run
from dify_kb.profiles import config_file, load_ca_file

KEY = "dataset-key"


async def answer_empty_page(request: web.Request) -> web.Response:
    if request.headers.get("Authorization") != f"Bearer {KEY}":
        return web.json_response({"code": "unauthorized"}, status=401)
    seen = {"via": request.headers.get("X-Tenant"), "target": str(request.url)}
    return web.json_response({"data": [], "limit": 20, "total": 0, "page": 1, **seen})


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def secure(authority: trustme.CA) -> AsyncIterator[str]:
    """Start a server whose certificate is signed by a private authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    app = web.Application()
    app.router.add_get("/v1/datasets", answer_empty_page)
    server = TestServer(app, host="localhost")
    await server.start_server(ssl=context)
    yield f"https://localhost:{server.port}"
    await server.close()


async def test_a_custom_certificate_authority_is_accepted_with_ssl(
    secure: str, authority: trustme.CA
) -> None:
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async with AsyncClient(secure, KEY, ssl=context) as client:
        assert (await client.datasets.list()).total == 0


async def test_the_certificate_authority_of_a_profile_is_used(
    secure: str, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its path is relative to the configuration file."""
    config_file().parent.mkdir(parents=True)
    authority.cert_pem.write_to_path(config_file().parent / "ca.pem")
    config_file().write_text(f'[private]\nurl = "{secure}"\nca = "ca.pem"\n')
    monkeypatch.setenv("DIFY_API_KEY", KEY)

    async with AsyncClient.from_profile("private") as client:
        assert (await client.datasets.list()).total == 0
    with Client.from_profile("private") as blocking:
        assert (await anyio.to_thread.run_sync(blocking.datasets.list)).total == 0
    arguments = ["--profile", "private", "datasets", "list"]
    assert await anyio.to_thread.run_sync(run, arguments) == 0


def test_a_certificate_authority_that_cannot_be_read_is_an_error() -> None:
    config_file().parent.mkdir(parents=True)
    config_file().write_text('[private]\nurl = "https://dify.test"\nca = "ca.pem"\n')

    with pytest.raises(ConfigError, match="ca of profile 'private'"):
        AsyncClient.from_profile("private")


async def test_an_unknown_certificate_is_refused_with_the_remedy(
    secure: str, quick: Policy
) -> None:
    async with AsyncClient(secure, KEY, policy=quick) as client:
        with pytest.raises(ConnectError) as caught:
            await client.datasets.list()

    assert "SSL context" in caught.value.hint
    assert "as ssl= (--ca FILE), or set ca in the profile" in caught.value.hint
    assert KEY not in str(caught.value)


@pytest.fixture
async def proxy() -> AsyncIterator[str]:
    """Start a proxy that responds itself and records its requests."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer_empty_page)
    async with TestServer(app) as server:
        yield str(server.make_url(""))


async def test_requests_go_through_the_proxy_with_custom_headers(proxy: str) -> None:
    headers = {"X-Tenant": "blue"}

    async with AsyncClient("http://dify.test", KEY, proxy=proxy, headers=headers) as client:
        page = await client.datasets.list()

    assert page.extra == {"via": "blue", "target": "http://dify.test/v1/datasets?page=1&limit=20"}


async def test_the_environment_proxy_is_used_only_with_trust_env(
    proxy: str, quick: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Documents must not be sent to a proxy that the user did not choose for them."""
    monkeypatch.setenv("http_proxy", proxy)

    async with AsyncClient("http://dify.test", KEY, trust_env=True) as client:
        assert (await client.datasets.list()).total == 0
    async with AsyncClient("http://127.0.0.1:1", KEY, policy=quick) as client:
        with pytest.raises(ConnectError):
            await client.datasets.list()


def test_a_certificate_file_is_read(tmp_path: Path, authority: trustme.CA) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)

    assert load_ca_file(file, "--ca").get_ca_certs()
