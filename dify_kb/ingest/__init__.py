"""Files in, a report out."""

from __future__ import annotations

from .events import LoadEvent, OnLoadEvent, Progress
from .load import Options, Wait, load
from .plan import OnExisting
from .report import ItemResult, LoadReport, Outcome, StopReason, Tally
from .scan import Rules, Source, roots_of

__all__ = [
    "ItemResult",
    "LoadEvent",
    "LoadReport",
    "OnExisting",
    "OnLoadEvent",
    "Options",
    "Outcome",
    "Progress",
    "Rules",
    "Source",
    "StopReason",
    "Tally",
    "Wait",
    "load",
    "roots_of",
]
