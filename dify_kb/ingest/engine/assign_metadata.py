"""Metadata of documents that are indexed, as many at once as there are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

import anyio
from attrs import define, evolve, field

from dify_kb.errors import KnowledgeError
from dify_kb.ingest.planning.plan import Do
from dify_kb.ingest.report import ItemResult, Outcome
from dify_kb.resources.labels import Labels

from .upload import UploadedDocument

if TYPE_CHECKING:
    from dify_kb.resources.values import Value

NOT_SET = "indexed; the run stopped before its metadata was set"


def fingerprint(metadata: Mapping[str, Value]) -> str:
    """Tell one set of values from another; "" for none."""
    if not metadata:
        return ""
    told = json.dumps(metadata, sort_keys=True, default=_told)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _told(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else repr(value)


@define
class MetadataAssigner:
    """Sets the metadata of whatever has gathered while it set that of others."""

    _labels: Labels
    _failing: Callable[[KnowledgeError], Awaitable[bool]]
    """Takes an error; when the server is back it tells whether to go on."""

    _done: Callable[[UploadedDocument, ItemResult, str], None]
    """Takes a document that is ready, its result, and the fingerprint of what was set."""

    _gathered: list[tuple[UploadedDocument, ItemResult]] = field(factory=list)
    _more: anyio.Event = field(factory=anyio.Event)

    def add(self, sent: UploadedDocument, result: ItemResult) -> None:
        """Take a document that is indexed."""
        self._gathered.append((sent, result))
        self._more.set()

    async def run(self) -> None:
        """Set metadata until cancelled."""
        while True:
            await self._more.wait()
            self._more = anyio.Event()
            gathered, self._gathered = self._gathered, []
            await self._set(gathered)

    async def _set(self, gathered: list[tuple[UploadedDocument, ItemResult]]) -> None:
        wanted = {sent.document_id: sent.planned.metadata for sent, _ in gathered}
        fresh = {
            sent.document_id
            for sent, _ in gathered
            if not sent.updated and sent.planned.do is not Do.LABEL
        }
        try:
            reasons = await self._labels.assign(wanted, fresh=fresh)
        except KnowledgeError as error:
            if await self._failing(error):
                self._gathered.extend(gathered)
                self._more.set()
                return
            reasons = dict.fromkeys(wanted, NOT_SET)
        for sent, result in gathered:
            self._tell(sent, result, reasons[sent.document_id])

    def _tell(self, sent: UploadedDocument, result: ItemResult, reason: str | None) -> None:
        if reason is None:
            self._done(sent, result, fingerprint(sent.planned.metadata))
            return
        outcome = Outcome.PENDING if reason == NOT_SET else Outcome.FAILED
        if outcome is Outcome.FAILED:
            reason = f"indexed, but its metadata could not be set: {reason}"
        self._done(sent, evolve(result, outcome=outcome, reason=reason, error=reason), "")
