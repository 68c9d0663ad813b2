from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from load_examples import count_outcomes, create_dataset, list_document_names
from yarl import URL

from dify_kb import AsyncClient
from dify_kb.errors import ConfigError, SourceError
from dify_kb.ingest.sources import http_downloads, url_list
from dify_kb.ingest.sources.file_content import MAX_SMALL_FILE
from dify_kb.ingest.sources.url_list import UrlList, make_url_key

SECRET = "the-secret-token"


@define
class Page:
    body: bytes = b"text"
    type: str = "text/html"
    etag: str = '"1"'
    modified: str = ""
    status: int = 200
    is_chunked: bool = False
    disposition: str = ""


@define
class Site:
    """A web server, and what was requested of it."""

    pages: dict[str, Page]
    requests: list[tuple[str, str, int]] = field(factory=list)
    """Method, path and status."""

    port: int = 0
    active: int = 0
    most: int = 0
    supports_head: bool = True
    failures: list[int] = field(factory=list)
    agents: set[str] = field(factory=set)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def key(self, path: str) -> str:
        return f"127.0.0.1_{self.port}/{path}"

    def bodies(self) -> list[str]:
        """Return the paths whose body was sent since the last call."""
        sent = [path for method, path, status in self.requests if (method, status) == ("GET", 200)]
        self.requests.clear()
        return sorted(sent)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.active += 1
        self.most = max(self.most, self.active)
        self.agents.add(request.headers.get("User-Agent", ""))
        await asyncio.sleep(0.005)
        try:
            response = self.respond(request)
        finally:
            self.active -= 1
        self.requests.append((request.method, request.path[1:], response.status))
        return response

    def respond(self, request: web.Request) -> web.StreamResponse:
        path = request.path[1:]
        if self.failures:
            return web.Response(status=self.failures.pop(), headers={"Retry-After": "0"})
        if request.method == "HEAD" and not self.supports_head:
            return web.Response(status=405)
        if path == "loop":
            raise web.HTTPFound("/loop")
        if path == "moved":
            raise web.HTTPFound("/a.md")
        page = self.pages.get(path)
        if page is None:
            return web.Response(status=404, text="no such page")
        headers = {"Content-Type": page.type}
        headers |= {"ETag": page.etag} if page.etag else {}
        headers |= {"Last-Modified": page.modified} if page.modified else {}
        headers |= {"Content-Disposition": page.disposition} if page.disposition else {}
        asked = request.headers
        is_same = bool(page.etag) and asked.get("If-None-Match") == page.etag
        is_same |= bool(page.modified) and asked.get("If-Modified-Since") == page.modified
        status = 304 if is_same else page.status
        response = web.Response(status=status, headers=headers, body=b"" if is_same else page.body)
        if page.is_chunked:
            response.enable_chunked_encoding()
        return response


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    monkeypatch.setattr(http_downloads, "RETRY_DELAYS", (0.0, 0.0))
    served = Site({})
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", served.serve)
    runner = web.AppRunner(application)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    served.port = runner.addresses[0][1]
    yield served
    await runner.cleanup()


async def test_second_run_downloads_only_what_changed(
    client: AsyncClient, site: Site, tmp_path: Path
) -> None:
    site.pages = {f"{number}.md": Page(f"text {number}".encode()) for number in range(20)}
    site.pages["dated.md"] = Page(etag="", modified="Sun, 01 Nov 2026 10:00:00 GMT")
    site.pages["large.txt"] = Page(b"x" * (3 * MAX_SMALL_FILE))
    listing = tmp_path / "urls.txt"
    lines = ["# a comment", "", *map(site.url, site.pages), site.url("0.md"), site.url("1.md#part")]
    listing.write_text("\n".join(lines))
    dataset = await create_dataset(client)

    first = await client.load(dataset, UrlList(listing))
    assert site.bodies() == sorted(site.pages)
    second = await client.load(dataset, UrlList(listing))
    assert site.bodies() == []
    site.pages["3.md"] = Page(b"other", etag='"2"')
    site.pages["large.txt"] = Page(b"y" * (3 * MAX_SMALL_FILE), etag='"2"')
    third = await client.load(dataset, UrlList(listing))

    assert site.bodies() == ["3.md", "large.txt"]
    assert count_outcomes(first) == {"added": 22}
    assert count_outcomes(second) == {"unchanged": 22}
    assert count_outcomes(third) == {"updated": 2, "unchanged": 20}
    assert site.most <= http_downloads.MAX_CONCURRENT
    assert site.agents == {"dify-kb"}


async def test_same_content_with_another_etag_is_not_sent(client: AsyncClient, site: Site) -> None:
    site.pages = {"a.md": Page(), "b.md": Page(etag="")}
    dataset, source = await create_dataset(client), UrlList(map(site.url, site.pages))
    await client.load(dataset, source)
    site.pages["a.md"] = Page(etag='"2"')
    site.requests.clear()

    report = await client.load(dataset, source)
    assert site.bodies() == ["a.md", "b.md"]
    again = await client.load(dataset, source)

    assert count_outcomes(report) == count_outcomes(again) == {"unchanged": 2}
    assert site.bodies() == ["b.md"]  # it has no validator


