"""Files in, a report out."""

from __future__ import annotations

from .events import LoadEvent, OnLoadEvent, Progress
from .load import load, state_folder
from .options import OnError, Options, Replace, Wait
from .planning.metadata import Metadata as LoadMetadata
from .planning.plan import OnExisting
from .report import ItemResult, LoadReport, Outcome, StopReason
from .results import ResultBuffer, Results
from .sources.items import Item, NamedSource, Source
from .sources.reader import SourceReader, source_reader
from .sources.scan import Rules, roots_of

__all__ = [
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
    "Replace",
    "ResultBuffer",
    "Results",
    "Rules",
    "Source",
    "SourceReader",
    "StopReason",
    "Wait",
    "load",
    "roots_of",
    "source_reader",
    "state_folder",
]
