from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import BinaryIO

import pytest

from dify_kb import (
    UNSET,
    AsyncClient,
    BadRequestError,
    ConfigError,
    Dataset,
    DisplayStatus,
    ForbiddenError,
    IndexingStatus,
    NotFoundError,
    ProcessRule,
    TooLargeError,
    UnsupportedTypeError,
)
from dify_kb.models import MAX_FILE_SIZE

from .conftest import (
    INDEXING_TIMEOUT,
    RULE,
    UNKNOWN_ID,
    create_documents,
    has_hanging_updates,
    is_older_than,
    list_document_names,
    list_segments,
    search_document_names,
    try_change,
    wait_until_indexed,
    wait_until_true,
)


async def test_create_by_text_creates_a_document(client: AsyncClient, dataset: Dataset) -> None:
    created = await client.documents.create_by_text(dataset, "Manual", "the wombat digs")
    assert created.document.name == "Manual"
    assert created.document.enabled
    assert not created.document.archived

    (document,) = await wait_until_indexed(client, dataset, created)

    assert document.id == created.document.id
    assert document.display_status is DisplayStatus.AVAILABLE
    assert document.word_count == len("the wombat digs")
    assert document.created_from == "api"
    assert await search_document_names(client, dataset, "wombat") == ["Manual"]


async def test_batch_status_reports_progress(client: AsyncClient, dataset: Dataset) -> None:
    created = await client.documents.create_by_text(
        dataset, "a.txt", "one wombat\ntwo wombats", process_rule=RULE
    )
    await wait_until_indexed(client, dataset, created)

    (status,) = await client.documents.indexing_status(dataset, created.batch)

    assert status.id == created.document.id
    assert status.indexing_status is IndexingStatus.COMPLETED
    assert status.completed_segments == status.total_segments == 2
    assert status.completed_at is not None
    assert status.error is None


async def test_unknown_batch_is_not_found(client: AsyncClient, dataset: Dataset) -> None:
    with pytest.raises(NotFoundError):
        await client.documents.indexing_status(dataset, "20990101000000123456")