@pytest.mark.parametrize("method", ["HEAD", "GET"])
async def test_type_gives_the_extension(client: AsyncClient, site: Site, method: str) -> None:
    site.supports_head = method == "HEAD"
    site.pages = {
        "guide": Page(type="text/html; charset=utf-8"),
        "folder/": Page(),
        "page.php": Page(),
        "v1.2": Page(type="text/markdown"),
        "notes": Page(type="text/plain"),
        "data": Page(b"{}", type="application/json"),
        "tool.py": Page(type="text/plain"),
        "raw.bin": Page(type="application/octet-stream"),
        "a.md": Page(type="text/plain"),
        "get": Page(type="application/octet-stream", disposition='attachment; filename="Ü.MD"'),
        "list": Page(
            b"a,b\n1,2\n", "text/plain", disposition="attachment; filename*=UTF-8''%C3%A9.csv"
        ),
        "odd": Page(disposition="attachment; filename=setup.exe"),
    }
    dataset = await create_dataset(client)

    report = await client.load(dataset, UrlList(map(site.url, site.pages)), as_text=["*.py"])
    again = await client.load(dataset, UrlList(map(site.url, site.pages)), as_text=["*.py"])

    host = f"127.0.0.1_{site.port}__"
    assert count_outcomes(report) == {"added": 10, "skipped": 2}
    assert report.skipped_reasons == {"unsupported type .bin": 1, "unsupported type .json": 1}
    assert count_outcomes(again) == {"unchanged": 10, "skipped": 2}
    assert await list_document_names(client, dataset) == [
        f"{host}{name}"
        for name in (
            "a.md", "folder__index.html", "get.md", "guide.html", "list.csv", "notes.txt",
            "odd.html", "page.php.html", "tool.py.txt", "v1.2.md",
        )
    ]  # fmt: skip


async def test_failing_url_fails_alone_with_its_status(client: AsyncClient, site: Site) -> None:
    site.pages = {
        "a.md": Page(),
        "secret.md": Page(status=403),
        "login.pdf": Page(),
        "huge.md": Page(b"x" * 5000),
        "empty.md": Page(b""),
    }
    urls = [*map(site.url, site.pages), site.url("none.md"), site.url("none"), site.url("loop")]
    urls += ["http://127.0.0.1:1/x.md", site.url(f"none.md?key={SECRET}")]
    dataset = await create_dataset(client)

    report = await client.load(dataset, UrlList(urls), max_file_size=4000)

    reasons = {failure.key.partition("/")[2]: failure.reason or "" for failure in report.failures()}
    assert (report.added, report.failed) == (1, 9)
    assert reasons["secret.md"] == "HTTP 403 Forbidden"
    assert reasons["none"] == reasons["none.md"] == "HTTP 404 Not Found"
    assert reasons["loop"] == "more than 10 redirects"
    assert "instead of a .pdf" in reasons["login.pdf"]
    assert "too large" in reasons["huge.md"]
    assert "empty" in reasons["empty.md"]
    assert "cannot connect to 127.0.0.1:1" in reasons["x.md"]
    assert SECRET not in f"{reasons}{report.to_json()}"


async def test_redirects_are_followed_and_temporary_failures_repeated(
    client: AsyncClient, site: Site
) -> None:
    site.pages = {"a.md": Page()}
    dataset = await create_dataset(client)
    site.failures = [503, 429]

    report = await client.load(dataset, UrlList([site.url("a.md")]))
    moved = await client.load(dataset, UrlList([f"moved.md\t{site.url('moved')}"]))
    site.failures = [503] * 3
    failed = await client.load(dataset, UrlList([f"b.md\t{site.url('a.md')}"]))

    assert count_outcomes(report) == count_outcomes(moved) == {"added": 1}
    assert [failure.reason for failure in failed.failures()] == ["HTTP 503 Service Unavailable"]


async def test_keys_of_the_list_name_the_documents(client: AsyncClient, site: Site) -> None:
    site.pages = {"1": Page(), "2": Page(b"# text", type="text/markdown"), "3.md": Page()}
    lines = [
        f"{key}\t{site.url(path)}" for key, path in {"a": "1", "b/c.md": "2", "d": "3.md"}.items()
    ]
    dataset = await create_dataset(client)

    report = await client.load(dataset, UrlList(lines))

    assert count_outcomes(report) == {"added": 3}
    assert await list_document_names(client, dataset) == ["a.html", "b__c.md", "d.html"]


async def test_connection_that_breaks_fails_the_file(client: AsyncClient) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe beginning")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(cut, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    dataset = await create_dataset(client)

    report = await client.load(dataset, UrlList([f"http://127.0.0.1:{port}/a.md"]))

    assert count_outcomes(report) == {"failed": 1}
    server.close()
    await server.wait_closed()


