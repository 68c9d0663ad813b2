"""Export, import, copy, compare and verify knowledge bases.

An archive is a folder, or that folder in a zip: a manifest with checksums, shards with the
documents, and the original files by their hash.
"""

from __future__ import annotations

from .archive_session import ArchiveProgress, OnArchiveEvent
from .compare import CompareReport, DatasetDifference, compare_archives
from .copy_dataset import CopyReport, comparison_folder, copy_folder
from .export import ExportOptions, ExportReport, export_dataset
from .import_archive import import_archive
from .import_report import ImportOptions, ImportReport, OnExistingDocument
from .verify_archive import VerifyReport, verify_archive

__all__ = [
    "ArchiveProgress",
    "CompareReport",
    "CopyReport",
    "DatasetDifference",
    "ExportOptions",
    "ExportReport",
    "ImportOptions",
    "ImportReport",
    "OnArchiveEvent",
    "OnExistingDocument",
    "VerifyReport",
    "compare_archives",
    "comparison_folder",
    "copy_folder",
    "export_dataset",
    "import_archive",
    "verify_archive",
]
