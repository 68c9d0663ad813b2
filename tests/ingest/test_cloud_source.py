from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import obstore
import pytest
from load_examples import LONG, count_outcomes, create_dataset, list_document_names
from obstore.store import S3Store

from dify_kb import AsyncClient, SourceEntry
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, SourceError
from dify_kb.ingest.sources.cloud_source import CloudSource
from dify_kb.ingest.sources.file_source import OpenedEntry

OBJECTS = 3000 if LONG else 60
SECRET = "the-secret-key"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Serve S3 on a loopback port."""
    from moto.server import ThreadedMotoServer  # takes a second, for this module only

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def create_s3_client(endpoint: str) -> Any:
    import boto3  # type: ignore[import-untyped] # has no types

    return boto3.client("s3", endpoint_url=endpoint)


@pytest.fixture
def bucket(
    endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> S3Store:
    """Return an empty bucket, whose name the environment does not know."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    name = f"bucket-{abs(hash(request.node.nodeid)) % 10**9}"
    create_s3_client(endpoint).create_bucket(Bucket=name)
    return S3Store(name, endpoint=endpoint, client_options={"allow_http": True})


def make_url(bucket: S3Store, prefix: str = "") -> str:
    return f"s3://{bucket.config.get('bucket')}/{quote(prefix)}?endpoint={bucket.config.get('endpoint')}"


