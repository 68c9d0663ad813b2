"""A dry run: what a run would do with a file, told by the same judgement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attrs import evolve

from dify_kb.ingest.planning.plan import DISABLED, Do, OnExisting, Planned, left
from dify_kb.ingest.planning.remote_document import RemoteDocument
from dify_kb.ingest.report import ItemResult, Outcome

from .reconcile import PendingUpload, Verdict, judge
from .upload import not_sent

if TYPE_CHECKING:
    from dify_kb.ingest.planning.document_lookup import DocumentLookup
    from dify_kb.models import Document

SENT = "would be sent"
IN_PLACE = "would be sent in place of its document"
LATER = f"{IN_PLACE}, once that is indexed"
FOLLOWED = "is sent already, and would be followed to its end"
LABELLED = "is indexed already; its metadata would be set"
ADOPTED = "is on the server already, though its answer was lost; would be adopted"


async def rehearsed(
    planned: Planned, lookup: DocumentLookup, on_existing: OnExisting
) -> ItemResult:
    """Tell what would become of a planned file; one request where a run would look first.

    Raises:
        KnowledgeError: the server could not be asked.
    """
    match planned.do:
        case Do.FOLLOW:
            return _pending(planned, FOLLOWED)
        case Do.LABEL:
            return _pending(planned, LABELLED)
        case Do.SEND:
            return _pending(planned, IN_PLACE if planned.replaces else SENT)
        case Do.LOOK if planned.row is None and planned.replaces and not planned.replaces.final:
            return _pending(planned, LATER)
        case Do.LOOK:
            return _looked(planned, await lookup.named(planned.name), on_existing)


def _looked(planned: Planned, document: Document | None, on_existing: OnExisting) -> ItemResult:
    """Judge a file as the waiting room does once everything that may land has landed."""
    held = PendingUpload(planned=planned, since=0.0, due=0.0, lost=planned.row is not None)
    verdict = judge(held, document, math.inf, replaces=on_existing == "overwrite")
    match verdict:
        case Verdict.ADOPT if planned.same:
            return _pending(planned, ADOPTED)
        case Verdict.REFUSE:
            return not_sent(planned, Outcome.FAILED, DISABLED)
        case Verdict.LEAVE if document is not None:
            return left(evolve(planned, replaces=RemoteDocument.of(document)), on_existing)
        case Verdict.WAIT:
            return _pending(planned, LATER)
        case _:
            return _pending(planned, IN_PLACE if document else SENT)


def _pending(planned: Planned, would: str) -> ItemResult:
    return not_sent(planned, Outcome.PENDING, would)
