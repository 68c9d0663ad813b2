"""Read a dataset and its documents from a server."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from attrs import define

from dify_kb.errors import ApiError, ConfigError
from dify_kb.models import Dataset, DocForm, Document, read_values
from dify_kb.wire import codec
from dify_kb.wire.version_bugs import is_older

from .archive_session import ArchiveSession
from .archived_document import ArchivedChunk, ArchivedDataset, ArchivedDocument, compute_digest
from .export_state import ListedRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from dify_kb.models import DocumentDetail, MetadataScalar, Page, Segment


T = TypeVar("T")

PAGE_SIZE: Final = 100
FIRST_WITH_DETAIL: Final = "1.8"


def check_exportable(dataset: Dataset) -> None:
    """Check that a dataset consists of documents and chunks.

    Raises:
        ConfigError: it is external, or has a pipeline.
    """
    if dataset.provider == "external":
        raise ConfigError(
            f"Dataset {dataset.name!r} is external: its documents are not on this server.",
            hint="Back up the external knowledge base itself.",
        )
    if dataset.pipeline_id or dataset.runtime_mode == "rag_pipeline":
        raise ConfigError(
            f"Dataset {dataset.name!r} has a pipeline, which the API cannot recreate.",
            hint="Export the pipeline as DSL in the console, and its documents from their source.",
        )


def describe_dataset(dataset: Dataset, rule: Mapping[str, Any] | None) -> ArchivedDataset:
    """Return the settings of a dataset. `rule` is the one that new documents inherit."""
    retrieval = dataset.retrieval_model_dict
    fields = {
        str(row["name"]): str(row["type"])
        for row in dataset.doc_metadata or ()
        if row.get("id") != "built-in" and "name" in row and "type" in row
    }
    return ArchivedDataset(
        id=dataset.id,
        name=dataset.name,
        description=dataset.description or "",
        technique=dataset.indexing_technique,
        permission=dataset.permission,
        form=dataset.doc_form,
        embedding=(dataset.embedding_model_provider or "", dataset.embedding_model)
        if dataset.embedding_model
        else None,
        retrieval=cast("Mapping[str, Any]", codec.encode(retrieval)) if retrieval else None,
        rule=rule,
        fields=dict(sorted(fields.items())),
        has_built_in_fields=bool(dataset.built_in_field_enabled),
        tags=sorted(str(tag["name"]) for tag in dataset.tags or () if "name" in tag),
    )


def describe_row(row: Document) -> ListedRow:
    """Return what the list tells about a document.

    A chunk that was edited without a change of its length, its keywords or its state changes
    nothing in the list (measured on 1.4.3, 1.12.1 and 1.14.2).
    """
    upload = row.upload_file
    known: dict[str, object] = {
        "name": row.name,
        "form": row.doc_form,
        "enabled": row.enabled,
        "archived": row.is_archived,
        "status": row.indexing_status,
        "error": row.error,
        "metadata": [
            [value.name, repr(value.value)] for value in read_values(row.doc_metadata, parse=False)
        ],
        "source": row.data_source_type,
        "file": upload and [upload.id, upload.name, upload.size],
        "rule": row.dataset_process_rule_id,
        "words": row.word_count,
    }
    created = row.created_at.timestamp() if row.created_at else 0.0
    # Metadata as the list has it: servers before 1.8 have no other.
    known["values"] = _own_values(row.doc_metadata, parse=True)
    return ListedRow(row.id, created, row.position or 0, compute_digest(known), json.dumps(known))


def _own_values(
    entries: Sequence[Mapping[str, object]] | None, *, parse: bool
) -> dict[str, MetadataScalar]:
    """Return the values by field name, without built-in fields and empty values."""
    return {
        value.name: str(value.value)
        if isinstance(value.value, float) and not math.isfinite(value.value)
        else value.value
        for value in read_values(entries, parse=parse)
        if value.id != "built-in" and value.value is not None
    }


@define
class DatasetReader:
    """A reader of the documents of one dataset."""

    session: ArchiveSession
    dataset: Dataset
    rule: Mapping[str, Any] | None = None
    """The rule that new documents inherit, as the last document that was read told."""

    _has_detail: bool = True

    async def iter_row_pages(self) -> AsyncIterator[tuple[Sequence[Document], int]]:
        """Yield pages of the document list, newest first, with the total number."""
        fetch = partial(self.session.documents.list, self.dataset, limit=PAGE_SIZE)
        async for page in self._iter_pages(fetch):
            yield page.data, page.total

    async def _iter_pages(self, fetch: Callable[..., Awaitable[Page[T]]]) -> AsyncIterator[Page[T]]:
        number, total = 1, 1
        while (number - 1) * PAGE_SIZE < total:
            page = await self.session.read(partial(fetch, page=number))
            yield page
            if not page.data:
                return
            number, total = number + 1, page.total

    async def fetch_detail(self, document_id: str) -> DocumentDetail | None:
        """Return a document with its rule and language; None on servers before 1.8.

        Raises:
            NotFoundError: the document does not exist.
        """
        version = self.session.sender.server_version
        if not self._has_detail or (version and is_older(version, FIRST_WITH_DETAIL)):
            return None
        try:
            detail = await self.session.read(
                lambda: self.session.documents.get(self.dataset, document_id)
            )
        except ApiError as error:
            if error.status != HTTPStatus.METHOD_NOT_ALLOWED:
                raise
            self._has_detail = False
            return None
        self.rule = _read_rule(detail.dataset_process_rule) or self.rule
        return detail

    async def read_document(self, listed: ListedRow) -> ArchivedDocument:
        """Return a document with its chunks, without its file.

        Costs one request since 1.8, one per 100 chunks, and one per 100 child chunks of each parent
        that the list shows without them.

        Raises:
            NotFoundError: the document does not exist.
        """
        row: dict[str, Any] = json.loads(listed.row)
        detail = await self.fetch_detail(listed.id)
        rule = (detail.document_process_rule or None) if detail else None
        values = _own_values(detail.doc_metadata, parse=False) if detail else row["values"]
        segments = await self.read_segments(listed.id)
        form = row["form"] or DocForm.TEXT
        chunks = [
            ArchivedChunk(
                content=segment.content,
                answer=segment.answer or None,
                keywords=tuple(segment.keywords or ()),
                enabled=segment.enabled is not False,
                children=await self.read_children(listed.id, segment, form, rule),
                summary=segment.summary or None,
                attachments=len(segment.attachments or ()),
            )
            for segment in segments
        ]
        return ArchivedDocument(
            id=listed.id,
            name=row["name"],
            form=form,
            language=detail.doc_language if detail else None,
            rule=_read_rule(rule),
            enabled=row["enabled"],
            archived=bool(row["archived"]),
            status=row["status"],
            error=row["error"] if row["status"] == "error" else None,
            metadata=values,
            chunks=tuple(chunks),
        )

    async def read_segments(self, document_id: str) -> Sequence[Segment]:
        """Return all chunks of a document, in order. Costs one request per 100."""
        rows: dict[str, Segment] = {}
        fetch = partial(self.session.segments.list, self.dataset, document_id, limit=PAGE_SIZE)
        async for page in self._iter_pages(fetch):
            rows |= {segment.id: segment for segment in page.data}
        return list(rows.values())

    async def read_children(
        self, document_id: str, segment: Segment, form: str, rule: Mapping[str, Any] | None
    ) -> tuple[str, ...]:
        """Return the contents of the child chunks of a chunk, in order."""
        if form != DocForm.HIERARCHICAL:
            return ()
        inline = segment.child_chunks
        # The list shows no children of the only parent of a whole document (recording 1037).
        if inline or (rule is not None and not is_full_document(rule)):
            return tuple(child.content for child in sorted(inline or (), key=_position))
        list_children = self.session.child_chunks.list
        fetch = partial(list_children, self.dataset, document_id, segment.id, limit=PAGE_SIZE)
        return tuple(
            [child.content async for page in self._iter_pages(fetch) for child in page.data]
        )


def _position(child: object) -> int:
    return getattr(child, "position", None) or 0


def _read_rule(rule: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return a rule without its ids."""
    return {name: rule[name] for name in ("mode", "rules") if name in rule} if rule else None


def is_full_document(rule: Mapping[str, Any]) -> bool:
    """Return whether a rule makes the whole document the only parent."""
    rules = rule.get("rules")
    return isinstance(rules, Mapping) and rules.get("parent_mode") == "full-doc"
