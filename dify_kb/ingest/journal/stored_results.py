"""Store and read the results of the files of a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs

from dify_kb.ingest.report import ItemResult, Outcome

from . import schema

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from .database import JournalDatabase

_RUNS: Final = 5
"""Number of latest runs whose failures are kept."""

_SELECT: Final = (
    "SELECT number, result FROM result WHERE run = ? AND held = ? AND number > ?"
    " ORDER BY number LIMIT 200"
)


class StoredResults:
    """Stored results of a run: failed files, and files to be verified."""

    def __init__(self, database: JournalDatabase) -> None:
        self.run = 0
        """The number of the run; 0 before `begin`."""
        self._database = database

    def begin(self, run: int) -> None:
        """Start a run, and delete the results of old runs."""
        self.run = run
        self._database.add("DELETE FROM result WHERE held OR run <= ?", run - _RUNS)

    def store(self, result: ItemResult, *, held: bool = False) -> None:
        """Store the result of a failed file or, with `held`, of a file to be verified."""
        sql = "INSERT INTO result (run, held, result) VALUES (?, ?, ?)"
        self._database.add(sql, self.run, held, json.dumps(attrs.asdict(result)))

    def held(self) -> Iterator[Sequence[ItemResult]]:
        """Yield the results to be verified, in batches."""
        return _select_results(self._database.select, self.run, held=True)

    def failures(self) -> Iterator[ItemResult]:
        """Yield the results of the failed files."""
        for results in _select_results(self._database.select, self.run):
            yield from results


def failures(path: Path, run: int) -> Iterator[ItemResult]:
    """Yield the results of the failed files of a run, from its journal.

    Raises:
        JournalError: the file does not exist, is not a journal, of another version or damaged.
    """
    with schema.open_readonly(path) as connection:
        for results in _select_results(connection.execute, run):
            yield from results


def _select_results(
    select: Callable[[str, Sequence[Any]], Iterable[sqlite3.Row]], run: int, *, held: bool = False
) -> Iterator[Sequence[ItemResult]]:
    after = 0
    while rows := list(select(_SELECT, (run, held, after))):
        values = [json.loads(row["result"]) for row in rows]
        yield [ItemResult(**{**one, "outcome": Outcome(one["outcome"])}) for one in values]
        after = rows[-1]["number"]