@pytest.mark.timeout(600 if LONG else 120)
async def test_objects_are_loaded_once(
    client: AsyncClient, bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(OBJECTS):
        obstore.put(bucket, f"docs/{number:05}.md", f"the text of {number}".encode())
    obstore.put(bucket, "docs.md", b"outside the prefix")
    dataset = await create_dataset(client)

    first = await client.load(dataset, make_url(bucket, "docs"))

    opened: list[str] = []
    original = CloudSource.open

    def record(source: CloudSource, entry: SourceEntry) -> OpenedEntry:
        opened.append(entry.key)
        return original(source, entry)

    monkeypatch.setattr(CloudSource, "open", record)
    obstore.put(bucket, "docs/00007.md", b"new")
    second = await client.load(dataset, make_url(bucket, "docs"))

    assert count_outcomes(first) == {"added": OBJECTS}
    assert count_outcomes(second) == {"updated": 1, "unchanged": OBJECTS - 1}
    assert opened == ["00007.md"]


async def test_unchanged_objects_of_a_bucket_with_versions_are_not_downloaded(
    client: AsyncClient, bucket: S3Store, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the response to a download states the version."""
    create_s3_client(endpoint).put_bucket_versioning(
        Bucket=bucket.config.get("bucket", ""), VersioningConfiguration={"Status": "Enabled"}
    )
    for text in (b"old", b"text"):
        obstore.put(bucket, "a.md", text)
    dataset = await create_dataset(client)
    await client.load(dataset, make_url(bucket))
    monkeypatch.setattr(CloudSource, "open", None)

    assert count_outcomes(await client.load(dataset, make_url(bucket))) == {"unchanged": 1}


async def test_ignore_file_below_the_prefix_applies(client: AsyncClient, bucket: S3Store) -> None:
    for key in (".difyignore", "docs/a.md", "docs/b.md", "docs/drafts/c.md"):
        obstore.put(bucket, key, b"a.md")
    obstore.put(bucket, "docs/.difyignore", b"drafts/")
    dataset = await create_dataset(client)

    report = await client.load(dataset, make_url(bucket, "docs"))

    assert count_outcomes(report) == {"added": 2}


@pytest.mark.parametrize("size", [10, 200_000])
async def test_object_replaced_after_the_scan_is_sent_as_it_is_now(
    client: AsyncClient, bucket: S3Store, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    obstore.put(bucket, "a.txt", b"o" * size)
    dataset = await create_dataset(client)
    original, replaced = CloudSource.open, b"n" * (size + 1)

    def replace_before(source: CloudSource, entry: SourceEntry) -> OpenedEntry:
        obstore.put(bucket, "a.txt", replaced)
        return original(source, entry)

    monkeypatch.setattr(CloudSource, "open", replace_before)
    report = await client.load(dataset, make_url(bucket))
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

    assert (count_outcomes(report), report.bytes) == ({"added": 1}, len(replaced))


async def test_object_deleted_after_the_scan_fails_alone(
    client: AsyncClient, bucket: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    obstore.put(bucket, "a.txt", b"text")
    obstore.put(bucket, "b.txt", b"text")
    dataset = await create_dataset(client)
    original = CloudSource.open

    def delete_before(source: CloudSource, entry: SourceEntry) -> OpenedEntry:
        if entry.key == "a.txt":
            obstore.delete(bucket, "a.txt")
        return original(source, entry)

    monkeypatch.setattr(CloudSource, "open", delete_before)
    report = await client.load(dataset, make_url(bucket))

    assert count_outcomes(report) == {"added": 1, "failed": 1}
    (failure,) = report.failures()
    assert "deleted after the scan" in str(failure.reason)


@pytest.mark.parametrize(
    "key", ["a b.md", "é.md", "a+b.md", "a#b?.md", "100%.md", "a%20b.md", "x/y/z.md", "日本.md"]
)
def test_any_name_is_read(bucket: S3Store, key: str) -> None:
    obstore.put(bucket, f"with space/{key}", b"text")
    source = CloudSource(make_url(bucket, "with space"))

    (entry,) = source.scan()
    opened = source.open(entry)

    assert (entry.key, entry.size, opened.stream.read(100), opened.stream.read(100)) == (
        key,
        4,
        b"text",
        b"",
    )
    assert opened.token == entry.token


def test_markers_of_folders_are_not_files(bucket: S3Store, endpoint: str) -> None:
    create_s3_client(endpoint).put_object(
        Bucket=bucket.config.get("bucket", ""), Key="docs/", Body=b""
    )
    obstore.put(bucket, "docs/a.md", b"text")

    assert [entry.key for entry in CloudSource(make_url(bucket)).scan()] == ["docs/a.md"]


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://no-such-bucket/docs?endpoint={endpoint}", ("NoSuchBucket", "name of the bucket")),
        ("s3://docs/?endpoint=http://127.0.0.1:1", ("http://127.0.0.1:1", "endpoint")),
    ],
)
async def test_bucket_that_cannot_be_listed_is_an_error_with_advice(
    client: AsyncClient, endpoint: str, url: str, words: tuple[str, str]
) -> None:
    dataset = await create_dataset(client)

    with pytest.raises(SourceError) as raised:
        await client.load(dataset, url.format(endpoint=endpoint))

    assert words[0] in raised.value.summary
    assert words[1] in raised.value.hint
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://", "s3:///docs", "s3://key:secret@bucket/docs", "s3://bucket?region=a&color=b",
        "gs://bucket?endpoint=x", "s3://key:se/secret@bucket/docs", "s3://[bucket/docs",
        "s3://bucket/a/../b", "s3://bucket/a//b", "s3://bucket/%00", "s3://bucket?endpoint=host:80",
        "s3://bucket?endpoint=https://key:secret@host", "s3://bucket?endpoint=https://[host",
    ],
)  # fmt: skip
async def test_invalid_address_is_refused_before_anything_is_sent(
    client: AsyncClient, emulator: Emulator, url: str
) -> None:
    dataset = await create_dataset(client)
    before = len(emulator.history)

    with pytest.raises(ConfigError) as raised:
        await client.load(dataset, url)

    assert "secret" not in str(raised.value)
    assert len(emulator.history) == before


def read_all_files(folder: str) -> bytes:
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    assert files
    return b"".join(path.read_bytes() for path in files)


async def test_identity_has_no_credentials(client: AsyncClient, bucket: S3Store) -> None:
    obstore.put(bucket, "docs/a.md", b"text")
    dataset = await create_dataset(client)

    report = await client.load(dataset, make_url(bucket, "docs"))

    identity = CloudSource(make_url(bucket, "docs")).identity
    assert identity == f"s3://{bucket.config.get('bucket')}/docs?{bucket.config.get('endpoint')}"
    assert SECRET.encode() not in read_all_files(os.environ["XDG_STATE_HOME"])
    assert report
    assert await list_document_names(client, dataset) == ["a.md"]


@pytest.mark.skipif(
    not LONG or not Path("/proc/self/status").exists(), reason="takes 20 s; poe chaos runs it"
)
def test_large_objects_need_little_memory(bucket: S3Store) -> None:
    """20 objects of 14 MB, 16 at a time."""
    for number in range(20):
        obstore.put(bucket, f"{number}.txt", os.urandom(7_000_000).hex().encode())
    program = f"""
import asyncio, re
from dify_kb import AsyncClient
from dify_kb.emulator import Emulator

async def main(url, key):
    async with AsyncClient(url, key, concurrency=32) as client:
        dataset = await client.datasets.create("docs", indexing_technique="economy")
        report = await client.load(dataset, {make_url(bucket)!r}, concurrency=16, wait="accepted")
        peak = re.search(r"VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1]
        print(report.added, int(peak) / 1024)

import sys
asyncio.run(main(*sys.argv[1:]))
"""
    with Emulator() as emulator:
        done = subprocess.run(  # noqa: S603 -- our own program
            [sys.executable, "-c", program, emulator.url, emulator.api_key],
            capture_output=True, text=True, check=False, timeout=110,
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    added, mebibytes = done.stdout.split()
    assert int(added) == 20
    assert float(mebibytes) < 120
