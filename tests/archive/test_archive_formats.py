"""Archives of earlier formats stay readable, and what an archive says of a document is stable."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archive_examples import HOSTILE
from hypothesis import given
from hypothesis import strategies as st

from dify_kb import ArchiveError, verify_archive
from dify_kb.archive.archive_format import Manifest, is_member_name
from dify_kb.archive.archived_document import ArchivedChunk, ArchivedDocument, ArchivedFile
from dify_kb.archive.read_archive import ArchiveReader

if TYPE_CHECKING:
    from dify_kb import AsyncClient

FORMAT_1 = Path(__file__).parents[1] / "data/archives/format-1.zip"
"""Written by the first version with archives, and never again."""


async def test_an_archive_of_format_1_is_imported(client: AsyncClient) -> None:
    report = await client.import_(FORMAT_1, name="Copy")

    assert verify_archive(FORMAT_1)
    assert (report.documents, report.added, report.failed) == (8, 8, 0)
    assert (await client.compare(FORMAT_1, report.dataset_id or "")).counts == {}


def test_an_archive_of_format_1_has_its_documents() -> None:
    with ArchiveReader.open(FORMAT_1) as archive:
        documents = {document.name: document for document in archive.iter_documents()}

    assert [chunk.content for chunk in documents["hostile"].chunks] == [*HOSTILE]
    assert documents["both.md"].archived
    assert not documents["both.md"].enabled
    assert documents["long.txt"].metadata == {"team": "infra", "year": 2024}
    assert not documents["long.txt"].chunks[5].enabled


TEXTS = st.text(st.characters(), max_size=20)
DOCUMENTS = st.builds(
    ArchivedDocument,
    id=TEXTS,
    name=TEXTS,
    form=st.sampled_from(["text_model", "qa_model"]),
    language=st.none() | TEXTS.filter(bool),
    enabled=st.booleans(),
    archived=st.booleans(),
    metadata=st.dictionaries(
        TEXTS, TEXTS | st.integers() | st.floats(allow_nan=False, allow_infinity=False), max_size=3
    ),
    file=st.none() | st.builds(ArchivedFile, sha256=TEXTS, size=st.integers(0), name=TEXTS),
    chunks=st.lists(
        st.builds(
            ArchivedChunk,
            content=TEXTS,
            answer=st.none() | TEXTS.filter(bool),
            keywords=st.lists(TEXTS, max_size=2).map(tuple),
            enabled=st.booleans(),
            children=st.lists(TEXTS, max_size=2).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
)


@given(DOCUMENTS)
def test_a_line_holds_the_whole_document(document: ArchivedDocument) -> None:
    """Lone surrogates, too, which servers can return."""
    import json

    from dify_kb.archive.archived_document import dump_canonical

    line = dump_canonical(document.to_json())

    read = ArchivedDocument.from_json(json.loads(line))
    assert dump_canonical(read.to_json()) == line
    assert (read.name, read.metadata, read.file, read.language) == (
        document.name, document.metadata, document.file, document.language,
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"name": 1},
        {"chunks": [{"content": 1}]},
        {"chunks": [{"content": "a", "keywords": "b"}]},
        {"chunks": [{"content": "a", "children": [1]}]},
        {"chunks": 3},
        {"enabled": "yes"},
        {"metadata": {"a": [1]}},
        {"file": {"sha256": 1, "size": 1, "name": "a"}},
        {"rule": []},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_line_with_other_types_is_refused(fields: dict[str, object]) -> None:
    """By somebody who also wrote the checksums."""
    line = {"id": "1", "name": "a", "form": "text_model", **fields}

    with pytest.raises(ArchiveError, match="Not a document"):
        ArchivedDocument.from_json(line)


@given(st.binary(max_size=200))
def test_any_other_file_is_not_a_manifest(content: bytes) -> None:
    with pytest.raises(ArchiveError):
        Manifest.from_bytes(content)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "/",
        "files/ab/cd",
        "files/../x",
        "documents/0000001.jsonl.gz",
        "manifest.json",
        "files/AB/" + "AB" * 32,
        "documents/000001.jsonl.gz\n",
    ],
)
def test_only_members_of_an_archive_are_opened(name: str) -> None:
    assert not is_member_name(name)
