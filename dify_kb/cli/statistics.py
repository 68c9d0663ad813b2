"""What the documents of a base add up to. Pure: rows and the time in, numbers out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from attrs import frozen

import dify_kb

if TYPE_CHECKING:
    from dify_kb import Document

EMPTY = "completed, but nothing was indexed"
"""The kind of a document that no search finds although it has no error."""

LONGEST = 100
"""Characters of a kind of error."""

_PARTS = (
    (
        re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE),
        "ID",
    ),
    (re.compile(r"(?<![\w.])/(?:[\w.@~+-]+/)*[\w.@~+-]+"), "PATH"),
    (re.compile(r"'[^']*'|\"[^\"]*\""), "'…'"),
    (re.compile(r"\b\d+(?:[.,]\d+)*"), "N"),
    (re.compile(r"\s+"), " "),
)
"""What differs between errors of one kind: ids, temporary files, names, numbers."""


@frozen(kw_only=True)
class Stuck:
    """A document that does not get on; `since` is its last change that the server tells."""

    id: str
    name: str
    status: str
    since: datetime


@frozen(kw_only=True)
class Figures:
    """Numbers of one base. `chunks` is None where they were not counted."""

    id: str
    name: str
    documents: int
    statuses: Mapping[str, int]
    words: int
    """Characters: the server's word_count counts those."""

    chunks: int | None
    errors: Mapping[str, int]
    stuck: Sequence[Stuck]


def kind_of(error: str) -> str:
    """Give what errors of one kind have in common."""
    for pattern, name in _PARTS:
        error = pattern.sub(name, error)
    error = error.strip() or "no reason given"
    return error if len(error) <= LONGEST else f"{error[: LONGEST - 1]}…"


def statuses(rows: Sequence[Document]) -> Mapping[str, int]:
    """Count documents by what the console shows, the most frequent first."""
    return _counted(Counter(str(row.display_status or row.indexing_status) for row in rows))


def errors(rows: Sequence[Document]) -> Mapping[str, int]:
    """Count what is not found by its kind, the most frequent first."""
    kinds = Counter[str]()
    for row in rows:
        if row.indexing_status is dify_kb.IndexingStatus.ERROR:
            kinds[kind_of(row.error or "")] += 1
        elif row.indexing_status is dify_kb.IndexingStatus.COMPLETED and not row.word_count:
            kinds[EMPTY] += 1
    return _counted(kinds)


def stuck(
    rows: Sequence[Document],
    changed: Mapping[str, datetime],
    now: datetime,
    patience: timedelta,
) -> Sequence[Stuck]:
    """Tell which documents do not get on, the longest first.

    One that is being indexed, or paused, and did not change for so long; one that waits for so
    long although a younger one is done, or nothing is being indexed at all. A long queue that
    moves is not stuck.

    Args:
        changed: when each document that is not final last changed, where that is known; else
            its creation counts.
    """
    done = [row.created_at for row in rows if row.indexing_status.final]
    youngest = max(done, default=None)
    late = {
        row.id: changed.get(row.id, row.created_at)
        for row in rows
        if not row.indexing_status.final and now - changed.get(row.id, row.created_at) >= patience
    }
    moving = any(
        not row.indexing_status.final
        and row.id not in late
        and row.indexing_status is not dify_kb.IndexingStatus.WAITING
        for row in rows
    )
    found = [
        Stuck(id=row.id, name=row.name, status=str(row.indexing_status), since=late[row.id])
        for row in rows
        if row.id in late
        and (
            row.indexing_status is not dify_kb.IndexingStatus.WAITING
            or not moving
            or (youngest is not None and youngest > late[row.id])
        )
    ]
    return sorted(found, key=lambda row: row.since)


def _counted(counter: Counter[str]) -> Mapping[str, int]:
    return dict(counter.most_common())
