"""What went wrong in the end, told by the documents that are there and by the history.

Everything here is a pure function of `Emulator.documents()`, `Emulator.history` and
`Emulator.runs`, or of what `GET /_emulator/history` tells of a server in another process.
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
    """Tell the names that should be there and are not."""
    return sorted(set(expected) - {document.name for document in documents})


def find_unindexed(documents: Iterable[DocumentState]) -> list[str]:
    """Tell the names of documents that did not end `completed`, or not yet."""
    return sorted({document.name for document in documents if document.status != "completed"})


def find_duplicates(documents: Iterable[DocumentState]) -> Mapping[str, Sequence[str]]:
    """Tell the names that several documents of a dataset have, with their ids."""
    ids: dict[tuple[str, str], list[str]] = {}
    for document in documents:
        ids.setdefault((document.dataset_id, document.name), []).append(document.id)
    return {name: document_ids for (_, name), document_ids in ids.items() if len(document_ids) > 1}


def find_overlapping_runs(runs: Iterable[RunEvent]) -> list[str]:
    """Tell the names of documents that two runs ever indexed at the same time."""
    return sorted({event.document for event in runs if event.overlapping})


def find_doubled_chunks(documents: Iterable[DocumentState], runs: Iterable[RunEvent]) -> list[str]:
    """Tell the names of documents that hold more chunks than their last run made.

    Chunks that were added by hand count too, so this is for documents that were only loaded.
    """
    counts = {event.document_id: event.chunks for event in runs if event.kind == "ended"}
    return sorted(
        document.name
        for document in documents
        if document.chunks > counts.get(document.id, document.chunks)
    )


def find_reposted(history: Iterable[Exchange]) -> list[str]:
    """Tell the names that were created again before their document was indexed or had failed.

    Whoever does that has both runs write their chunks (measured).
    """
    return sorted(
        {
            exchange.document
            for exchange in select_creates(history)
            if exchange.document and exchange.replaced not in _FINAL_STATUSES
        }
    )


def count_extra_creates(history: Iterable[Exchange]) -> Mapping[str, int]:
    """Count the creates of each name beyond one, where there were more."""
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
    """Tell the creates that were carried out, answered or not."""
    return [
        exchange
        for exchange in history
        if exchange.committed and exchange.endpoint in _CREATE_ENDPOINTS
    ]


@frozen(kw_only=True)
class LoadCheck:
    """All of it at once. False when anything was lost, or is there twice in some way.

    What is `unindexed` may have been planned so, and `extra_creates` cost an indexing and nothing
    else: they leave it True.
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
    """Judge a load by the names that it was to bring."""
    return LoadCheck(
        lost=find_lost(documents, expected),
        unindexed=find_unindexed(documents),
        duplicates=find_duplicates(documents),
        overlapped=find_overlapping_runs(runs),
        doubled_chunks=find_doubled_chunks(documents, runs),
        reposted=find_reposted(history),
        extra_creates=count_extra_creates(history),
    )
