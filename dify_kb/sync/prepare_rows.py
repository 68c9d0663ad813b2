"""Prepare the rows of a sync before its files are planned: adopt, restore, match renames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from attrs import define, evolve, field

from dify_kb.errors import SourceError
from dify_kb.ingest.journal import JournalRow, JournalState
from dify_kb.ingest.sources.file_content import read_content
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.models import Document, IndexingStatus

from .dataset_documents import DatasetDocuments, Ownership, may_be_sent_by
from .sync_options import SyncOptions
from .sync_plan import SyncPlan

_UNFINISHED = frozenset({
    JournalState.WAITING, JournalState.SENDING, JournalState.ACCEPTED,
})  # fmt: skip
"""The states of a renamed file whose upload was interrupted."""


def _is_new(row: JournalRow) -> bool:
    """Return whether a row is that of an interrupted upload of a file without a document before."""
    return row.state in _UNFINISHED and row.previous is None


@define(kw_only=True)
class RowPreparer:
    """Adapts the rows to the files found and to the documents of the dataset.

    `found` are the files by key, `rows` all rows, `gone` those whose file is gone; both change.
    """

    options: SyncOptions
    documents: DatasetDocuments
    ownership: Ownership
    found: Mapping[str, FoundFile]
    rows: dict[str, JournalRow]
    gone: dict[str, JournalRow]
    plan: SyncPlan
    now: float
    restored: set[str] = field(factory=set)
    """The keys of files whose documents are enabled again."""

    _digests: dict[str, bytes | None] = field(factory=dict)

    def prepare(self) -> None:
        """Adapt the rows. Blocking: reads files whose size is that of one that is gone."""
        self._move_keys()
        self._adopt()
        self._restore()
        self._resolve_unanswered()

    def _move_keys(self) -> None:
        """Move the rows of keys that changed although the name of the document did not."""
        by_name = {row.name: row for row in self.gone.values()}
        for key, file in self.found.items():
            row = None if key in self.rows else by_name.get(file.name)
            if row is not None:
                self.rows[key] = evolve(row, key=key)
                del self.rows[row.key], self.gone[row.key]
                self.plan.moved.append((row.key, self.rows[key]))

    def _adopt(self) -> None:
        """Add the rows of documents that are taken over: made by an interrupted run, or asked."""
        for key, file in self.found.items():
            if key in self.rows:
                continue
            document = self._find_adoptable(file)
            if document is None or (content := self._digest(file)) is None:
                continue
            stored = document.upload_file
            self.rows[key] = JournalRow(
                key=key,
                name=file.name,
                size=file.size,
                token=None,
                content=content,
                rule=self.options.load.chunking_fingerprint,
                labels="",
                state=_adopted_state(document),
                attempts=1,
                sent_at=self.now,
                previous=None,
                document_id=document.id,
                batch=None,
                upload_file_id=stored.id if stored else None,
                reason=None,
            )
            self.plan.adopted.append(self.rows[key])

    def _find_adoptable(self, file: FoundFile) -> Document | None:
        for document in self.ownership.find_foreign(self.documents, file.name):
            stored = document.upload_file
            if stored is None or stored.size != file.size:
                continue
            if "sync_source" in document.metadata_values:
                continue
            interrupted = self.options.state == "base" and document.created_from == "api"
            if self.options.adopt or interrupted:
                return document
        return None

    def _restore(self) -> None:
        """Plan to enable the documents again that an earlier sync has taken out of retrieval."""
        for key in self.found:
            row = self.rows.get(key)
            if row is None or row.state is not JournalState.TRASHED:
                continue
            self.rows[key] = evolve(row, state=JournalState.DONE, reason=None)
            if self.documents.find_own(row) is not None:
                self.plan.restored.append(row)
                self.restored.add(key)

    def _resolve_unanswered(self) -> None:
        """Find the documents of unanswered uploads, where another client's has the same name.

        Where there is no such document, the load looks for them, and waits for late ones.
        """
        for key, file in self.found.items():
            row = self.rows.get(key)
            if (
                row is None
                or row.state is not JournalState.SENDING
                or not self.ownership.find_foreign(self.documents, file.name)
            ):
                continue
            newest = next(
                (one for one in self.documents.find_by_name(row.name) if may_be_sent_by(row, one)),
                None,
            )
            if newest is None:
                self.rows[key] = evolve(row, state=JournalState.WAITING)
            else:
                stored = newest.upload_file
                self.rows[key] = evolve(
                    row,
                    state=JournalState.ACCEPTED,
                    document_id=newest.id,
                    upload_file_id=stored.id if stored else None,
                )

    def match_renames(self) -> dict[str, JournalRow]:
        """Return the row of the old key for each renamed file, by its new key."""
        by_size = defaultdict[int, list[JournalRow]](list)
        for row in self.gone.values():
            has_document = self.documents.find_own(row) is not None
            if row.state is JournalState.DONE and row.content and has_document:
                by_size[row.size].append(row)
        renames: dict[str, JournalRow] = {}
        if not by_size:
            return renames
        for key in sorted(self.found):
            file, known = self.found[key], self.rows.get(key)
            candidates = by_size.get(file.size, [])
            if not candidates or (known is not None and not _is_new(known)):
                continue
            content = self._digest(file)
            same = [old for old in candidates if old.content == content]
            if same:
                best = max(same, key=lambda old: (_base_name(old.key) == _base_name(key), old.key))
                candidates.remove(best)
                renames[key] = best
        return renames

    def _digest(self, file: FoundFile) -> bytes | None:
        if file.key not in self._digests:
            try:
                content = read_content(file)
            except SourceError:  # sending it reports the error
                self._digests[file.key] = None
            else:
                content.close()
                self._digests[file.key] = content.digest
        return self._digests[file.key]


def _adopted_state(document: Document) -> JournalState:
    if document.indexing_status is IndexingStatus.COMPLETED:
        return JournalState.DONE
    return JournalState.WAITING if document.indexing_status.is_final else JournalState.ACCEPTED


def _base_name(key: str) -> str:
    return key.rpartition("/")[2]
