"""Each cause of a failed connection has its own sentence and remedy."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
import trustme
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

import dify_kb
from dify_kb import AsyncClient, AttemptEvent, KnowledgeError, Policy, Retry, Timeout
from dify_kb.emulator import Emulator

KEY = "dataset-Secret123"
D1 = "11111111-1111-4111-8111-111111111111"
ONCE = Policy(
    timeout=Timeout(connect=5, read=5, answer=5),
    retry=Retry(read_attempts=1, idempotent_attempts=1, write_attempts=1, throttled_attempts=1),
)
NOW = datetime.now(UTC)
AUTHORITY = trustme.CA()
Handler = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def serve(
    handler: Handler, certificate: trustme.LeafCert | None = None
) -> AsyncIterator[int]:
    """Serve on a port of 127.0.0.1, with TLS if a certificate is given; yield the port."""
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    port = listener.extra(SocketAttribute.local_port)  # noqa: S610 -- anyio's, not Django's
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        listener = TLSListener(listener, context, standard_compatible=False)

    async def handle(stream: Any) -> None:
        try:
            async with stream:
                await handler(stream)
        except (anyio.BrokenResourceError, anyio.EndOfStream):
            pass

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, handle)
        yield port
        group.cancel_scope.cancel()


def respond(text: str) -> Handler:
    """Return a handler that sends a response to the first bytes, whatever they are."""

    async def handle(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(text.replace("\n", "\r\n").encode("latin-1"))
        with anyio.move_on_after(1):  # a reset would discard the response
            await stream.receive()

    return handle


async def fail_list(url: str, **options: Any) -> KnowledgeError:
    """List the datasets of a server and return the error."""
    async with AsyncClient(url, KEY, policy=ONCE, **options) as client:
        with pytest.raises(KnowledgeError) as raised:
            await client.datasets.list()
    assert KEY not in f"{raised.value} {raised.value!r} {vars(raised.value)}"
    return raised.value


def trust_authority() -> ssl.SSLContext:
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


# --- TLS


async def test_https_to_a_plain_port_names_the_http_address() -> None:
    page = "HTTP/1.1 400 Bad Request\nConnection: close\nContent-Length: 0\n\n"
    async with serve(respond(page)) as port:
        error = await fail_list(f"https://127.0.0.1:{port}")

    assert isinstance(error, dify_kb.ConnectError)
    assert "not a TLS server" in error.summary
    assert f"Use http://127.0.0.1:{port}/v1" in error.hint


async def test_http_to_a_tls_port_names_the_https_address() -> None:
    """OpenSSL sends an alert, which is not a response of HTTP."""
    async with serve(respond("\x15\x03\x01\x00\x02\x02\x46")) as port:
        error = await fail_list(f"http://127.0.0.1:{port}")

    assert f"Use https://127.0.0.1:{port}/v1" in error.hint


async def test_http_to_a_tls_port_that_disconnects_mentions_https() -> None:
    async with serve(respond("unreachable"), AUTHORITY.issue_cert("127.0.0.1")) as port:
        error = await fail_list(f"http://127.0.0.1:{port}")

    assert isinstance(error, dify_kb.TransportError)
    assert "https://" in error.hint


@pytest.mark.parametrize(
    "text",
    [
        "<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>",
        "Client sent an HTTP request to an HTTPS server.\n",
    ],
    ids=["nginx", "Go"],
)
async def test_a_refusal_of_plain_http_mentions_https(text: str) -> None:
    head = f"HTTP/1.1 400 Bad Request\nContent-Length: {len(text.encode())}\n"
    head += f"Content-Type: {'text/html' if '<' in text else 'text/plain'}\n\n"
    async with serve(respond(head + text.replace("\n", " "))) as port:
        error = await fail_list(f"http://127.0.0.1:{port}")

    assert error.hint == "Use https:// in the base URL."


CERTIFICATES = {
    "expired": (
        AUTHORITY.issue_cert(
            "127.0.0.1", not_before=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1)
        ),
        "has expired",
        "Renew the certificate",
    ),
    "future": (
        AUTHORITY.issue_cert("127.0.0.1", not_before=NOW + timedelta(days=1)),
        "not yet valid",
        "Check the clocks",
    ),
    "address": (AUTHORITY.issue_cert("dify.example"), "for another host name", "Use the host name"),
    "unknown": (trustme.CA().issue_cert("127.0.0.1"), "unknown authority", "SSL context"),
}


@pytest.mark.parametrize("kind", CERTIFICATES)
async def test_an_invalid_certificate_has_its_own_remedy(kind: str) -> None:
    certificate, problem, remedy = CERTIFICATES[kind]
    async with serve(respond("never"), certificate) as port:
        error = await fail_list(f"https://127.0.0.1:{port}", ssl=trust_authority())

    assert isinstance(error, dify_kb.ConnectError)
    assert problem in error.summary
    assert remedy in error.hint
    assert kind == "unknown" or "SSL context" not in error.hint


@pytest.mark.parametrize("kind", CERTIFICATES)
async def test_an_invalid_certificate_is_not_retried(kind: str) -> None:
    """A person has to replace it, while every attempt costs a handshake."""
    attempts: list[AttemptEvent] = []
    async with (
        serve(respond("never"), CERTIFICATES[kind][0]) as port,
        AsyncClient(
            f"https://127.0.0.1:{port}", KEY, ssl=trust_authority(), on_event=attempts.append
        ) as client,
    ):
        with pytest.raises(dify_kb.ConnectError) as raised:
            await client.datasets.list()

    assert raised.value.permanent
    assert len(attempts) == 1


async def test_a_certificate_for_another_name_is_told_from_an_unknown_one() -> None:
    async with serve(respond("never"), AUTHORITY.issue_cert("127.0.0.1")) as port:
        error = await fail_list(f"https://localhost:{port}", ssl=trust_authority())

    assert "another host name" in error.summary


# --- addresses


async def test_an_unknown_host_name_is_said() -> None:
    error = await fail_list("http://dify.invalid")

    assert isinstance(error, dify_kb.ConnectError)
    assert error.hint == "Check the host name of the server address."


async def test_a_closed_port_is_said() -> None:
    error = await fail_list("http://127.0.0.1:1")

    assert "cannot connect to http://127.0.0.1:1/v1 (connection refused)" in error.summary
    assert "port" in error.hint


REDIRECTS = {
    "https": ("https://dify.test/v1/datasets?page=1", "base URL: https://dify.test/v1."),
    "path": ("/api/v1/datasets?page=1", "/api/v1."),
    "slash": ("http://dify.test/v1/datasets/", "base URL: http://dify.test/v1."),
    "login": ("https://sso.test/login?next=%2Fv1&token=Secret", "without a login"),
    "oauth": ("/oauth2/start?rd=%2Fv1", "without a login"),
    "home": ("/", "Check the base URL"),
}


@pytest.mark.parametrize("kind", REDIRECTS)
async def test_a_redirect_has_its_own_remedy(kind: str) -> None:
    """The address of a login page is not the base URL."""
    location, remedy = REDIRECTS[kind]
    page = f"HTTP/1.1 302 Found\nLocation: {location}\nContent-Length: 0\n\n"
    async with serve(respond(page)) as port:
        error = await fail_list(f"http://127.0.0.1:{port}")

    assert remedy in error.hint
    assert "Secret" not in str(error)
    if location.startswith("/"):
        assert f"redirect to http://127.0.0.1:{port}{location.partition('?')[0]}" in error.summary


PAGES = {
    "wrong path": (404, "404 Not Found", "Check the path of the base URL"),
    "console": (200, "Dify", "it should be the address of a Dify API"),
    "login page": (200, "Sign in to Example", "without a login"),
    "login of a proxy": (401, "401 Authorization Required", "API key was not checked"),
    "firewall": (403, "Blocked", "firewall"),
    "server down behind a proxy": (502, "502 Bad Gateway", "behind the proxy"),
    "login of the proxy": (407, "Proxy Authentication Required", "USER:PASSWORD"),
}


@pytest.mark.parametrize("kind", PAGES)
async def test_a_page_in_place_of_a_response_has_its_own_remedy(kind: str) -> None:
    status, title, remedy = PAGES[kind]
    body = f"<html><title>{title}</title></html>"
    head = f"HTTP/1.1 {status} X\nContent-Type: text/html\nContent-Length: {len(body)}\n\n"
    async with serve(respond(head + body)) as port:
        error = await fail_list(f"http://127.0.0.1:{port}")

    assert remedy in error.hint


def respond_by_path(pages: dict[str, str]) -> Handler:
    """Return a handler of one request per connection; other paths get a page with 404."""

    async def handle(stream: SocketStream) -> None:
        path = (await stream.receive()).split()[1].decode().partition("?")[0]
        page = pages.get(path, "404 X\nContent-Type: text/html\n\n<html></html>")
        head, _, body = page.partition("\n\n")
        head = f"HTTP/1.1 {head}\nConnection: close\nContent-Length: {len(body)}\n\n"
        await stream.send((head.replace("\n", "\r\n") + body).encode())

    return handle


@pytest.mark.parametrize(
    "answer",
    [
        '200 OK\n\n{"data": [], "limit": 1, "total": 0, "page": 1, "has_more": false}',
        '401 No\n\n{"code": "unauthorized", "message": "Access token is invalid", "status": 401}',
    ],
    ids=["a valid key", "an invalid key"],
)
async def test_ping_needs_neither_the_route_nor_the_version_header(answer: str) -> None:
    """1.12.1 and 1.14.2 lack `GET /v1/`; a proxy may remove `X-Version`."""
    async with (
        serve(respond_by_path({"/v1/datasets": answer})) as port,
        AsyncClient(f"http://127.0.0.1:{port}", KEY, policy=ONCE) as client,
    ):
        info = await client.ping()

    assert info.server_version is None


async def test_ping_of_another_server_is_an_error() -> None:
    async with (
        serve(respond_by_path({})) as port,
        AsyncClient(f"http://127.0.0.1:{port}", KEY, policy=ONCE) as client,
    ):
        with pytest.raises(dify_kb.NotFoundError, match="Check the path of the base URL"):
            await client.ping()


async def test_a_plugin_daemon_that_is_down_is_a_temporary_failure(
    client: AsyncClient, emulator: Emulator
) -> None:
    """Dify answers 400 invalid_param, as for a wrong request."""
    emulator.faults.plan("datasets.list", ["plugin-daemon"] * 2)
    await client.datasets.list()
    emulator.faults.plan("datasets.list", ["plugin-daemon"] * 20)

    with pytest.raises(dify_kb.ServerError) as raised:
        await client.datasets.list()

    assert "plugin daemon" in raised.value.hint
    assert "Correct the request" not in raised.value.hint


# --- proxies


async def test_an_unreachable_proxy_is_told_from_an_unreachable_server() -> None:
    for server in ("http://dify.test", "https://dify.test"):
        error = await fail_list(server, proxy="http://127.0.0.1:1")

        assert isinstance(error, dify_kb.ConnectError)
        assert "cannot connect to the proxy 127.0.0.1:1 (connection refused)" in error.summary
        assert "--proxy" in error.hint


async def test_an_unknown_host_name_of_the_proxy_is_said() -> None:
    error = await fail_list("https://dify.test", proxy="http://proxy.invalid:3128")

    assert "the proxy proxy.invalid:3128" in error.summary
    assert "host name of the proxy" in error.hint


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_requires_credentials_is_said(scheme: str) -> None:
    page = "HTTP/1.1 407 Proxy Authentication Required\nContent-Length: 0\n\n"
    async with serve(respond(page)) as port:
        error = await fail_list(f"{scheme}://dify.test", proxy=f"http://127.0.0.1:{port}")

    assert isinstance(error, dify_kb.ApiError)
    assert error.status == 407
    assert "http://USER:PASSWORD@HOST:PORT" in error.hint


@pytest.mark.parametrize("status", [403, 502])
async def test_a_proxy_that_does_not_connect_is_said(status: int) -> None:
    async with serve(respond(f"HTTP/1.1 {status} Nope\nContent-Length: 0\n\n")) as port:
        error = await fail_list("https://dify.test", proxy=f"http://u:Pa55@127.0.0.1:{port}")

    assert isinstance(error, dify_kb.ConnectError)
    assert f"through the proxy (the proxy responded {status} Nope)" in error.summary
    assert "Pa55" not in f"{error} {error.__cause__!r}"
    assert error.permanent == (status == 403)


@pytest.mark.parametrize(("status", "number"), [(403, 1), (404, 1), (407, 1), (429, 3), (502, 3)])
async def test_a_refusal_of_the_proxy_is_not_retried(status: int, number: int) -> None:
    attempts: list[AttemptEvent] = []
    policy = evolve(Policy().scaled(0.001), retry=Retry(read_attempts=3, base_delay=0.001))
    async with (
        serve(respond(f"HTTP/1.1 {status} Nope\nContent-Length: 0\n\n")) as port,
        AsyncClient(
            "https://dify.test",
            KEY,
            proxy=f"http://127.0.0.1:{port}",
            policy=policy,
            on_event=attempts.append,
        ) as client,
    ):
        with pytest.raises(KnowledgeError):
            await client.datasets.list()

    assert len(attempts) == number


# --- anything


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=200)
    | st.builds(
        b"HTTP/1.1 %d X\r\n%b: %b\r\n\r\n%b".__mod__,
        st.tuples(
            st.sampled_from([200, 204, 302, 404, 500, 999]),
            st.sampled_from([b"Content-Length", b"Content-Encoding", b"Content-Type"])
            | st.sampled_from([b"Transfer-Encoding", b"Location", b"Retry-After", b"X"]),
            st.binary(max_size=20) | st.sampled_from([b"gzip", b"br", b"chunked", b"http://["]),
            st.binary(max_size=60),
        ),
    )
)
async def test_any_response_is_an_error_of_this_package(response: bytes) -> None:
    async def handle(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(response)

    async with (
        serve(handle) as port,
        AsyncClient(f"http://127.0.0.1:{port}", KEY, policy=ONCE) as c,
    ):
        with pytest.raises(KnowledgeError):
            await c.datasets.list()
        with contextlib.suppress(KnowledgeError):  # a delete needs no body
            await c.datasets.delete(D1)


async def test_a_name_that_is_not_unicode_is_refused(client: AsyncClient) -> None:
    for call in (
        client.documents.indexing_status(D1, "\udcff"),
        client.datasets.list(keyword="\udcff"),
    ):
        with pytest.raises(dify_kb.ConfigError, match="not valid Unicode"):
            await call
