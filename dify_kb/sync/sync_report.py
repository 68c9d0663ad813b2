"""The changes of a sync, and its report."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import attrs
from attrs import field, frozen

from dify_kb.ingest.report import LoadReport


class SyncAction(enum.StrEnum):
    """The action of a sync for a file or a document."""

    ADD = "add"
    UPDATE = "update"
    RENAME = "rename"
    DELETE = "delete"
    SAME = "same"
    """Nothing: the document is that of the file."""

    SKIP = "skip"
    """The file cannot be loaded, such as an empty one; it has no document."""

    KEEP = "keep"
    """The document is kept back: `reason` says why."""

    FAIL = "fail"
    """The file cannot be read or loaded."""

    FOREIGN = "foreign"
    """The document was not made by this sync, and is not touched."""

    @property
    def symbol(self) -> str:
        """The character before the key in a listed plan, as `rclone --combined` writes it."""
        return _SYMBOLS[self]


_SYMBOLS: Mapping[SyncAction, str] = {
    SyncAction.ADD: "+",
    SyncAction.UPDATE: "*",
    SyncAction.RENAME: ">",
    SyncAction.DELETE: "-",
    SyncAction.SAME: "=",
    SyncAction.SKIP: "=",
    SyncAction.KEEP: "~",
    SyncAction.FAIL: "!",
    SyncAction.FOREIGN: "?",
}

CHANGING = frozenset({
    SyncAction.ADD, SyncAction.UPDATE, SyncAction.RENAME, SyncAction.DELETE,
})  # fmt: skip
"""The actions that change the dataset."""


@frozen(kw_only=True)
class SyncChange:
    """One line of a plan. `key` is that of the file, or the name of a foreign document.

    `old_key` is the key before a rename.
    """

    action: SyncAction
    key: str
    document_id: str | None = None
    old_key: str | None = None
    reason: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields that are set, by name."""
        return {name: value for name, value in attrs.asdict(self).items() if value is not None}


HELD_EXIT_CODE = 7


@frozen(kw_only=True)
class SyncReport(LoadReport):
    """The summary of a sync.

    The counts of files are those of a load, but `added` does not include the `renamed` files:
    `found` is the sum of the eight outcomes and `renamed`. `deleted` counts the documents that were
    deleted or, with `delete="disable"` or `"archive"`, taken out of retrieval. `kept_back` counts
    the documents that were neither updated nor deleted although their file was changed or is gone,
    `kept_back_reasons` by reason. `foreign` counts the documents of the dataset that this sync did
    not make, `conflicts` the files that were not loaded because of the name of one of these.

    `held` is the reason why all deletes were held back, if they were. The report is then falsy, as
    with conflicts, and `exit_code` is 7. `changes` are the lines of the plan except `same`, with
    what was held back; after a dry run, what a run would do.
    """

    renamed: int = 0
    deleted: int = 0
    kept_back: int = 0
    foreign: int = 0
    conflicts: int = 0
    held: str | None = None
    kept_back_reasons: Mapping[str, int] = field(factory=dict)
    changes: Sequence[SyncChange] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return self.held is None and not self.conflicts and LoadReport.__bool__(self)

    @property
    def exit_code(self) -> int:
        """As that of a load, but 7 if only deletes or conflicting files were held back."""
        is_held = self.held is not None or self.conflicts > 0
        if self.stopped is None and is_held and LoadReport.__bool__(self):
            return HELD_EXIT_CODE
        return super().exit_code

    @property
    def has_differences(self) -> bool:
        """Whether the plan changes the dataset or keeps something back."""
        return any(one.action in {*CHANGING, SyncAction.KEEP} for one in self.changes)

    def to_dict(self) -> dict[str, object]:
        """Return the fields by name, with `exit_code` but without `changes`."""
        fields = attrs.asdict(
            self, filter=lambda attribute, _: attribute.name not in {"_failures", "changes"}
        )
        return {**fields, "exit_code": self.exit_code}
