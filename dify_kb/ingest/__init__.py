"""Files in, a report out."""

from __future__ import annotations

from .events import LoadEvent, OnLoadEvent, Progress
from .load import load, state_folder
from .options import OnError, Options, Server, Wait
from .pacing.admission import Admission
from .planning.plan import OnExisting
from .planning.planner import Metadata as LoadMetadata
from .report import ItemResult, LoadReport, Outcome, StopReason, Tally
from .results import ResultBuffer, Results
from .sources.items import Item, NamedSource, Source
from .sources.reader import source_reader
from .sources.scan import Rules, roots_of

__all__ = [
    "Admission",
    "Item",
    "ItemResult",
    "LoadEvent",
    "LoadMetadata",
    "LoadReport",
    "NamedSource",
    "OnError",
    "OnExisting",
    "OnLoadEvent",
    "Options",
    "Outcome",
    "Progress",
    "ResultBuffer",
    "Results",
    "Rules",
    "Server",
    "Source",
    "StopReason",
    "Tally",
    "Wait",
    "load",
    "roots_of",
    "source_reader",
    "state_folder",
]
