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

_TERMINAL: Final = frozenset({None, "completed", "error", "paused"})

_CREATES: Final = frozenset({"documents.create_by_file", "documents.create_by_text"})


def lost(documents: Iterable[DocumentState], expected: Iterable[str]) -> list[str]:
    """Tell the names that should be there and are not."""
    return sorted(set(expected) - {document.name for document in documents})


def unindexed(documents: Iterable[DocumentState]) -> list[str]:
    """Tell the names of documents that did not end `completed`, or not yet."""
    return sorted({document.name for document in documents if document.status != "completed"})


def twins(documents: Iterable[DocumentState]) -> Mapping[str, Sequence[str]]:
    """Tell the names that several documents of a dataset have, with their ids."""
    ids: dict[tuple[str, str], list[str]] = {}
    for document in documents:
        ids.setdefault((document.dataset_id, document.name), []).append(document.id)
    return {name: same for (_, name), same in ids.items() if len(same) > 1}


def overlapped(runs: Iterable[RunEvent]) -> list[str]:
    """Tell the names of documents that two runs ever indexed at the same time."""
    return sorted({event.document for event in runs if event.overlapping})


def doubled(documents: Iterable[DocumentState], runs: Iterable[RunEvent]) -> list[str]:
    """Tell the names of documents that hold more chunks than their last run made.

    Chunks that were added by hand count too, so this is for documents that were only loaded.
    """
    made = {event.document_id: event.chunks for event in runs if event.kind == "ended"}
    return sorted(
        document.name
        for document in documents
        if document.chunks > made.get(document.id, document.chunks)
    )


def reposted(history: Iterable[Exchange]) -> list[str]:
    """Tell the names that were created again before their document was indexed or had failed.

    Whoever does that has both runs write their chunks (measured).
    """
    return sorted(
        {
            exchange.document
            for exchange in creates(history)
            if exchange.document and exchange.replaced not in _TERMINAL
        }
    )


def extra(history: Iterable[Exchange]) -> Mapping[str, int]:
    """Count the creates of each name beyond one, where there were more."""
    made = Counter(
        (exchange.dataset_id, exchange.document)
        for exchange in creates(history)
        if exchange.document
    )
    beyond: Counter[str] = Counter()
    for (_, name), count in made.items():
        beyond[str(name)] += count - 1
    return {name: count for name, count in beyond.items() if count}


def creates(history: Iterable[Exchange]) -> list[Exchange]:
    """Tell the creates that were carried out, answered or not."""
    return [
        exchange for exchange in history if exchange.committed and exchange.endpoint in _CREATES
    ]


@frozen(kw_only=True)
class Verdict:
    """All of it at once. False when anything was lost, or is there twice in some way.

    What is `unindexed` may have been planned so, and `extra` creates cost an indexing and nothing
    else: they leave it True.
    """

    lost: Sequence[str]
    unindexed: Sequence[str]
    twins: Mapping[str, Sequence[str]]
    overlapped: Sequence[str]
    doubled: Sequence[str]
    reposted: Sequence[str]
    extra: Mapping[str, int]

    def __bool__(self) -> bool:
        return not (self.lost or self.twins or self.overlapped or self.doubled or self.reposted)


def judge(
    expected: Iterable[str],
    documents: Sequence[DocumentState],
    history: Sequence[Exchange],
    runs: Sequence[RunEvent],
) -> Verdict:
    """Judge a load by the names that it was to bring."""
    return Verdict(
        lost=lost(documents, expected),
        unindexed=unindexed(documents),
        twins=twins(documents),
        overlapped=overlapped(runs),
        doubled=doubled(documents, runs),
        reposted=reposted(history),
        extra=extra(history),
    )
