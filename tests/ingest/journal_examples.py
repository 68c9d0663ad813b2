"""Rows for the tests of journals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dify_kb.ingest.journal import JournalRow, JournalState

IDENTITY: Final[Mapping[str, str]] = {"server": "https://dify", "dataset": "d", "source": "/docs"}

_SENT: Final[Mapping[str, Any]] = {
    "size": 4,
    "token": "1",
    "content": b"text",
    "rule": "",
    "labels": "",
    "state": JournalState.SENDING,
    "attempts": 1,
    "sent_at": 0.0,
    "previous": None,
    "document_id": None,
    "batch": None,
    "upload_file_id": None,
    "reason": None,
}


def intent(key: str, **values: Any) -> JournalRow:
    """Return the row of a file that is about to be sent."""
    return JournalRow(**{**_SENT, "key": key, "name": key, **values})
