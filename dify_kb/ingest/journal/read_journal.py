"""Read journals for display and export, even while a load writes to them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from . import journal_database
from .journal_rows import JournalRow, JournalState, from_sqlite, parse_row
from .lock import journal_files, read_owner

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

_PAGE_SIZE: Final = 500
"""Rows per query: longer queries would prevent checkpoints of the write-ahead log."""

_MAX_RUNS: Final = 10
"""Maximum number of runs in an overview, the latest."""

_SELECT_ROWS: Final = (
    "SELECT * FROM item WHERE key > ? AND (? IS NULL OR state = ?) ORDER BY key LIMIT ?"
)

_UNFINISHED: Final = (
    JournalState.WAITING,
    JournalState.SENDING,
    JournalState.ACCEPTED,
    JournalState.EMPTIED,
)


@frozen(kw_only=True)
class PastRun:
    """A run of a load. Times are in seconds since the epoch.

    `report` contains the values of `LoadReport.to_dict`. `ended` and `report` are None for a run
    that is active or was killed.
    """

    number: int
    started: float
    ended: float | None
    report: Mapping[str, object] | None


@frozen(kw_only=True)
class JournalOverview:
    """The summary of a journal. `source` is None for items, `writer` the process that holds it.

    `dataset` is the id of the dataset, `dataset_name` its name at the last run, None in journals of
    earlier versions. `size` is in bytes.
    """

    path: Path
    size: int
    server: str
    dataset: str
    dataset_name: str | None
    source: str | None
    states: Mapping[JournalState, int]
    runs: Sequence[PastRun]
    writer: int | None

    @property
    def roots(self) -> Sequence[str]:
        """The paths and addresses of the source."""
        return self.source.splitlines() if self.source else ()

    @property
    def used(self) -> float:
        """The time of the last run, in seconds since the epoch."""
        if self.last is None:
            return self.path.stat().st_mtime
        return self.last.ended or self.last.started

    @property
    def is_finished(self) -> bool:
        """Whether the last run ended, and the outcome of every file is known."""
        report = self.last.report if self.last is not None else None
        return (
            report is not None
            and not any(self.states[state] for state in _UNFINISHED)
            and not any(report.get(name) for name in ("unknown", "pending"))
        )

    @property
    def last(self) -> PastRun | None:
        """The latest run."""
        return self.runs[0] if self.runs else None


def list_journals(folder: Path) -> list[Path]:
    """Return the journals in a folder, the latest first."""
    try:
        found = [path for path in folder.iterdir() if path.suffix == ".db"]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []


def read_overview(path: Path) -> JournalOverview:
    """Return a summary of a journal.

    Raises:
        JournalError: the file does not exist, is not a journal, of another version or damaged.
    """
    with journal_database.open_readonly(path) as connection:
        meta = dict(connection.execute("SELECT name, value FROM meta").fetchall())
        counted = connection.execute("SELECT state, count(*) FROM item GROUP BY state").fetchall()
        runs = connection.execute(
            "SELECT id, started, ended, report FROM run ORDER BY id DESC LIMIT ?", (_MAX_RUNS,)
        ).fetchall()
        counts = {JournalState(state): count for state, count in counted}
        return JournalOverview(
            path=path,
            size=sum(file.stat().st_size for file in journal_files(path) if file.is_file()),
            server=from_sqlite(meta.get("server", "")),
            dataset=from_sqlite(meta.get("dataset", "")),
            dataset_name=from_sqlite(meta.get("dataset_name")),
            source=from_sqlite(meta.get("source")),
            states={state: counts.get(state, 0) for state in JournalState},
            runs=[_parse_run(row) for row in runs],
            writer=_find_writer(path),
        )


def iter_rows(path: Path, *, state: JournalState | None = None) -> Iterator[JournalRow]:
    """Yield the row of each file, in the order of keys.

    Raises:
        JournalError: the file does not exist, is not a journal, of another version or damaged.
    """
    with journal_database.open_readonly(path) as connection:
        after: Any = ""
        while rows := connection.execute(
            _SELECT_ROWS, (after, state, state, _PAGE_SIZE)
        ).fetchall():
            yield from map(parse_row, rows)
            after = rows[-1]["key"]


def _parse_run(row: sqlite3.Row) -> PastRun:
    report = json.loads(row["report"]) if row["report"] else None
    return PastRun(number=row["id"], started=row["started"], ended=row["ended"], report=report)


def _find_writer(path: Path) -> int | None:
    """Return the id of the process that holds the journal, if it runs on this machine.

    Does not try to lock the journal: a load that starts at that moment would fail.
    """
    owner = read_owner(path)
    if owner is None:
        return None
    process, host = owner
    return process if host == socket.gethostname() and _is_alive(process) else None


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # signal 0 would send Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except PermissionError:  # the process of another user
        return True
    except OSError:
        return False
    return True
