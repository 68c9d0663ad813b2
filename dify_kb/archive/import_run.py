"""One run of an import into a dataset."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
import anyio.to_thread
from attrs import define, field

from dify_kb.errors import ConfigError, ForbiddenError, NotFoundError
from dify_kb.models import Dataset, DocForm, IndexingTechnique
from dify_kb.wire.version_bugs import is_older

from .archive_session import ArchiveSession, delete_document, run_workers
from .archived_document import compute_digest
from .import_report import MAX_FAILURES, ImportOptions, ImportReport
from .import_state import ImportState
from .read_archive import ArchiveReader, stream_documents
from .read_dataset import DatasetReader
from .restore_chunks import RestoreError
from .restore_document import TEMPORARY_NAME, DocumentRestorer
from .restore_plan import MAX_NAME, find_shared_names, read_rule
from .restore_settings import (
    AttributeRestorer,
    restore_fields,
    restore_rule,
    restore_settings,
    restore_tags,
)

if TYPE_CHECKING:
    from pathlib import Path

    from dify_kb.models import MetadataField, ProcessRule

    from .archived_document import ArchivedDocument

WORKERS: Final = 8
"""Documents that are created at a time; how many creates are in flight is tuned like a load."""

MAX_NAMED: Final = 5
"""Documents that an error names."""

BATCH_SIZE: Final = 50
"""Documents per request for metadata."""


def estimate_requests(documents: int, chunks: int) -> int:
    """Return about how many requests an import sends.

    For each document a create, two polls, and its chunks, 50 a request; metadata, 50 documents a
    request; and the settings of the dataset.
    """
    return 10 + documents * 5 + chunks // 50 + documents // BATCH_SIZE


@define
class ImportRun:
    """One run of an import into a dataset."""

    session: ArchiveSession
    dataset: Dataset
    archive: ArchiveReader
    state: ImportState
    options: ImportOptions
    _counts: Counter[str] = field(factory=Counter, init=False)
    _failures: dict[str, str] = field(factory=dict, init=False)
    _warnings: list[str] = field(factory=list, init=False)
    _existing: set[str] = field(factory=set, init=False)
    """Documents of others."""

    _foreign: set[str] = field(factory=set, init=False)
    """Documents that must not be deleted: those of others, and finished ones."""

    _rows: dict[str, tuple[str, bool, bool]] = field(factory=dict, init=False)
    """Name, enabled and archived of the documents in the dataset at the start, by id."""

    _ids_by_name: dict[str, list[str]] = field(factory=dict, init=False)
    _rule: Mapping[str, Any] | None = field(default=None, init=False)
    _created: bool = field(default=False, init=False)
    _rule_changed: bool = field(default=False, init=False)

    async def execute(self) -> ImportReport:
        """Run until all documents are there, or the server stops responding."""
        stop = await self.session.run(self._import)
        documents = self.archive.manifest.documents
        counts = self._counts
        if self.options.ids is not None and not self.options.dry_run:
            await self._write_ids(self.options.ids)
        return ImportReport(
            path="",
            dataset_id=self.dataset.id,
            dataset_name=self.dataset.name,
            documents=documents,
            added=counts["added"],
            updated=counts["updated"],
            unchanged=counts["unchanged"],
            skipped=counts["skipped"],
            failed=counts["failed"],
            pending=max(0, documents - counts.total()),
            methods=await self.state.call(self.state.count_methods),
            losses=await self.state.call(self.state.count_losses),
            failures=self._failures,
            warnings=self._warnings,
            dry_run=self.options.dry_run,
            stopped=stop.reason if stop else None,
            stop_message=stop.message if stop else None,
        )

    async def _import(self) -> None:
        names = Counter[str]()
        async for document in stream_documents(self.archive):
            names[document.name] += 1
        await self._list_target(names)
        manifest = self.archive.manifest
        planned = estimate_requests(manifest.documents, manifest.chunks)
        self.session.planned_requests = self.session.requests + planned
        self.session.show("restore", 0, manifest.documents)
        if self.options.dry_run:
            return
        await self._prepare_dataset()
        fields = await self._restore_fields()
        restorer = DocumentRestorer(
            session=self.session,
            dataset=self.dataset,
            archive=self.archive,
            random=self.options.random,
            duplicates=find_shared_names(names),
            foreign_ids=lambda: self._foreign,
            keeps_keywords=self._keeps_keywords(),
            recut_rule=self._recut_rule() if self.options.recut else None,
        )

        async def restore(document: ArchivedDocument) -> None:
            await self._restore(restorer, document)

        await run_workers(stream_documents(self.archive), restore, WORKERS)
        attributes = AttributeRestorer(session=self.session, dataset=self.dataset, fields=fields)
        await self._restore_attributes(attributes)
        await self._restore_base_rule()

    def _keeps_keywords(self) -> bool:
        """Return whether keywords are restored.

        Servers before 1.8 extract them in high-quality datasets, too, where later ones ignore them.
        """
        if self.dataset.indexing_technique != IndexingTechnique.HIGH_QUALITY:
            return True
        version = self.archive.manifest.server_version
        return not (version and is_older(version, "1.8"))

    def _recut_rule(self) -> ProcessRule:
        rule = self._rule or self.archive.manifest.dataset.rule
        return read_rule(rule, self.archive.manifest.dataset.form or DocForm.TEXT)

    async def _list_target(self, names: Mapping[str, int]) -> None:
        """List the documents of the dataset; delete what a killed run left.

        Raises:
            ConfigError: the dataset has documents of the archive.
        """
        reader = DatasetReader(self.session, self.dataset)
        newest: str | None = None
        cut_names = {name[:MAX_NAME] for name in names if len(name) > MAX_NAME}
        async for rows, _ in reader.iter_row_pages():
            newest = newest or next((row.id for row in rows), None)
            self._rows |= {
                row.id: (row.name, row.enabled, row.is_archived)
                for row in rows
                if row.name in names
                or row.name[:MAX_NAME] in cut_names
                or row.name.startswith(TEMPORARY_NAME)
            }
        is_first = await self.state.call(self.state.get_meta, "dataset") is None
        if is_first:
            await self._claim(names)
            rule = self.archive.manifest.dataset.rule
            if newest is not None:
                await reader.fetch_detail(newest)
                rule = reader.rule
            if rule is not None and not self.options.dry_run:
                await self.state.call(self.state.set_meta, "rule", json.dumps(rule))
        if not self.options.dry_run:
            await self._sort_documents()

    async def _sort_documents(self) -> None:
        """Distinguish documents of others from those of this import; delete unfinished ones."""
        self._existing = await self.state.call(self.state.list_existing)
        known = await self.state.call(self.state.list_documents)
        finished = {row.target_id for row in known.values() if row.target_id}
        started = {row.name[:MAX_NAME] for row in known.values() if row.target_id is None}
        for id_, (name, _, _) in list(self._rows.items()):
            if id_ in self._existing or id_ in finished:
                continue
            if name[:MAX_NAME] in started or name.startswith(TEMPORARY_NAME):
                await delete_document(self.session, self.dataset, id_)
                del self._rows[id_]
            else:  # created by others since the last run
                self._existing.add(id_)
                await self.state.call(self.state.add_existing, [id_])
        self._foreign = self._existing | finished
        for id_, (name, _, _) in self._rows.items():
            self._ids_by_name.setdefault(name, []).append(id_)

    async def _claim(self, names: Mapping[str, int]) -> None:
        """Record which documents the dataset has before the first run."""
        taken = sorted({name for name, _, _ in self._rows.values() if name in names})
        if taken and self.options.on_existing == "fail":
            shown = ", ".join(map(repr, taken[:MAX_NAMED]))
            more = f" and {len(taken) - MAX_NAMED} more" if len(taken) > MAX_NAMED else ""
            raise ConfigError(
                f"Dataset {self.dataset.name!r} has documents of the archive: {shown}{more}.",
                hint="Pass on_existing='skip' or 'replace' (--on-existing), or another name.",
            )
        if not self.options.dry_run:
            await self.state.call(self.state.add_existing, list(self._rows))

    async def _prepare_dataset(self) -> None:
        """Record the dataset, and give a new one its settings."""
        call, state = self.state.call, self.state
        self._created = await call(state.get_meta, "created") is not None
        await call(state.set_meta, "dataset", self.dataset.id)
        rule = await call(state.get_meta, "rule")
        self._rule = json.loads(rule) if rule else None
        archived = self.archive.manifest.dataset
        losses = await restore_tags(self.session.tags, self.dataset, archived.tags)
        if self._created and await call(state.get_meta, "created") == "started":
            losses += await restore_settings(self.session, self.dataset, archived)
            await call(state.set_meta, "created", "finished")
        await call(state.add_losses, "", losses)

    async def _restore_fields(self) -> Mapping[str, MetadataField]:
        archived = self.archive.manifest.dataset.fields
        if not archived:
            return {}
        fields, losses = await restore_fields(self.session, self.dataset, archived)
        await self.state.call(self.state.add_losses, "", losses)
        return fields

    async def _restore(self, restorer: DocumentRestorer, document: ArchivedDocument) -> None:
        self._counts[await self._restore_or_fail(restorer, document)] += 1
        self.session.show("restore", self._counts.total(), self.archive.manifest.documents)

    async def _restore_or_fail(self, restorer: DocumentRestorer, document: ArchivedDocument) -> str:
        known = await self.state.call(self.state.find, document.id)
        digest = document.content_digest if not self.options.recut else f"recut {document.id}"
        replaced: list[str] = []
        if known is not None and known.target_id in self._rows:
            if known.content == digest:
                return "unchanged"
            replaced = [known.target_id or ""]
        others = self._list_others(document.name)
        if others and self.options.on_existing == "skip":
            return "skipped"
        if others and self.options.on_existing == "fail":
            return self._record_failure(document, "The dataset has another document of this name.")
        replaced += others
        try:
            for id_ in replaced:
                await self._remove(id_)
            if not self._rule_changed:
                # A create changes the rule that later uploads inherit.
                self._rule_changed = True
                await self.state.call(self.state.set_meta, "rule_changed", "yes")
            await self.state.call(self.state.start, document.id, document.name)
            restored = await restorer.restore(document)
        except RestoreError as error:
            return self._record_failure(document, error.summary)
        self._foreign.add(restored.id)
        await self.state.call(
            self.state.finish,
            document.id,
            digest,
            restored.id,
            restored.method,
            restored.losses,
        )
        return "updated" if replaced else "added"

    def _record_failure(self, document: ArchivedDocument, reason: str) -> str:
        if len(self._failures) < MAX_FAILURES:
            self._failures[document.name] = reason
        return "failed"

    def _list_others(self, name: str) -> list[str]:
        """Return documents of others that a create with this name would replace."""
        names = {name, name[:MAX_NAME]}
        same = [id_ for each in names for id_ in self._ids_by_name.get(each, ())]
        return [id_ for id_ in same if id_ in self._existing and id_ in self._rows]

    async def _remove(self, document_id: str) -> None:
        """Delete a document that is replaced.

        Raises:
            RestoreError: it is archived, and the server cannot unarchive it.
        """
        _, _, archived = self._rows[document_id]
        documents = self.session.documents
        try:
            if archived:
                await self.session.read(lambda: documents.unarchive(self.dataset, [document_id]))
            await delete_document(self.session, self.dataset, document_id)
        except (ForbiddenError, NotFoundError) as error:
            raise RestoreError(
                f"The archived document cannot be replaced: {error.summary}"
            ) from error
        del self._rows[document_id]

    async def _restore_attributes(self, attributes: AttributeRestorer) -> None:
        """Set metadata and states of the documents that do not have them yet."""
        pending: list[tuple[ArchivedDocument, str]] = []
        states: dict[str, list[str]] = {
            "enable": [], "unarchive": [], "disable": [], "archive": [],
        }  # fmt: skip
        digests: dict[str, str] = {}
        async for document in stream_documents(self.archive):
            known = await self.state.call(self.state.find, document.id)
            if known is None or known.target_id is None or known.content is None:
                continue
            digest = _attributes_digest(document)
            if known.attributes == digest:
                continue
            digests[document.id] = digest
            pending.append((document, known.target_id))
            _add_states(states, document, known.target_id, self._rows.get(known.target_id))
            if len(pending) == BATCH_SIZE:
                await self._set_metadata(attributes, pending)
                pending = []
                self.session.show("metadata", len(digests), None)
        await self._set_metadata(attributes, pending)
        sources = {id_: source for source, id_ in await self.state.call(self.state.list_ids)}
        done = 0
        for action, ids in states.items():
            refused = await attributes.set_states(action, ids)
            for id_ in refused:
                await self.state.call(
                    self.state.add_losses, sources[id_], ["disabled or archived state"]
                )
            done += len(ids)
            self.session.show("states", done, sum(map(len, states.values())))
        await self.state.call(self.state.finish_attributes, digests)

    async def _set_metadata(
        self, attributes: AttributeRestorer, pending: Sequence[tuple[ArchivedDocument, str]]
    ) -> None:
        values = {
            target: document.metadata
            for document, target in pending
            if document.metadata or target in self._rows
        }
        if not values:
            return
        losses = await attributes.set_metadata(values)
        for document, target in pending:
            if target in losses:
                await self.state.call(self.state.add_losses, document.id, [losses[target]])

    async def _restore_base_rule(self) -> None:
        """Restore the rule that later uploads inherit: that of before, or of the archive."""
        archived = self.archive.manifest.dataset
        rule = archived.rule if self._created else self._rule
        if await self.state.call(self.state.get_meta, "rule_changed") != "yes":
            return
        if rule is None:
            self._warnings.append(
                "The chunking rule of the dataset is unknown: pass a rule with the next upload."
            )
            return
        await restore_rule(self.session, self.dataset, rule, archived.form)
        await self.state.call(self.state.set_meta, "rule_changed", "no")

    async def _write_ids(self, path: Path) -> None:
        ids = dict(await self.state.call(self.state.list_ids))
        text = json.dumps({"dataset": self.dataset.id, "documents": ids}, indent=1)
        await anyio.Path(path).write_text(text + "\n", encoding="utf-8")


def _attributes_digest(document: ArchivedDocument) -> str:
    return compute_digest([dict(document.metadata), document.enabled, document.archived])


def _add_states(
    states: Mapping[str, list[str]],
    document: ArchivedDocument,
    target_id: str,
    row: tuple[str, bool, bool] | None,
) -> None:
    """Add a document to the lists of those that change their state."""
    _, enabled, archived = row or ("", True, False)
    if document.enabled != enabled:
        states["enable" if document.enabled else "disable"].append(target_id)
    if document.archived != archived:
        states["archive" if document.archived else "unarchive"].append(target_id)
