"""Files in, a report out."""

from __future__ import annotations

from .events import LoadEvent, OnLoadEvent, Progress
from .items import Item, Named, Source
from .load import load, state_folder
from .options import OnError, Options, Server, Wait
from .plan import OnExisting
from .produce import Metadata as LoadMetadata
from .report import ItemResult, LoadReport, Outcome, StopReason, Tally
from .scan import Rules, roots_of
from .source import given
from .stream import Backwater, Results

__all__ = [
    "Backwater",
    "Item",
    "ItemResult",
    "LoadEvent",
    "LoadMetadata",
    "LoadReport",
    "Named",
    "OnError",
    "OnExisting",
    "OnLoadEvent",
    "Options",
    "Outcome",
    "Progress",
    "Results",
    "Rules",
    "Server",
    "Source",
    "StopReason",
    "Tally",
    "Wait",
    "given",
    "load",
    "roots_of",
    "state_folder",
]
