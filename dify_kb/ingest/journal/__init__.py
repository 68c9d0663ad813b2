"""The journal of a load: an SQLite database that records the state of each file."""

from __future__ import annotations

from .group_commit import JournalBusyError
from .journal import Journal, NameTakenError
from .journal_queries import iter_failed_results
from .journal_rows import JournalRow, JournalState
from .open import open_journal

__all__ = [
    "Journal",
    "JournalBusyError",
    "JournalRow",
    "JournalState",
    "NameTakenError",
    "iter_failed_results",
    "open_journal",
]
