"""What to do with each file: decides everything, does nothing.

| document of that name | overwrite | skip | fail |
|---|---|---|---|
| none | create | create | create |
| enabled | update | skipped | failed |
| disabled | failed | skipped | failed |

A disabled one is never overwritten: the server would make a second document of the same name
(recording 422).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from attrs import frozen

from .report import ItemResult, Outcome
from .scan import Found

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.models import Document

OnExisting = Literal["overwrite", "skip", "fail"]


@frozen(kw_only=True)
class Remote:
    """A document that the knowledge base held when the run began."""

    document_id: str
    enabled: bool
    final: bool
    upload_file_id: str | None

    @classmethod
    def of(cls, document: Document) -> Remote:
        """Keep what a plan needs of a listed document."""
        return cls(
            document_id=document.id,
            enabled=document.enabled,
            final=document.indexing_status.final,
            upload_file_id=document.upload_file.id if document.upload_file else None,
        )


@frozen(kw_only=True)
class Planned:
    """A file to send under `name`, in place of the document `replaces` if there is one."""

    found: Found
    name: str
    replaces: Remote | None


def plan(
    found: Found, remote: Mapping[str, Remote], on_existing: OnExisting
) -> Planned | ItemResult:
    """Decide about one file."""
    name = found.name
    existing = remote.get(name)
    if existing is None:
        return Planned(found=found, name=name, replaces=None)
    if on_existing == "overwrite" and existing.enabled:
        return Planned(found=found, name=name, replaces=existing)
    outcome = Outcome.SKIPPED if on_existing == "skip" else Outcome.FAILED
    reason = "a document of its name exists"
    if on_existing == "overwrite":
        reason = "a disabled document has its name: enable or delete that first"
    return ItemResult(
        key=found.key,
        name=name,
        outcome=outcome,
        reason=reason,
        document_id=existing.document_id,
        size=found.size,
    )
