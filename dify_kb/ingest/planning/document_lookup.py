"""Find documents by name, with keyword queries or by listing the dataset."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from attrs import frozen

from dify_kb.resources import Documents

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dify_kb.models import Document

MAX_NAME_QUERIES = 10
"""Maximum number of documents queried one by one: a page of 100 documents costs the server as much
as about 11 keyword queries or status calls (measured)."""


@frozen
class DocumentLookup:
    """Lookup of the documents of one dataset by exact name."""

    _documents: Documents
    _dataset_id: str
    _ignored: Collection[str] = ()
    """Ids of documents that are not looked for, although they have the same name."""

    async def find(self, name: str) -> Document | None:
        """Return the document that a create with this name would replace, else a disabled one.

        Costs one request, unless more than 100 names contain this one.
        """
        found: Document | None = None
        for row in await self.find_all(name):
            found = _prefer_enabled(found, row)
        return found

    async def find_all(self, name: str) -> list[Document]:
        """Return all documents with this name, newest first. Costs the same as `find`."""
        pattern = name.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
        rows = self._documents.iter(self._dataset_id, keyword=pattern)
        return [row async for row in rows if row.name == name and row.id not in self._ignored]

    async def find_newest(self, names: Collection[str], depth: int) -> Mapping[str, Document]:
        """Return the documents with these names among the newest `depth`, reading page by page."""
        found: dict[str, Document] = {}
        seen = 0
        async for rows in self._documents.iter(self._dataset_id).pages():
            for row in rows:
                if row.name in names and row.id not in self._ignored:
                    found[row.name] = _prefer_enabled(found.get(row.name), row)
            seen += len(rows)
            if seen >= depth or len(found) == len(names):
                break
        return found


def _prefer_enabled(one: Document | None, other: Document) -> Document:
    """Return the enabled one of two documents with the same name, by default the newer `one`."""
    return other if one is None or (other.enabled and not one.enabled) else one
