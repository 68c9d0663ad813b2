"""Keep a dataset true to a source: add, update, rename and delete documents."""

from __future__ import annotations

from .sync_options import DeleteMode, MayDelete, SyncOptions, SyncState
from .sync_report import SyncAction, SyncChange, SyncReport

__all__ = [
    "DeleteMode",
    "MayDelete",
    "SyncAction",
    "SyncChange",
    "SyncOptions",
    "SyncReport",
    "SyncState",
]
