"""Wait until documents are indexed, by their rows in the list."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from dify_kb.errors import RequestTimeoutError
from dify_kb.transport.clock import loop_time

from ._read_documents import get_document, iter_documents

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dify_kb.config import Watch
    from dify_kb.models import Dataset, Document
    from dify_kb.wire.endpoint import Send


async def wait_until_indexed(
    send: Send,
    dataset: Dataset | str,
    ids: Sequence[str],
    timeout: float | None,  # noqa: ASYNC109 -- seconds of the caller's patience
    stall_after: float,
    times: Watch,
) -> Sequence[Document]:
    """Poll the list until each document is completed or failed, or none changes any more."""
    rows: dict[str, Document] = {}
    moved, interval = loop_time(), times.first
    with anyio.move_on_after(timeout):
        while True:
            now = loop_time()
            for row in await _find_rows(send, dataset, set(ids)):
                before = rows.get(row.id)
                if before is None or before.indexing_status != row.indexing_status:
                    moved, interval = now, times.first
                rows[row.id] = row
            unseen = set(ids) - rows.keys()
            for missing in unseen:
                # Raises if it does not exist; else its row moved to another page meanwhile.
                await get_document(send, dataset, missing)
            final = all(row.indexing_status.final for row in rows.values())
            if not unseen and (final or now - moved > stall_after):
                return [rows[id_] for id_ in ids]
            await anyio.sleep(interval)
            interval = min(interval * times.growth, times.longest)
    waiting = sum(not (id_ in rows and rows[id_].indexing_status.final) for id_ in ids)
    raise RequestTimeoutError(
        f"documents.wait: {waiting} of {len(ids)} documents were not indexed within {timeout:g} s.",
        endpoint="documents.wait",
        hint="They go on being indexed; wait for them again.",
    )


async def _find_rows(send: Send, dataset: Dataset | str, wanted: set[str]) -> Sequence[Document]:
    found: list[Document] = []
    if not wanted:
        return found
    async for rows in iter_documents(send, dataset).pages():
        found += [row for row in rows if row.id in wanted]
        wanted -= {row.id for row in rows}
        if not wanted:
            break
    return found
