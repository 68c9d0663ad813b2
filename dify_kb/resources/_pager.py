"""Iterate over a paginated list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from attrs import frozen

from dify_kb.models import Page

T = TypeVar("T")

PAGE_SIZE = 100
"""Rows per request. The server truncates larger pages to 100 rows and then reports no further page
(recording 1063)."""


def _accept_all(_: object) -> bool:
    return True


@frozen
class Pager(Generic[T]):
    """An iterator over all rows of a list: `async for row in pager`.

    Costs one request per 100 rows. Each row is returned once: rows that move to a later page
    because others are added are skipped by their id. Ends after `total` rows.
    """

    _fetch_page: Callable[[int], Coroutine[Any, Any, Page[T]]]
    _row_key: Callable[[T], object]
    _is_wanted: Callable[[T], bool] = _accept_all

    async def pages(self) -> AsyncIterator[Sequence[T]]:
        """Yield each page as a list of its new rows."""
        seen: set[object] = set()
        number, total = 1, 1
        while (number - 1) * PAGE_SIZE < total:
            page = await self._fetch_page(number)
            if not page.data:
                return
            new_rows = [row for row in page.data if self._row_key(row) not in seen]
            seen.update(self._row_key(row) for row in new_rows)
            wanted_rows = [row for row in new_rows if self._is_wanted(row)]
            if wanted_rows:
                yield wanted_rows
            number, total = number + 1, page.total

    if not TYPE_CHECKING:  # type checkers report the missing method

        def __iter__(self) -> NoReturn:
            raise TypeError("Iterate with 'async for', or use Client instead of AsyncClient.")

    async def __aiter__(self) -> AsyncIterator[T]:
        async for rows in self.pages():
            for row in rows:
                yield row
