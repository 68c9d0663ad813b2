"""Set the metadata of indexed documents, in batches of those that are waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning.metadata import metadata_fingerprint
from dify_kb.ingest.report import Outcome
from dify_kb.resources.metadata_assignment import MetadataAssignment

from .lifecycle import FileLifecycle
from .states import FileEvent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .tracked_file import TrackedFile


@define
class MetadataAssigner:
    """Worker that sets the metadata of all waiting documents in one call."""

    assignment: MetadataAssignment
    breaker: CircuitBreaker
    files: FileLifecycle

    async def run(self) -> None:
        """Set metadata until cancelled.

        Raises:
            KnowledgeError: the server refused a request, or the load gave up on it.
        """
        while True:
            await self._assign(await self.files.metadata.get_all())

    async def _assign(self, files: Sequence[TrackedFile]) -> None:
        by_id = {file.document.id: file for file in files if file.document is not None}
        wanted = {document_id: file.planned.metadata for document_id, file in by_id.items()}
        fresh = {document_id for document_id, file in by_id.items() if file.goal is Outcome.ADDED}

        async def assign() -> Mapping[str, str | None]:
            return await self.assignment.assign(wanted, fresh=fresh)

        # Setting metadata is idempotent, so that it is retried like a read.
        reasons = await self.breaker.read(assign)
        for document_id, file in by_id.items():
            reason = reasons[document_id]
            if reason is None:
                file.metadata_recorded = metadata_fingerprint(file.planned.metadata)
                self.files.apply(file, FileEvent.METADATA_SET)
            else:
                message = f"indexed, but its metadata could not be set: {reason}"
                self.files.apply(file, FileEvent.METADATA_REFUSED, message)
