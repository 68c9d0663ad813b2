"""The documents of a dataset as a sync sees them: its own, those of others, and what is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from attrs import field, frozen

from dify_kb.ingest.journal import JournalRow, JournalState
from dify_kb.ingest.metadata.labels import Labels
from dify_kb.ingest.metadata.sync_fields import SYNC_FIELDS, SyncFields
from dify_kb.ingest.planning.planner import remembered_document
from dify_kb.ingest.remote_document import RemoteDocument
from dify_kb.models import Document, IndexingStatus
from dify_kb.resources.metadata_validation import BUILT_IN

if TYPE_CHECKING:
    from dify_kb.resources.metadata_validation import AssignableValue

MAX_CLOCK_SKEW = timedelta(minutes=2)


@frozen
class DatasetDocuments:
    """The listed documents of a dataset, newest first.

    `names` are the names that were looked up; None if all documents were listed. The documents of
    other names are as the journal records them.
    """

    _by_id: Mapping[str, Document]
    _by_name: Mapping[str, Sequence[Document]]
    names: Collection[str] | None

    @classmethod
    def from_list(cls, documents: Iterable[Document], names: Collection[str] | None = None) -> Self:
        """Create from a list; `names` are those that it is limited to."""
        by_id: dict[str, Document] = {}
        by_name = defaultdict[str, list[Document]](list)
        for document in documents:
            if document.id not in by_id:
                by_id[document.id] = document
                by_name[document.name].append(document)
        return cls(by_id, by_name, names)

    @property
    def is_complete(self) -> bool:
        """Whether all documents were listed."""
        return self.names is None

    def __iter__(self) -> Iterator[Document]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, document_id: str | None) -> Document | None:
        """Return a listed document by its id."""
        return None if document_id is None else self._by_id.get(document_id)

    def find_by_name(self, name: str) -> Sequence[Document]:
        """Return the listed documents with this name, newest first."""
        return self._by_name.get(name, ())

    def knows(self, name: str) -> bool:
        """Return whether all documents with this name are listed."""
        return self.names is None or name in self.names

    def find_own(self, row: JournalRow | None) -> RemoteDocument | None:
        """Return the document of a row: as listed, or as the journal records it.

        If a replacement failed and was deleted, the document that it would have replaced.
        """
        if row is None or row.document_id is None:
            return None
        if not self.knows(row.name):
            return remembered_document(row)
        document = self._by_id.get(row.document_id) or next(iter(self.find_versions(row)), None)
        return None if document is None else RemoteDocument.from_document(document)

    def find_versions(self, row: JournalRow) -> Sequence[Document]:
        """Return all documents that the uploads of a row have made, newest first.

        More than one if a replacement was interrupted.
        """
        return [one for one in self.find_by_name(row.name) if is_version(row, one)]


@frozen
class Ownership:
    """Which documents belong to the sync: those of its rows, and those that carry its fields."""

    sync_id: str
    ids: frozenset[str]
    """The documents that the uploads of rows have made."""

    leftovers: Sequence[Document] = field(factory=list)
    """Other documents of the sync: older or unfinished versions of a file."""

    def is_foreign(self, document: Document) -> bool:
        """Return whether a document does not belong to this sync."""
        if document.id in self.ids:
            return False
        fields = SyncFields.from_values(document.metadata_values)
        return fields is None or fields.sync_id != self.sync_id

    def find_foreign(self, documents: DatasetDocuments, name: str) -> list[Document]:
        """Return the documents with this name that do not belong to this sync, newest first."""
        return [one for one in documents.find_by_name(name) if self.is_foreign(one)]


def get_kept_metadata(document: Document) -> Mapping[str, AssignableValue]:
    """Return the values that a new version of a document keeps."""
    return {
        name: value
        for name, value in document.metadata_values.items()
        if name not in SYNC_FIELDS and name not in BUILT_IN and value is not None
    }


def is_version(row: JournalRow, document: Document) -> bool:
    """Return whether a document was made by the uploads of a row: the latest, or the one before."""
    if document.id == row.document_id:
        return True
    file = document.upload_file
    if file is not None and row.previous is not None and file.id == row.previous:
        return True
    return row.state is JournalState.SENDING and may_be_sent_by(row, document)


def may_be_sent_by(row: JournalRow, document: Document) -> bool:
    """Return whether a document may be the one that an unanswered create has made."""
    file = document.upload_file
    if document.created_from == "web" or document.name != row.name:
        return False
    if file is not None and file.id == row.previous:
        return False
    if file is not None and file.size not in {None, row.size - Labels.parse(row.labels).removed}:
        return False
    earliest = datetime.fromtimestamp(row.sent_at, UTC) - MAX_CLOCK_SKEW
    return document.created_at is None or document.created_at >= earliest


def read_rows(
    documents: DatasetDocuments, sync_id: str, journal_rows: Mapping[str, JournalRow]
) -> tuple[dict[str, JournalRow], list[Document]]:
    """Return the rows of a sync by key as its dataset records them, and leftover documents.

    A leftover is another document of the same key, as an interrupted replacement or two machines at
    once leave it: the newest completed one is kept. Rows of the journal stay if the dataset does
    not say otherwise: uploads without a known outcome, documents without fields, deleted documents.
    """
    versions = defaultdict[str, list[tuple[Document, SyncFields]]](list)
    marked: set[str] = set()
    for document in documents:
        fields = SyncFields.from_values(document.metadata_values)
        if fields is not None and fields.sync_id == sync_id:
            versions[fields.key].append((document, fields))
            marked.add(document.id)
    rows = dict(journal_rows)
    leftovers: list[Document] = []
    for key, candidates in versions.items():
        known = journal_rows.get(key)
        if known is not None and known.state in _UNDECIDED:
            # This machine sent the latest version: the load finds it, and deletes the older one.
            continue
        document, fields = _choose_version(candidates)
        leftovers += [other for other, _ in candidates if other.id != document.id]
        if known is None or known.document_id != document.id or known.content != fields.content:
            rows[key] = _create_row(document, fields)
    return rows, leftovers


_UNDECIDED = frozenset({JournalState.SENDING, JournalState.ACCEPTED, JournalState.STALLED})


def _choose_version(
    candidates: Sequence[tuple[Document, SyncFields]],
) -> tuple[Document, SyncFields]:
    """Return the newest completed version with a hash, else the newest."""
    for document, fields in candidates:
        if fields.content and document.indexing_status is IndexingStatus.COMPLETED:
            return document, fields
    return candidates[0]


def _create_row(document: Document, fields: SyncFields) -> JournalRow:
    file = document.upload_file
    completed = document.indexing_status is IndexingStatus.COMPLETED
    state = JournalState.DONE if completed and fields.content else JournalState.WAITING
    if fields.trashed is not None and not (document.enabled and not document.is_archived):
        state = JournalState.TRASHED
    labels = Labels.parse(fields.labels)
    size = (file.size if file is not None and file.size is not None else 0) + labels.removed
    return JournalRow(
        key=fields.key,
        name=document.name,
        size=size,
        token=fields.token,
        content=fields.content,
        rule=fields.rule,
        labels=fields.labels,
        state=state,
        attempts=1,
        sent_at=document.created_at.timestamp() if document.created_at else 0.0,
        previous=None,
        document_id=document.id,
        batch=None,
        upload_file_id=file.id if file else None,
        reason=None if fields.trashed is None else str(fields.trashed),
    )
