"""Sort and limit the rows of list commands: --sort and --limit."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar

import typer
from attrs import frozen

from dify_kb.errors import ConfigError

from . import output

T = TypeVar("T")

LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, help="Maximum number of rows; default: all."),
]
SortOption = Annotated[
    str | None,
    typer.Option(
        "--sort",
        metavar="COLUMN",
        help="Sort by a column; -COLUMN sorts in descending order.",
    ),
]


@frozen
class RowOrder:
    """The order of the rows of a list, and their maximum number."""

    sort: str | None
    limit: int | None

    async def print_rows(
        self,
        kind: str,
        rows: AsyncIterable[T] | Iterable[T],
        columns: Mapping[str, Callable[[T], object]],
        *,
        json: bool,
    ) -> None:
        """Print the rows as a table with these columns, or each as a line of JSON.

        Raises:
            ConfigError: --sort is not one of the columns.
        """
        key = self._find_key(columns)
        await output.print_rows(kind, self._select(rows, key), columns, json=json)

    def arrange(
        self, rows: Iterable[T], columns: Mapping[str, Callable[[T], object]]
    ) -> Iterable[T]:
        """Return the first rows in this order. Sorting reads all rows.

        Raises:
            ConfigError: --sort is not one of the columns.
        """
        key = self._find_key(columns)
        return itertools.islice(rows if key is None else self._sort([*rows], key), self.limit)

    def _sort(self, rows: list[T], key: Callable[[T], Any]) -> list[T]:
        known = [row for row in rows if key(row) is not None]
        known.sort(key=lambda row: _fold_case(key(row)), reverse=str(self.sort).startswith("-"))
        return [*known, *(row for row in rows if key(row) is None)]

    def _find_key(self, columns: Mapping[str, Callable[[T], object]]) -> Callable[[T], Any] | None:
        if self.sort is None:
            return None
        name = self.sort.removeprefix("-")
        if name not in columns:
            raise ConfigError(
                f"Unknown column {name!r} for --sort.", hint=f"Choose one of: {', '.join(columns)}."
            )
        return columns[name]

    async def _select(
        self, rows: AsyncIterable[T] | Iterable[T], key: Callable[[T], Any] | None
    ) -> AsyncIterator[T]:
        """Yield the first rows in this order. Sorting reads all rows; else reading stops early."""
        rows = output.iterate(rows)
        if key is not None:
            rows = output.iterate(self._sort([row async for row in rows], key))
        number = 0
        async for row in rows:
            yield row
            number += 1
            if number == self.limit:
                return


def _fold_case(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value
