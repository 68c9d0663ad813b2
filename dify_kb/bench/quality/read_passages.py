"""Read the passages of documents for drafts of queries: of files, or of a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dify_kb.bench.corpus import read_user_files
from dify_kb.bench.corpus.random_text import StableRandom
from dify_kb.errors import KnowledgeError
from dify_kb.ingest.sources.document_names import file_extension
from dify_kb.models import IndexingStatus
from dify_kb.rag.extract import extract
from dify_kb.rag.extract_errors import ExtractError

from .draft_queries import SEED, DraftPassage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dify_kb.client import AsyncClient
    from dify_kb.models import Dataset, Document

MAX_BYTES = 50 * 1024 * 1024
"""The most bytes of files that are read."""

MAX_LISTED = 10_000
"""The documents of a dataset from which a sample is drawn: 100 list requests."""


def read_folder(folder: Path, documents: int) -> tuple[Sequence[DraftPassage], Sequence[str]]:
    """Return the passages of a sample of the files of a folder, and why files were left out.

    Raises:
        ConfigError: not a directory, or without files of a supported type.
        KnowledgeError: no file has text.
    """
    passages: list[DraftPassage] = []
    notes: list[str] = []
    for sample in read_user_files(folder, documents=documents, size=MAX_BYTES):
        try:
            texts = extract(sample.data, file_extension(sample.name))
        except ExtractError as error:
            notes.append(f"{sample.name}: {error}")
        else:
            passages += [DraftPassage(document=sample.name, text=text) for text in texts]
    _require_text(passages, notes)
    return passages, notes


async def read_dataset(
    client: AsyncClient, dataset: Dataset, documents: int
) -> Sequence[DraftPassage]:
    """Return the chunks of a sample of the documents of a dataset.

    Costs one request per 100 documents, at most 100, and one for each document of the sample, of
    which the first 100 chunks are read.

    Raises:
        KnowledgeError: no chunk has text, or the server refuses the requests.
    """
    rows: list[Document] = []
    async for row in client.documents.iter(dataset):
        if row.indexing_status is IndexingStatus.COMPLETED and row.enabled and not row.is_archived:
            rows.append(row)
        if len(rows) >= MAX_LISTED:
            break
    rng = StableRandom(SEED)
    passages: list[DraftPassage] = []
    for _ in range(min(documents, len(rows))):
        row = rows.pop(rng.integer_below(len(rows)))
        page = await client.segments.list(dataset, row.id, limit=100)
        passages += [DraftPassage(document=row.name, text=segment.content) for segment in page.data]
    _require_text(passages, [])
    return passages


def _require_text(passages: Sequence[DraftPassage], notes: Sequence[str]) -> None:
    if not any(passage.text.strip() for passage in passages):
        reason = f" ({notes[0]})" if notes else ""
        raise KnowledgeError(
            f"The documents contain no text to draft queries from{reason}.",
            hint="Pass a folder or a dataset of documents with text.",
        )