@pytest.mark.parametrize("kind", ["bytes", "path", "file", "text path"])
async def test_create_by_file_creates_a_document(
    client: AsyncClient, dataset: Dataset, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "notes.md"
    path.write_bytes(b"# Notes\n\nthe wombat digs")
    with path.open("rb") as stream:
        files: dict[str, Path | str | bytes | BinaryIO] = {
            "bytes": path.read_bytes(),
            "path": path,
            "file": stream,
            "text path": str(path),
        }

        created = await client.documents.create_by_file(dataset, files[kind], name="notes.md")

    await wait_until_indexed(client, dataset, created)
    assert created.document.name == "notes.md"
    assert created.document.upload_file is not None
    assert created.document.upload_file.size == path.stat().st_size
    assert await search_document_names(client, dataset, "wombat") == ["notes.md"]


async def test_file_object_is_read_from_its_position(client: AsyncClient, dataset: Dataset) -> None:
    stream = io.BytesIO(b"numbat the wombat digs")
    stream.seek(len(b"numbat "))

    created = await client.documents.create_by_file(dataset, stream, name="a.txt")

    await wait_until_indexed(client, dataset, created)
    assert await search_document_names(client, dataset, "wombat") == ["a.txt"]
    assert await search_document_names(client, dataset, "numbat") == []


async def test_file_names_are_stored_unchanged(client: AsyncClient, dataset: Dataset) -> None:
    """With the quoting of most clients, a space would be stored as `%20` (measured)."""
    odd = [
        "my file (1).txt",
        "100% 'sure'; a=b&c.txt",
        "知识库 数据.md",
        "Žluťoučký kůň.txt",
        "🦘 emoji.txt",
        "מדריך.txt",
        ".hidden.txt",
        "a__b\u2044c.txt",
        "UPPER.TXT",
        "no.dots.v1.2.txt",
        "x" * 150 + ".txt",
    ]

    for name in odd:
        created = await client.documents.create_by_file(dataset, b"wombat", name=name)
        assert created.document.name == name

    assert await list_document_names(client, dataset) == sorted(odd)


async def test_document_created_by_text_may_have_any_name(
    client: AsyncClient, dataset: Dataset
) -> None:
    odd = ["docs/guide: part 1?", "知识库 <数据>", '"quoted" \\ %22']

    for name in odd:
        created = await client.documents.create_by_text(dataset, name, "wombat")
        assert created.document.name == name

    assert await list_document_names(client, dataset) == sorted(odd)


async def test_large_file_is_uploaded_completely(client: AsyncClient, dataset: Dataset) -> None:
    """200 KB are streamed in blocks; every line becomes a chunk."""
    lines = [f"{number} {'wombat ' * 142}end" for number in range(200)]
    content = "\n".join(lines).encode()
    assert len(content) > 199_000

    created = await client.documents.create_by_file(
        dataset,
        content,
        name="almanac.txt",
        process_rule=ProcessRule.custom(max_tokens=4000, chunk_overlap=0),
    )

    (document,) = await wait_until_indexed(client, dataset, created)
    assert created.document.upload_file is not None
    assert created.document.upload_file.size == len(content)
    assert [chunk.content for chunk in await list_segments(client, dataset, document)] == lines


async def test_same_name_replaces_the_document_and_keeps_its_id(
    client: AsyncClient, dataset: Dataset
) -> None:
    """A create that is sent twice does not duplicate; the old batch is gone (measured)."""
    first = await client.documents.create_by_text(dataset, "a.txt", "the wombat digs")
    await wait_until_indexed(client, dataset, first)

    second = await client.documents.create_by_file(dataset, b"the quokka smiles", name="a.txt")

    await wait_until_indexed(client, dataset, second)
    assert second.document.id == first.document.id
    assert second.batch != first.batch
    assert await list_document_names(client, dataset) == ["a.txt"]
    assert await search_document_names(client, dataset, "quokka") == ["a.txt"]
    assert await search_document_names(client, dataset, "wombat") == []
    with pytest.raises(NotFoundError):
        await client.documents.indexing_status(dataset, first.batch)


async def test_names_differ_by_case(client: AsyncClient, dataset: Dataset) -> None:
    for name in ("a.txt", "A.txt"):
        await client.documents.create_by_text(dataset, name, "wombat")

    assert await list_document_names(client, dataset) == ["A.txt", "a.txt"]


async def test_second_document_of_the_same_name_on_request(
    client: AsyncClient, dataset: Dataset
) -> None:
    first = await client.documents.create_by_file(dataset, b"wombat", name="a.txt")
    await wait_until_indexed(client, dataset, first)

    second = await client.documents.create_by_file(
        dataset, b"wombat", name="a.txt", duplicate=False
    )

    assert second.document.id != first.document.id
    assert await list_document_names(client, dataset) == ["a.txt", "a.txt"]


async def test_fetched_dataset_accepts_more_files(client: AsyncClient, dataset: Dataset) -> None:
    """New files are split by the rule of the previous documents; here, at each line."""
    await create_documents(client, dataset, "the wombat digs")
    fetched = await client.datasets.get(dataset)

    created = await client.documents.create_by_file(
        fetched, b"the quokka smiles\nplatypus eggs", name="b.txt"
    )

    (document,) = await wait_until_indexed(client, fetched, created)
    assert [chunk.content for chunk in await list_segments(client, fetched, document)] == [
        "the quokka smiles",
        "platypus eggs",
    ]
    assert await list_document_names(client, fetched) == ["a.txt", "b.txt"]


async def test_fetched_dataset_accepts_more_texts(client: AsyncClient, dataset: Dataset) -> None:
    """Up to 1.8 the server crashes on a text without a rule (measured), so the client raises."""
    await create_documents(client, dataset, "the wombat digs")
    fetched = await client.datasets.get(dataset)

    if is_older_than(client, "1.11"):
        with pytest.raises(ConfigError, match="process_rule"):
            await client.documents.create_by_text(fetched, "b.txt", "the quokka smiles")
    created = await client.documents.create_by_text(
        fetched,
        "b.txt",
        "the quokka smiles",
        process_rule=RULE if is_older_than(client, "1.11") else UNSET,
    )

    await wait_until_indexed(client, fetched, created)
    assert await search_document_names(client, fetched, "quokka") == ["b.txt"]


async def test_dataset_id_alone_adds_no_defaults(client: AsyncClient, dataset: Dataset) -> None:
    with pytest.raises(BadRequestError):
        await client.documents.create_by_text(dataset.id, "a.txt", "wombat")
    with pytest.raises(BadRequestError):
        await client.documents.create_by_file(dataset.id, b"wombat", name="a.txt")

    created = await client.documents.create_by_text(
        dataset.id,
        "a.txt",
        "wombat",
        indexing_technique="economy",
        process_rule=ProcessRule.automatic(),
    )
    await wait_until_indexed(client, dataset, created)


async def test_empty_text_completes_without_chunks(client: AsyncClient, dataset: Dataset) -> None:
    """There is no error (measured); only `word_count` and the number of segments show it."""
    created = await client.documents.create_by_text(dataset, "a.txt", "")

    (document,) = await wait_until_indexed(client, dataset, created)

    assert not document.word_count
    (status,) = await client.documents.indexing_status(dataset, created.batch)
    assert status.total_segments == 0
    assert await list_segments(client, dataset, document) == []


async def test_file_with_invalid_content_ends_in_an_error(
    client: AsyncClient, dataset: Dataset
) -> None:
    created = await client.documents.create_by_file(dataset, b"this is no pdf", name="a.pdf")

    (document,) = await client.documents.wait(dataset, [created], timeout=INDEXING_TIMEOUT)

    assert document.indexing_status is IndexingStatus.ERROR
    assert document.display_status is DisplayStatus.ERROR
    assert document.error


@pytest.mark.parametrize("name", ["a.exe", "a.json", "noextension"])
async def test_unsupported_file_type_is_rejected(
    client: AsyncClient, dataset: Dataset, name: str
) -> None:
    """The server's message is empty (measured), so the hint names possible causes."""
    with pytest.raises(BadRequestError) as refused:
        await client.documents.create_by_file(dataset, b"wombat", name=name)

    assert "type" in refused.value.hint
    assert await list_document_names(client, dataset) == []


async def test_too_large_file_is_rejected(client: AsyncClient, dataset: Dataset) -> None:
    """The server rejects it like a wrong type, a proxy in front with a 413 (both measured)."""
    with pytest.raises((BadRequestError, TooLargeError)) as refused:
        await client.documents.create_by_file(dataset, bytes(MAX_FILE_SIZE + 1), name="a.txt")

    assert "size" in refused.value.hint.lower()
    assert await list_document_names(client, dataset) == []


async def test_documents_are_listed_by_keyword(client: AsyncClient, dataset: Dataset) -> None:
    for name in ("guide one.txt", "guide two.txt", "Guide three.txt", "manual.txt"):
        await client.documents.create_by_text(dataset, name, "wombat")

    page = await client.documents.list(dataset, keyword="guide", limit=1)
    rows = [row.name async for row in client.documents.iter(dataset, keyword="guide")]

    assert page.total == 2
    assert len(page.data) == 1
    assert sorted(rows) == ["guide one.txt", "guide two.txt"]
    assert (await client.documents.list(dataset, keyword="nothing")).total == 0


async def test_documents_are_listed_by_status(client: AsyncClient, dataset: Dataset) -> None:
    """`iter` filters in the client if the server cannot (up to 1.8, §4.6)."""
    good = await client.documents.create_by_text(dataset, "good.txt", "wombat")
    bad = await client.documents.create_by_file(dataset, b"this is no pdf", name="bad.pdf")
    await client.documents.wait(dataset, [good, bad], timeout=INDEXING_TIMEOUT)

    for status, name in ((DisplayStatus.AVAILABLE, "good.txt"), (DisplayStatus.ERROR, "bad.pdf")):
        rows = [row.name async for row in client.documents.iter(dataset, status=status)]
        assert rows == [name]
        page = await client.documents.list(dataset, status=status)
        assert page.total == (2 if is_older_than(client, "1.11") else 1)


async def test_paging_yields_every_document_once(client: AsyncClient, dataset: Dataset) -> None:
    """105 documents are one full page and a rest. The final wait empties the indexing queue."""
    created = [
        await client.documents.create_by_text(dataset, f"{number:03}.txt", "")
        for number in range(105)
    ]

    rows = [row.id async for row in client.documents.iter(dataset)]
    pages = [
        (await client.documents.list(dataset, limit=100, page=number)).data for number in (1, 2, 3)
    ]

    assert sorted(rows) == sorted(one.document.id for one in created)
    assert [len(page) for page in pages] == [100, 5, 0]
    assert len({row.id for page in pages for row in page}) == 105
    final = await client.documents.wait(dataset, created, timeout=5 * INDEXING_TIMEOUT)
    assert [row.id for row in final] == [one.document.id for one in created]


async def test_document_details(client: AsyncClient, dataset: Dataset) -> None:
    """They exist since 1.8 (measured), as the error on older servers says."""
    (document,) = await create_documents(client, dataset, "one wombat\ntwo wombats")

    if is_older_than(client, "1.8"):
        with pytest.raises(NotFoundError, match=r"added in 1\.8"):
            await client.documents.get(dataset, document.id)
        return
    detail = await client.documents.get(dataset, document.id)
    assert (detail.id, detail.name) == (document.id, document.name)
    assert detail.indexing_status is IndexingStatus.COMPLETED
    assert detail.segment_count == 2
    assert detail.created_at is not None
    assert detail.data_source_info is not None
    assert detail.data_source_info.upload_file is not None
    only = await client.documents.get(dataset, document.id, metadata="only")
    assert (only.id, only.name) == (document.id, None)
    with pytest.raises(NotFoundError):
        await client.documents.get(dataset, UNKNOWN_ID)


async def test_disabled_document_is_not_found_until_enabled(
    client: AsyncClient, dataset: Dataset
) -> None:
    """Exists since 1.8. The server's own lock may reject enabling for 10 minutes (measured)."""
    first, second = await create_documents(client, dataset, "wombat one", "wombat two")
    if is_older_than(client, "1.8"):
        with pytest.raises(NotFoundError, match=r"added in 1\.8"):
            await client.documents.disable(dataset, [first.id])
        return

    await client.documents.disable(dataset, [first.id])

    row = {row.id: row async for row in client.documents.iter(dataset)}[first.id]
    assert (row.enabled, row.display_status) == (False, DisplayStatus.DISABLED)

    async def hidden() -> bool:
        return await search_document_names(client, dataset, "wombat") == [second.name]

    assert await wait_until_true(hidden)
    if not await try_change(client.documents.enable(dataset, [first.id])):
        return

    async def shown() -> bool:
        return len(await search_document_names(client, dataset, "wombat")) == 2

    assert await wait_until_true(shown)


async def test_archived_document_is_neither_found_nor_deletable(
    client: AsyncClient, dataset: Dataset
) -> None:
    """Archiving exists since 1.8 (measured) and can be undone."""
    first, second = await create_documents(client, dataset, "wombat one", "wombat two")
    if is_older_than(client, "1.8"):
        for switch in (client.documents.archive, client.documents.unarchive):
            with pytest.raises(NotFoundError, match=r"added in 1\.8"):
                await switch(dataset, [first.id])
        return

    await client.documents.archive(dataset, [first.id])

    row = {row.id: row async for row in client.documents.iter(dataset)}[first.id]
    assert (row.archived, row.display_status) == (True, DisplayStatus.ARCHIVED)
    with pytest.raises(ForbiddenError):
        await client.documents.delete(dataset, first.id)

    async def hidden() -> bool:
        return await search_document_names(client, dataset, "wombat") == [second.name]

    assert await wait_until_true(hidden)
    if not await try_change(client.documents.unarchive(dataset, [first.id])):
        return
    await client.documents.delete(dataset, first.id)


async def test_set_status_applies_to_all_documents_or_none(
    client: AsyncClient, dataset: Dataset
) -> None:
    """A document that failed to index cannot be disabled, so none is disabled (measured)."""
    good = await client.documents.create_by_text(dataset, "good.txt", "wombat")
    bad = await client.documents.create_by_file(dataset, b"this is no pdf", name="bad.pdf")
    await client.documents.wait(dataset, [good, bad], timeout=INDEXING_TIMEOUT)

    error = NotFoundError if is_older_than(client, "1.8") else BadRequestError
    with pytest.raises(error):
        await client.documents.disable(dataset, [good.document.id, bad.document.id])

    assert all([row.enabled async for row in client.documents.iter(dataset)])


async def test_update_by_text_keeps_id_and_batch(client: AsyncClient, dataset: Dataset) -> None:
    """Updates are not sent to 1.12.0 and 1.12.1, whose worker would hang forever (measured)."""
    created = await client.documents.create_by_text(dataset, "a.txt", "the wombat digs")
    (document,) = await wait_until_indexed(client, dataset, created)

    if has_hanging_updates(client):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # raised before anything is sent
            with pytest.raises(UserWarning, match="hangs forever"):
                await client.documents.update_by_text(dataset, document.id, name="b", text="c")
        assert await list_document_names(client, dataset) == ["a.txt"]
        return
    updated = await client.documents.update_by_text(
        dataset, document.id, name="b.txt", text="the quokka smiles"
    )

    assert updated.document.id == document.id
    assert updated.batch == created.batch
    await wait_until_indexed(client, dataset, updated)
    assert await search_document_names(client, dataset, "quokka") == ["b.txt"]
    assert await search_document_names(client, dataset, "wombat") == []


async def test_update_by_file_renames_and_replaces(client: AsyncClient, dataset: Dataset) -> None:
    """Updates are not sent to 1.12.0 and 1.12.1 (measured)."""
    (document,) = await create_documents(client, dataset, "the wombat digs")

    if has_hanging_updates(client):
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # raised before anything is sent
            with pytest.raises(UserWarning, match="hangs forever"):
                await client.documents.update_by_file(dataset, document.id, b"b", name="b.txt")
        assert await list_document_names(client, dataset) == ["a.txt"]
        return
    updated = await client.documents.update_by_file(
        dataset, document.id, b"the quokka smiles", name="b.txt"
    )

    assert updated.document.id == document.id
    await wait_until_indexed(client, dataset, updated)
    assert await list_document_names(client, dataset) == ["b.txt"]
    assert await search_document_names(client, dataset, "quokka") == ["b.txt"]
    assert await search_document_names(client, dataset, "wombat") == []
    with pytest.raises(UnsupportedTypeError):
        await client.documents.update_by_file(dataset, document.id, b"c", name="c.exe")
    with pytest.raises(NotFoundError):
        await client.documents.update_by_file(dataset, UNKNOWN_ID, b"c", name="c.txt")


async def test_failed_document_cannot_be_updated_but_created_again(
    client: AsyncClient, dataset: Dataset
) -> None:
    """Only available documents can be updated; a create of the same name keeps the id (both
    measured).
    """
    bad = await client.documents.create_by_file(dataset, b"this is no pdf", name="a.pdf")
    await client.documents.wait(dataset, [bad], timeout=INDEXING_TIMEOUT)

    if not has_hanging_updates(client):
        with pytest.raises(BadRequestError, match="not available"):
            await client.documents.update_by_text(
                dataset, bad.document.id, name="a.pdf", text="wombat"
            )
    good = await client.documents.create_by_text(dataset, "a.pdf", "the wombat digs")
    await wait_until_indexed(client, dataset, good)
    assert good.document.id == bad.document.id


async def test_deleted_document_is_gone(client: AsyncClient, dataset: Dataset) -> None:
    first, second = await create_documents(client, dataset, "the wombat digs", "the quokka smiles")

    await client.documents.delete(dataset, first.id)

    assert await list_document_names(client, dataset) == [second.name]
    with pytest.raises(NotFoundError):
        await client.documents.delete(dataset, first.id)
    with pytest.raises(NotFoundError):
        await client.documents.wait(dataset, [first], timeout=INDEXING_TIMEOUT)


async def test_document_can_be_deleted_while_it_waits_for_indexing(
    client: AsyncClient, dataset: Dataset
) -> None:
    created = await client.documents.create_by_text(dataset, "a.txt", "the wombat digs")

    await client.documents.delete(dataset, created.document.id)

    assert await list_document_names(client, dataset) == []


async def test_stored_file_details(client: AsyncClient, dataset: Dataset) -> None:
    """They exist up to 1.8 (measured); later, the error names the version that removed them."""
    created = await client.documents.create_by_file(dataset, b"the wombat digs", name="知识 1.txt")
    await wait_until_indexed(client, dataset, created)

    if not is_older_than(client, "1.11"):
        with pytest.raises(NotFoundError, match="removed"):
            await client.documents.upload_file(dataset, created.document.id)
        return
    stored = await client.documents.upload_file(dataset, created.document.id)
    assert (stored.name, stored.size, stored.extension) == ("知识 1.txt", 15, "txt")
    assert stored.download_url


async def test_stored_file_download_url(client: AsyncClient, dataset: Dataset) -> None:
    """The endpoint exists since 1.13.1 (measured)."""
    created = await client.documents.create_by_file(dataset, b"the wombat digs", name="a.txt")
    await wait_until_indexed(client, dataset, created)

    if is_older_than(client, "1.13.1"):
        with pytest.raises(NotFoundError, match=r"added in 1\.13\.1"):
            await client.documents.download_url(dataset, created.document.id)
        return
    assert await client.documents.download_url(dataset, created.document.id)
    with pytest.raises(NotFoundError):
        await client.documents.download_url(dataset, UNKNOWN_ID)


async def test_stored_files_as_a_zip(client: AsyncClient, dataset: Dataset) -> None:
    """The endpoint exists since 1.13.1 (measured)."""
    files = {"a.txt": b"the wombat digs", "知识.md": b"the quokka smiles"}
    created = [
        await client.documents.create_by_file(dataset, content, name=name)
        for name, content in files.items()
    ]
    ids = [row.id for row in await wait_until_indexed(client, dataset, *created)]

    if is_older_than(client, "1.13.1"):
        with pytest.raises(NotFoundError, match=r"added in 1\.13\.1"):
            await client.documents.download_zip(dataset, ids)
        return
    with zipfile.ZipFile(io.BytesIO(await client.documents.download_zip(dataset, ids))) as packed:
        assert {name: packed.read(name) for name in packed.namelist()} == files
    with pytest.raises(NotFoundError):
        await client.documents.download_zip(dataset, [*ids, UNKNOWN_ID])
