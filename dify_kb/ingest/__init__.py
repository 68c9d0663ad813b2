"""Load files into a dataset and report the outcome of each."""

from __future__ import annotations

from .load import load, state_folder
from .load_options import LoadOptions, OnError, Replace, Wait
from .planning.file_plan import Metadata as LoadMetadata
from .planning.file_plan import OnExisting
from .progress import LoadEvent, OnLoadEvent, Progress
from .report import ItemResult, LoadReport, Outcome, StopReason
from .result_iterator import Results, iter_results
from .sources.file_source import FileSource, OpenedEntry, SourceEntry, open_file_sources
from .sources.items import Item, NamedSource, Source
from .sources.scan import ScanRules
from .sources.scan_roots import resolve_roots
from .sources.source_reader import SourceReader, create_source_reader

__all__ = [
    "FileSource",
    "Item",
    "ItemResult",
    "LoadEvent",
    "LoadMetadata",
    "LoadOptions",
    "LoadReport",
    "NamedSource",
    "OnError",
    "OnExisting",
    "OnLoadEvent",
    "OpenedEntry",
    "Outcome",
    "Progress",
    "Replace",
    "Results",
    "ScanRules",
    "Source",
    "SourceEntry",
    "SourceReader",
    "StopReason",
    "Wait",
    "create_source_reader",
    "iter_results",
    "load",
    "open_file_sources",
    "resolve_roots",
    "state_folder",
]
