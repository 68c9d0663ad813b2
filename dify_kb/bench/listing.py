"""What a page of the list costs while a base grows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attrs import define, field

from dify_kb.client import AsyncClient
from dify_kb.models import Dataset

from .numbers import Spread
from .report import Listed

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = 100
REPEATS = 5
GROWTH = 2
"""A base is looked at again once it has so many times the documents."""


@define
class Listing:
    """Looks at the list of a base, now and then."""

    client: AsyncClient
    dataset: Dataset
    _found: list[Listed] = field(factory=list, init=False)
    _next: int = field(default=PAGE, init=False)

    async def look(self, documents: int) -> None:
        """Measure, if the base has grown enough since the last time. Ten requests then."""
        if documents < self._next:
            return
        self._next = GROWTH * documents
        last = max(1, -(-documents // PAGE))
        self._found.append(
            Listed(
                documents=documents,
                first=await self._page(1),
                last=await self._page(last),
            )
        )

    def result(self) -> Sequence[Listed]:
        """Give what was measured."""
        return list(self._found)

    async def _page(self, number: int) -> Spread:
        times: list[float] = []
        for _ in range(REPEATS):
            began = time.perf_counter()
            await self.client.documents.list(self.dataset, page=number, limit=PAGE)
            times.append(time.perf_counter() - began)
        return Spread.of(times)
