"""Documents of every format: accepted, parsed, searchable or failed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from emulator_client import EmulatorClient, run_emulator

from dify_kb import AsyncClient

DATA = Path(__file__).parents[1] / "data" / "formats"


async def create_and_wait(
    client: EmulatorClient, dataset: str, name: str, content: bytes
) -> tuple[str, str | None, int]:
    """Create a document, wait until indexing ends and return status, error and chunk count."""
    created = await client.create_by_file(dataset, name, content)
    assert created.status == 200
    entry = await client.wait_until_indexed(dataset, created)
    return entry["indexing_status"], entry["error"], entry["total_segments"]


@pytest.mark.parametrize(
    ("name", "query", "phrase"),
    [
        ("handbook.pdf", "purple heron turbine", "purple heron nests behind the third turbine"),
        ("lease.docx", "silver otter clause", "The silver otter clause applies from the second"),
        ("prices.xlsx", "copper kettle", 'Article":"Copper kettle";"Price":"129.5"'),
        ("prices.xls", "brass lantern", 'Article":"Brass lantern";"Price":"64.0"'),
    ],
)
async def test_documents_are_found_by_a_phrase_of_their_content(
    name: str, query: str, phrase: str
) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        ending = await create_and_wait(client, dataset, name, (DATA / name).read_bytes())
        hits = await client.retrieve(dataset, query)

    assert ending[:2] == ("completed", None)
    assert phrase in hits.body["records"][0]["segment"]["content"]


@pytest.mark.parametrize("name", ["a.vtt", "a.properties", "a.mdx", "a.MD", "a.htm", "a.csv"])
async def test_text_files_are_indexed_in_any_format_and_encoding(name: str) -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        content = "café zebra déjà vu\nla crème brûlée est prête\n".encode("cp1252")
        ending = await create_and_wait(client, dataset, name, content)

    assert ending == ("completed", None, 1)


async def test_a_scanned_pdf_completes_with_nothing_indexed() -> None:
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        ending = await create_and_wait(
            client, dataset, "s.pdf", (DATA / "scanned.pdf").read_bytes()
        )

    assert ending == ("completed", None, 0)


async def test_a_load_reports_a_scanned_pdf_as_failed(tmp_path: Path) -> None:
    """The server reports `completed`, so the missing text would go unnoticed."""
    (tmp_path / "scanned.pdf").write_bytes((DATA / "scanned.pdf").read_bytes())
    (tmp_path / "lease.docx").write_bytes((DATA / "lease.docx").read_bytes())
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        async with AsyncClient(client.emulator.url, client.emulator.api_key) as kb:
            report = await kb.load(dataset, tmp_path)

    (failed,) = report.failures()
    assert failed.key == "scanned.pdf"


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("a.pdf", (DATA / "locked.pdf").read_bytes(), "(PDFium: Incorrect password error)"),
        ("a.docx", (DATA / "lease.docx").read_bytes()[:5000], "Package not found at"),
        ("a.xlsx", (DATA / "lease.docx").read_bytes(), "File contains no valid workbook part"),
        ("a.xls", (DATA / "prices.xlsx").read_bytes(), "Excel xlsx file; not supported"),
        ("a.csv", b'a,b\n1,"2\n3,4\n', "EOF inside string starting at row 1"),
    ],
)
async def test_unreadable_file_is_a_document_error(name: str, content: bytes, error: str) -> None:
    """The create still returns 200, and the server continues with the next document."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        status, message, chunks = await create_and_wait(client, dataset, name, content)
        after = await create_and_wait(client, dataset, "after.txt", b"zebra")

    assert (status, chunks) == ("error", 0)
    assert error in (message or "")
    assert after == ("completed", None, 1)


async def test_a_missing_parser_is_a_document_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        status, message, _ = await create_and_wait(client, dataset, "a.pdf", b"%PDF")

    assert status == "error"
    assert (message or "").endswith("install dify-kb[emulator]")


@pytest.mark.parametrize("name", ["a.doc", "a.pptx", "a.json", "a.epub", "README"])
async def test_unsupported_formats_are_refused_immediately(name: str) -> None:
    """The message is empty, as on the server (cases 189 to 196)."""
    async with run_emulator() as client:
        dataset = await client.create_dataset()
        response = await client.create_by_file(dataset, name)

    assert (response.status, response.body["code"], response.body["message"]) == (
        400,
        "invalid_param",
        "",
    )
