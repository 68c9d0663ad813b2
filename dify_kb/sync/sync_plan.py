"""The plan of a sync: what the load sends, and what is renamed, deleted and kept back."""

from __future__ import annotations

from attrs import define, field, frozen

from dify_kb.ingest.journal import JournalRow
from dify_kb.ingest.planning.file_plan import PlannedFile
from dify_kb.ingest.report import ItemResult
from dify_kb.models import Document

from .sync_report import SyncChange


@frozen(kw_only=True)
class Deletion:
    """A document to delete. `row` is that of its file, None for a leftover."""

    key: str
    document_id: str
    row: JournalRow | None
    document: Document | None = None
    """The document as listed; None if it was not."""

    reason: str | None = None
    counts: bool = True
    """Whether it counts for the limit of deletes: not a version of a file that is kept."""


@frozen(kw_only=True)
class Rename:
    """A file that was renamed: `row` is that of its old key, `document` the old document."""

    old_key: str
    key: str
    row: JournalRow
    document: Document | None


@define(kw_only=True)
class SyncPlan:
    """The plan of a sync."""

    files: list[PlannedFile | ItemResult] = field(factory=list)
    """What the load executes."""

    changes: list[SyncChange] = field(factory=list)
    renames: list[Rename] = field(factory=list)
    deletions: list[Deletion] = field(factory=list)
    restored: list[JournalRow] = field(factory=list)
    """The rows whose documents are enabled again before the files are sent."""

    adopted: list[JournalRow] = field(factory=list)
    """The rows of documents that are taken over."""

    moved: list[tuple[str, JournalRow]] = field(factory=list)
    """Old keys and new rows of files whose document has the same name."""

    versions: dict[str, list[Document]] = field(factory=dict)
    """The documents of files with several, as interrupted replacements leave them, by key."""

    foreign_ids: set[str] = field(factory=set)
    forgotten: list[str] = field(factory=list)
    """The keys of rows without a document."""

    held: str | None = None
    """Why no document is deleted."""

    foreign: int = 0
    conflicts: int = 0
    owned: int = 0
    same: int = 0

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not (
            self.changes
            or any(isinstance(one, PlannedFile) for one in self.files)
            or self.restored
            or self.adopted
            or self.moved
            or self.forgotten
        )

    def affected_names(self) -> set[str]:
        """Return the names whose documents must be known before the plan is carried out."""
        rows = [*self.restored, *(rename.row for rename in self.renames)]
        rows += [deletion.row for deletion in self.deletions if deletion.row is not None]
        names = {row.name for row in rows}
        return names | {one.name for one in self.files if isinstance(one, PlannedFile)}
