"""Load files into a dataset and report the outcome of each."""

from __future__ import annotations

from .load import load, state_folder
from .load_options import LoadOptions, OnError, Replace, Wait
from .metadata.collect_metadata import LoadMetadata, MetadataSource
from .metadata.front_matter import FrontMatter
from .metadata.key_metadata import Auto, FileTimes, PathPattern
from .metadata.metadata_files import Sidecar, Table
from .planning.file_plan import OnExisting
from .progress import LoadEvent, OnLoadEvent, Progress
from .report import ItemResult, LoadReport, Outcome, StopReason
from .result_iterator import Results, iter_results
from .sources.file_source import FileSource, OpenedEntry, SourceEntry, open_file_sources
from .sources.items import Item, NamedSource, Source
from .sources.scan import ScanRules
from .sources.scan_roots import resolve_roots
from .sources.source_reader import SourceReader, create_source_reader
from .spread import load_spread

__all__ = [
    "Auto",
    "FileSource",
    "FileTimes",
    "FrontMatter",
    "Item",
    "ItemResult",
    "LoadEvent",
    "LoadMetadata",
    "LoadOptions",
    "LoadReport",
    "MetadataSource",
    "NamedSource",
    "OnError",
    "OnExisting",
    "OnLoadEvent",
    "OpenedEntry",
    "Outcome",
    "PathPattern",
    "Progress",
    "Replace",
    "Results",
    "ScanRules",
    "Sidecar",
    "Source",
    "SourceEntry",
    "SourceReader",
    "StopReason",
    "Table",
    "Wait",
    "create_source_reader",
    "iter_results",
    "load",
    "load_spread",
    "open_file_sources",
    "resolve_roots",
    "state_folder",
]
