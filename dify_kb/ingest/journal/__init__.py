"""The journal of a load: an SQLite database of the files sent, accepted and indexed."""

from __future__ import annotations

from . import schema
from .batch import LateError
from .journal import Journal, NameTakenError
from .opening import open_journal
from .rows import Row, State
from .stored_results import failures

__all__ = [
    "Journal",
    "LateError",
    "NameTakenError",
    "Row",
    "State",
    "failures",
    "open_journal",
    "schema",
]
