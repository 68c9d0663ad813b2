"""The options and the report of an import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Final, Literal

from attrs import asdict, field, frozen

from dify_kb.ingest import StopReason
from dify_kb.models import ModelRef

OnExistingDocument = Literal["fail", "skip", "replace"]

MAX_FAILURES: Final = 100
"""Failed documents that a report lists."""


@frozen(kw_only=True)
class ImportReport:
    """The result of an import. Truthy if every document of the archive is in the dataset.

    `documents` is the number in the archive, and the sum of the six outcomes. `methods` counts how
    documents were created (`file`, `joined` or `appended`), `losses` the documents for which
    something could not be kept, by kind. `failures` maps names to reasons, 100 at most.
    """

    path: str
    dataset_id: str | None = None
    dataset_name: str | None = None
    documents: int = 0
    added: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: int = 0
    failed: int = 0
    pending: int = 0
    methods: Mapping[str, int] = field(factory=dict)
    losses: Mapping[str, int] = field(factory=dict)
    failures: Mapping[str, str] = field(factory=dict)
    warnings: Sequence[str] = ()
    requests: int = 0
    planned_requests: int = 0
    seconds: float = 0.0
    dry_run: bool = False
    stopped: StopReason | None = None
    stop_message: str | None = None
    journal: str | None = None

    def __bool__(self) -> bool:
        return not self.failed and self.stopped is None

    @property
    def exit_code(self) -> int:
        """The exit code of the command line: that of `stopped`, else 3 if documents failed."""
        if self.stopped is not None:
            return self.stopped.exit_code
        return 0 if self else 3

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the report as JSON values."""
        return {**asdict(self), "exit_code": self.exit_code}


@frozen(kw_only=True)
class ImportOptions:
    """The options of an import; `AsyncClient.import_` documents them."""

    on_existing: OnExistingDocument = "fail"
    recut: bool = False
    embedding: ModelRef | None = None
    concurrency: int | tuple[int, int] | None = None
    rate: str | float | None = None
    journal: Path | None = None
    ids: Path | None = None
    dry_run: bool = False
    random: Random = field(factory=Random)
