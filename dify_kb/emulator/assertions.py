"""Check the result of a load: documents that were lost, duplicated or indexed twice.

All functions are pure. Their input is `Emulator.documents()`, `Emulator.history` and
`Emulator.runs`, or the response of `GET /_emulator/history` for a server in another process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .history import Exchange, RunEvent
    from .store import DocumentState

_FINAL_STATUSES: Final = frozenset({None, "completed", "error", "paused"})

_CREATE_ENDPOINTS: Final = frozenset({"documents.create_by_file", "documents.create_by_text"})


def find_lost(documents: Iterable[DocumentState], expected: Iterable[str]) -> list[str]:
    """Return the expected names that no document has."""
    return sorted(set(expected) - {document.name for document in documents})


def find_unindexed(documents: Iterable[DocumentState]) -> list[str]:
    """Return the names of documents that are not `completed`."""
    return sorted({document.name for document in documents if document.status != "completed"})


def find_duplicates(documents: Iterable[DocumentState]) -> Mapping[str, Sequence[str]]:
    """Return the names that several documents of a dataset share, with the document ids."""
    ids: dict[tuple[str, str], list[str]] = {}
    for document in documents:
        ids.setdefault((document.dataset_id, document.name), []).append(document.id)
    return {name: document_ids for (_, name), document_ids in ids.items() if len(document_ids) > 1}


def find_overlapping_runs(runs: Iterable[RunEvent]) -> list[str]:
    """Return the names of documents that two runs indexed at the same time."""
    return sorted({event.document for event in runs if event.overlapping})


def find_doubled_chunks(documents: Iterable[DocumentState], runs: Iterable[RunEvent]) -> list[str]:
    """Return the names of documents with more chunks than their last run created.

    Chunks added through the API count too, so this only applies to documents that were only loaded.
    """
    counts = {event.document_id: event.chunks for event in runs if event.kind == "ended"}
    return sorted(
        document.name
        for document in documents
        if document.chunks > counts.get(document.id, document.chunks)
    )


def find_reposted(history: Iterable[Exchange]) -> list[str]:
    """Return the names that were created again before indexing of their document had ended.

    After such a create both runs write their chunks (measured).
    """
    return sorted(
        {
            exchange.document
            for exchange in select_creates(history)
            if exchange.document and exchange.replaced not in _FINAL_STATUSES
        }
    )


def count_extra_creates(history: Iterable[Exchange]) -> Mapping[str, int]:
    """Return the number of creates beyond the first, for names that were created repeatedly."""
    counts = Counter(
        (exchange.dataset_id, exchange.document)
        for exchange in select_creates(history)
        if exchange.document
    )
    extra_counts: Counter[str] = Counter()
    for (_, name), count in counts.items():
        extra_counts[str(name)] += count - 1
    return {name: count for name, count in extra_counts.items() if count}


def select_creates(history: Iterable[Exchange]) -> list[Exchange]:
    """Return the creates that were processed, with or without a response."""
    return [
        exchange
        for exchange in history
        if exchange.committed and exchange.endpoint in _CREATE_ENDPOINTS
    ]


@frozen(kw_only=True)
class LoadCheck:
    """The results of all checks; falsy if a document was lost, duplicated or indexed twice.

    `unindexed` and `extra_creates` do not make it falsy: a test may have planned failures, and an
    extra create only costs an indexing run.
    """

    lost: Sequence[str]
    unindexed: Sequence[str]
    duplicates: Mapping[str, Sequence[str]]
    overlapped: Sequence[str]
    doubled_chunks: Sequence[str]
    reposted: Sequence[str]
    extra_creates: Mapping[str, int]

    def __bool__(self) -> bool:
        return not (
            self.lost or self.duplicates or self.overlapped or self.doubled_chunks or self.reposted
        )


def check_load(
    expected: Iterable[str],
    documents: Sequence[DocumentState],
    history: Sequence[Exchange],
    runs: Sequence[RunEvent],
) -> LoadCheck:
    """Check a load against the names of the documents that it should have created."""
    return LoadCheck(
        lost=find_lost(documents, expected),
        unindexed=find_unindexed(documents),
        duplicates=find_duplicates(documents),
        overlapped=find_overlapping_runs(runs),
        doubled_chunks=find_doubled_chunks(documents, runs),
        reposted=find_reposted(history),
        extra_creates=count_extra_creates(history),
    )
