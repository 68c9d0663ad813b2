"""Requests that overlap: two of them that create one name, or change one document's metadata."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from dify_kb.models import AssignMetadata, CreateDataset, CreateMetadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .request_context import RequestContext


@define(eq=False)
class RequestRaces:
    """The requests in flight that versions without a lock do not see, by their object.

    A request stays in flight for `Settings.race_window`. What it notes tells the handler which
    requests overlapped with it.
    """

    _in_flight: Counter[tuple[str, ...]] = field(factory=Counter)

    @contextlib.asynccontextmanager
    async def enter(self, context: RequestContext, body: object) -> AsyncIterator[None]:
        """Keep a request in flight while its handler runs."""
        keys = self._find_keys(context, body)
        if not keys:
            yield
            return
        self._in_flight.update(keys)
        try:
            await anyio.sleep(context.settings.race_window)
            yield
        finally:
            self._in_flight.subtract(keys)

    def _find_keys(self, context: RequestContext, body: object) -> set[tuple[str, ...]]:
        """Return what a request competes for, and note the requests that are ahead of it."""
        quirks, notes = context.profile.quirks, context.notes
        key: tuple[str, ...]
        match body:
            case CreateDataset():
                key, limit = ("dataset", body.name), quirks.dataset_name_racers
                is_free = not context.store.datasets.ids_by_name(body.name)
            case CreateMetadata():
                dataset_id = context.dataset.id
                key, limit = ("field", dataset_id, body.name), quirks.field_name_racers
                rows = context.store.metadata.list_by_dataset(dataset_id)
                is_free = all(row.name != body.name for row in rows)
            case AssignMetadata() if quirks.locks_metadata:
                ids = {operation.document_id for operation in body.operation_data}
                notes.locked_ids = {id_ for id_ in ids if self._in_flight["values", id_]}
                return {("values", id_) for id_ in ids}
            case _:
                return set()
        if limit == 1:
            return set()
        notes.overlooks_name = is_free and 0 < self._in_flight[key] < limit
        return {key}