async def test_close_ends_a_download_and_later_calls() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        started.set()
        await reader.read()  # until the client closes the connection
        writer.close()
        ended.set()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    source = UrlList([f"http://127.0.0.1:{port}/a.md", f"http://127.0.0.1:{port}/b"])
    source.prepare()
    scanning = asyncio.create_task(asyncio.to_thread(list, source.scan()))
    await started.wait()

    await asyncio.to_thread(source.close)

    with pytest.raises(SourceError, match="closed"):
        await scanning
    with pytest.raises(SourceError, match="prepare"):
        next(source.scan())
    assert not [each for each in threading.enumerate() if each.name == "dify-kb-downloads"]
    source.prepare()
    source.close()
    await ended.wait()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("https://example.org/docs/a.html", "example.org/docs/a.html"),
        ("https://example.org/docs/", "example.org/docs/index"),
        ("https://example.org", "example.org/index"),
        ("https://example.org/a.pdf?id=7", "example.org/a-2d8df1a3.pdf"),
        ("https://example.org/page?id=7", "example.org/page-2d8df1a3"),
        (f"https://me:{SECRET}@example.org:443/a.md", "example.org/a.md"),
        ("https://example.org:8443/%C3%A4%20b.md", "example.org_8443/ä b.md"),
        ("http://[::1]:8000/.hidden/../.x/%2e%2e/a.md", "__1_8000/a.md"),
        ("https://example.org/.well-known/a.md", "example.org/well-known/a.md"),
    ],
)
def test_key_of_a_url(url: str, key: str) -> None:
    assert make_url_key(URL(url)) == key


@given(st.text(alphabet="ab/.%2e5cfF?#:@é\\\t ", max_size=30))
def test_key_is_a_relative_path(rest: str) -> None:
    source = UrlList([f"https://example.org/{rest}"])
    try:
        source.prepare()
    except ConfigError:
        return
    for link in source._links or ():
        assert not any(not part or part.startswith(".") for part in link.key.split("/"))
    source.close()


@pytest.mark.parametrize(
    "line",
    [
        "example.org/a.md",
        "ftp://example.org/a.md",
        "https://",
        "https://host:99999/",
        "../up.md\thttps://example.org/a.md",
        "/etc/x.md\thttps://example.org/a.md",
        ".hidden.md\thttps://example.org/a.md",
        f"file://me:{SECRET}@host/x?{SECRET}",
    ],
)
def test_invalid_line_is_an_error_with_its_number(tmp_path: Path, line: str) -> None:
    listing = tmp_path / "urls.txt"
    listing.write_text(f"# comment\n{line}\n")

    with pytest.raises(ConfigError, match=r"Invalid line 2 of .*urls\.txt") as raised:
        UrlList(listing).prepare()
    assert SECRET not in str(raised.value)


def test_list_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        UrlList(tmp_path / "none").prepare()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="Cannot read the list of URLs"):
        UrlList(tmp_path / "binary").prepare()


def test_identity_and_label(tmp_path: Path) -> None:
    source = UrlList(str(tmp_path / "handbook.txt"))

    assert (source.identity, source.label) == (f"urls:{tmp_path}/handbook.txt", "handbook")
    assert UrlList(["https://a"], name="crawl").identity == "urls:crawl"
    assert UrlList(["https://a"]).identity != UrlList(["https://b"]).identity


async def test_changed_files_of_any_size_are_sent_as_they_are(
    client: AsyncClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that are too large to be kept, as their size is unknown."""
    block = 4096
    monkeypatch.setattr(url_list, "BLOCK_SIZE", block)
    sizes = (10, block, block + 1, 5 * block)
    dataset, names = (
        await create_dataset(client),
        [f"{size}-{n}.txt" for size in sizes for n in (0, 1)],
    )
    source = UrlList(map(site.url, names))

    def change(letter: str) -> None:
        for name in names:
            size, _, chunked = name.removesuffix(".txt").partition("-")
            body = f"{letter} ".encode() * (int(size) // 2) + b"x" * (int(size) % 2)
            site.pages[name] = Page(body, etag=f'"{letter}"', is_chunked=bool(int(chunked)))

    change("a")
    await client.load(dataset, source)
    change("b")
    report = await client.load(dataset, source)

    assert count_outcomes(report) == {"updated": len(names)}
    assert {
        row.name.partition("__")[2]: row.upload_file.size if row.upload_file else None
        async for row in client.documents.iter(dataset)
    } == {name: len(site.pages[name].body) for name in names}


async def test_kept_files_are_bounded(
    client: AsyncClient, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.pages = {"a.md": Page(b"x" * 60), "b.md": Page(b"x" * 60)}
    dataset, source = await create_dataset(client), UrlList(map(site.url, site.pages))
    await client.load(dataset, source)
    site.pages = {name: Page(b"y" * 60, etag='"2"') for name in site.pages}
    monkeypatch.setattr(url_list, "MAX_KEPT", 100)
    site.requests.clear()

    report = await client.load(dataset, source)

    assert count_outcomes(report) == {"updated": 2}
    assert len(site.bodies()) == 4  # one of them compared, and sent, with downloads of its own


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [each for each in threading.enumerate() if each.name == "dify-kb-downloads"]
