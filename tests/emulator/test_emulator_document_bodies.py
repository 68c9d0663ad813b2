"""Uploaded files: names, form parts and sizes."""

from __future__ import annotations

import pytest
from emulator_client import run_emulator
from emulator_documents import list_document_names

from dify_kb.emulator import VERSIONS, Settings


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ('filename="資料 ñ.txt"', "資料 ñ.txt"),
        ("filename=\"x.txt\"; filename*=UTF-8''%E8%B3%87.txt", "資.txt"),
        ('filename="a;b=c.txt"', "a;b=c.txt"),
        (f'filename="{"l" * 206}.txt"', f"{'l' * 200}.txt"),
        (f'filename="v1.{"a" * 220}.txt"', "v1.txt"),
        ('filename="X.TXT"', "X.TXT"),
        ('filename="my%20file.txt"', "my%20file.txt"),
    ],
)
async def test_file_names_are_stored_as_measured(sent: str, stored: str) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        await client.create_by_file(dataset, "first.txt")
        response = await client.send_parts(dataset, (f'name="file"; {sent}', b"x"))

    assert response.body["document"]["name"] == stored


@pytest.mark.parametrize(
    ("sent", "code", "message"),
    [
        ('filename="a.txt "', "invalid_param", ""),
        ('filename="README"', "invalid_param", ""),
        ('filename="..txt"', "invalid_param", ""),
        ('filename=".txt"', "invalid_param", ""),
        ('filename="a/b.txt"', "invalid_param", "Filename contains invalid characters"),
        (r'filename="a\\b.txt"', "invalid_param", "Filename contains invalid characters"),
        ('filename=""', "filename_not_exists_error", "The specified filename does not exist."),
    ],
)
async def test_file_names_are_refused_as_measured(sent: str, code: str, message: str) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        response = await client.send_parts(dataset, (f'name="file"; {sent}', b"x"))

    assert response.body == {"code": code, "message": message, "status": 400}


@pytest.mark.parametrize("sent", [r"a\"b.txt", "a%22b.txt", "a:b.txt", "#hash?.txt", "a|b.txt"])
async def test_punctuation_in_file_names_is_refused_up_to_1_12(sent: str) -> None:
    statuses = {}
    for version in VERSIONS:
        async with run_emulator(version=version) as client:
            dataset = await client.create_dataset()
            response = await client.create_by_file(dataset, sent)
        statuses[version] = response.status

    assert [*statuses.values()] == [400, 400, 400, 200, 200]


async def test_two_parts_of_the_same_name_count_as_one_file() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        await client.create_by_file(dataset, "first.txt")
        part = 'name="file"; filename="{}.txt"'
        response = await client.send_parts(
            dataset, (part.format("a"), b"x"), (part.format("b"), b"y")
        )

    assert response.body["document"]["name"] == "a.txt"


@pytest.mark.parametrize("data", [b"[]", b"null", b'"x"'])
@pytest.mark.parametrize("version", ["1.12.1", "1.14.2", "1.16"])
async def test_data_field_that_is_not_an_object_crashes(
    version: str, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with run_emulator(version=version) as client:
        dataset = await client.create_dataset()
        file = ('name="file"; filename="a.txt"', b"x")
        array = await client.send_parts(dataset, ('name="data"', data), file)
        text = await client.send_parts(dataset, ('name="data"', b"nope"), file)

    assert array.body == {"message": "Internal Server Error", "code": "unknown", "status": 500}
    assert text.body["code"] == "invalid_param"
    assert "documents.create_by_file failed" in caplog.text


async def test_too_large_file_gets_an_empty_message_or_a_proxy_page() -> None:
    async with run_emulator(settings=Settings(max_file_size=100_000, max_body=300_000)) as client:
        dataset = await client.create_dataset()
        fits = await client.create_by_file(dataset, "a.txt", b"x" * 100_000)
        large = await client.create_by_file(dataset, "b.txt", b"x" * 100_001)
        huge = await client.create_by_file(dataset, "c.txt", b"x" * 300_000)

    assert fits.body["document"]["data_source_detail_dict"]["upload_file"]["size"] == 100_000
    assert large.body == {"code": "invalid_param", "message": "", "status": 400}
    assert (huge.status, huge.headers["Content-Type"]) == (413, "text/html; charset=utf-8")
    assert b"nginx" in huge.raw


async def test_indexing_of_empty_and_unreadable_files_ends_as_measured() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        empty = await client.wait_until_indexed(
            dataset, await client.create_by_file(dataset, "empty.txt", b"")
        )
        broken = await client.wait_until_indexed(
            dataset, await client.create_by_file(dataset, "a.docx", b"notzip")
        )
        errors = await list_document_names(client, dataset, status="error")

    assert (empty["indexing_status"], empty["total_segments"]) == ("completed", 0)
    assert broken["indexing_status"] == "error"
    assert broken["error"]
    assert errors == ["a.docx"]
