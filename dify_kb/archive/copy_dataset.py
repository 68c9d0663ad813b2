"""Copy a dataset to another server, and compare datasets, by way of archives."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.ingest import state_folder

from .export import ExportReport
from .import_report import ImportReport

if TYPE_CHECKING:
    from collections.abc import Iterator


@frozen(kw_only=True)
class CopyReport:
    """The result of a copy: the reports of its export and its import.

    `imported` is None if the export stopped early. Truthy if every document was copied.
    """

    exported: ExportReport
    imported: ImportReport | None = None

    def __bool__(self) -> bool:
        return bool(self.exported) and bool(self.imported)

    @property
    def exit_code(self) -> int:
        """The exit code of the command line."""
        return self.imported.exit_code if self.imported else self.exported.exit_code

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the report as JSON values."""
        return {
            "exported": self.exported.to_dict(),
            "imported": self.imported.to_dict() if self.imported else None,
            "exit_code": self.exit_code,
        }


@contextmanager
def copy_folder(identity: str | None, dataset_id: str) -> Iterator[Path]:
    """Provide the folder of a copy: kept, so that the next copy reads and sends only changes.

    A temporary folder for an embedded server in memory, which `identity` None stands for.
    """
    if identity is None:
        with comparison_folder() as temporary:
            yield temporary / "copy"
        return
    digest = hashlib.sha256(f"{identity}\0{dataset_id}".encode()).hexdigest()
    folder = state_folder() / "copies" / digest[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    yield folder


@contextmanager
def comparison_folder() -> Iterator[Path]:
    """Provide a temporary folder for the archives of a comparison."""
    with tempfile.TemporaryDirectory(prefix="dify-kb-") as folder:
        yield Path(folder)
