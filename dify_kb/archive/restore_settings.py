"""Create a dataset with its settings, fields and tags; set metadata and states of documents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import anyio
from attrs import define, evolve

from dify_kb.errors import BadRequestError, ConfigError, KnowledgeError, NotFoundError
from dify_kb.models import (
    UNSET,
    Dataset,
    DocForm,
    DocumentMetadata,
    IndexingTechnique,
    MetadataField,
    MetadataScalar,
    MetadataType,
    MetadataValue,
    ModelRef,
    ModelType,
    Permission,
    StoredRetrievalModel,
)
from dify_kb.resources import Workspace
from dify_kb.transport.clock import loop_time
from dify_kb.wire import codec
from dify_kb.wire.version_bugs import is_older

from .archive_session import ArchiveSession, delete_document
from .restore_document import TEMPORARY_NAME
from .restore_plan import read_rule

if TYPE_CHECKING:
    from dify_kb.resources import Datasets, Tags
    from dify_kb.transport import Sender

    from .archived_document import ArchivedDataset

BATCH_SIZE: Final = 50
RULE_DOCUMENT: Final = f"{TEMPORARY_NAME}rule.txt"
"""The name of the document that sets the rule of a dataset and is deleted at once."""

STATUS_LOCK: Final = 660.0
"""Seconds after which a document accepts a second change of its status (measured: 600)."""


async def check_embedding(
    sender: Sender, archived: ArchivedDataset, embedding: ModelRef | None
) -> ModelRef | None:
    """Return the embedding model of a new dataset; None for one without.

    Costs one request.

    Raises:
        ConfigError: the server does not have the model.
    """
    if archived.technique != IndexingTechnique.HIGH_QUALITY:
        return None
    if embedding is None and archived.embedding:
        provider, model = archived.embedding
        embedding = ModelRef(provider=provider, model=model)
    providers = await Workspace(sender).models(ModelType.TEXT_EMBEDDING)
    known = [(row.provider, model.model) for row in providers for model in row.models]
    if embedding is None or (embedding.provider, embedding.model) in known:
        return embedding
    choices = ", ".join(f"{provider}:{model}" for provider, model in known[:5])
    raise ConfigError(
        f"The server does not have the embedding model {embedding.provider}:{embedding.model}.",
        hint=f"Pass embedding= (--embedding) with one of: {choices}."
        if known
        else "Add an embedding model to the workspace.",
    )


async def create_dataset(
    datasets: Datasets, archived: ArchivedDataset, name: str, embedding: ModelRef | None
) -> Dataset:
    """Create the dataset of an archive."""
    permission = Permission(archived.permission) if archived.permission else UNSET
    return await datasets.create(
        name,
        description=archived.description[:400] or UNSET,
        indexing_technique=IndexingTechnique(archived.technique) if archived.technique else UNSET,
        permission=permission if permission != Permission.PARTIAL_MEMBERS else UNSET,
        embedding=embedding or UNSET,
    )


async def restore_settings(
    session: ArchiveSession, dataset: Dataset, archived: ArchivedDataset
) -> list[str]:
    """Set the retrieval settings and built-in fields of a new dataset; return the losses."""
    losses: list[str] = []
    if archived.permission == Permission.PARTIAL_MEMBERS:
        losses.append("members with permission")
    model = _read_retrieval(archived.retrieval)
    if model is not None:
        try:
            await session.read(lambda: session.datasets.update(dataset, retrieval_model=model))
        except (BadRequestError, ConfigError):
            losses.append("retrieval settings")
    if archived.has_built_in_fields:
        await session.read(lambda: session.metadata.enable_built_in(dataset))
    return losses


def _read_retrieval(stored: Mapping[str, Any] | None) -> Any:
    if stored is None:
        return None
    settings = codec.decode(StoredRetrievalModel, stored)
    model = settings.to_retrieval_model()
    if model is None:
        return None
    return evolve(
        model,
        top_k=settings.top_k or model.top_k,
        score_threshold_enabled=bool(settings.score_threshold_enabled),
        score_threshold=UNSET if settings.score_threshold is None else settings.score_threshold,
    )


async def restore_tags(tags: Tags, dataset: Dataset, names: Sequence[str]) -> list[str]:
    """Bind the tags with these names, which are created if necessary; return the losses."""
    bound = {str(tag.get("name")) for tag in dataset.tags or ()}
    missing = [name for name in names if name not in bound]
    if not missing:
        return []
    try:
        known = {tag.name: tag.id for tag in await tags.list()}
        ids = [known[name] if name in known else (await tags.create(name)).id for name in missing]
        await tags.bind(dataset, ids)
    except BadRequestError:  # 1.12.1 answers with an error although it creates the tag
        return ["tags"]
    return []


async def restore_fields(
    session: ArchiveSession, dataset: Dataset, fields: Mapping[str, str]
) -> tuple[dict[str, MetadataField], list[str]]:
    """Create missing metadata fields; return all by name, and the losses."""
    rows = (await session.read(lambda: session.metadata.list(dataset))).doc_metadata
    known = {row.name: row for row in rows}
    losses: list[str] = []
    for name, kind in fields.items():
        if name not in known:
            try:
                known[name] = await session.metadata.create(dataset, name, type=MetadataType(kind))
            except (ConfigError, BadRequestError):
                losses.append("metadata fields")
        elif known[name].type != kind:
            losses.append("types of metadata fields")
    return known, losses


@define(kw_only=True)
class AttributeRestorer:
    """Sets metadata values and states of documents."""

    session: ArchiveSession
    dataset: Dataset
    fields: Mapping[str, MetadataField]

    async def set_metadata(
        self, values: Mapping[str, Mapping[str, MetadataScalar]]
    ) -> dict[str, str]:
        """Replace the values of documents, by document id; return the losses by document id.

        Costs one request per 50 documents; a rejected batch is halved.
        """
        losses: dict[str, str] = {}
        documents: list[DocumentMetadata] = []
        for document_id, wanted in values.items():
            if any(name not in self.fields for name in wanted):
                losses[document_id] = "metadata values"
            documents.append(
                DocumentMetadata(
                    document_id=document_id,
                    metadata_list=[
                        MetadataValue(id=self.fields[name].id, name=name, value=value)
                        for name, value in wanted.items()
                        if name in self.fields
                    ],
                )
            )
        for start in range(0, len(documents), BATCH_SIZE):
            losses |= await self._assign(documents[start : start + BATCH_SIZE])
        return losses

    async def _assign(self, batch: Sequence[DocumentMetadata]) -> dict[str, str]:
        try:
            await self.session.read(
                lambda: self.session.metadata.assign(self.dataset, batch, partial_update=False)
            )
        except (BadRequestError, NotFoundError, ConfigError):
            if len(batch) == 1:
                return {batch[0].document_id: "metadata values"}
            middle = len(batch) // 2
            return await self._assign(batch[:middle]) | await self._assign(batch[middle:])
        return {}

    async def set_states(self, action: str, ids: Iterable[str]) -> set[str]:
        """Enable, disable, archive or unarchive documents; return those that refused.

        A document may refuse a second change for up to 10 minutes (measured), and is asked again.
        """
        remaining = list(ids)
        if not remaining:
            return set()
        version = self.session.sender.server_version
        if version and is_older(version, "1.8"):
            return set(remaining)
        timing = self.session.setup.server.policy.load_timing
        # The lock in the clock of the policy, which tests shorten.
        until = loop_time() + STATUS_LOCK * timing.max_outage / 600.0
        while True:
            busy: list[str] = []
            for start in range(0, len(remaining), BATCH_SIZE):
                busy += await self._change(action, remaining[start : start + BATCH_SIZE])
            if not busy or loop_time() > until:
                return set(busy)
            remaining = busy
            await anyio.sleep(timing.max_probe_interval)

    async def _change(self, action: str, ids: Sequence[str]) -> list[str]:
        methods = {
            "enable": self.session.documents.enable,
            "disable": self.session.documents.disable,
            "archive": self.session.documents.archive,
            "unarchive": self.session.documents.unarchive,
        }
        try:
            await self.session.read(lambda: methods[action](self.dataset, ids))
        except BadRequestError:
            if len(ids) == 1:
                return [*ids]
            middle = len(ids) // 2
            return await self._change(action, ids[:middle]) + await self._change(
                action, ids[middle:]
            )
        return []


async def restore_rule(
    session: ArchiveSession, dataset: Dataset, rule: Mapping[str, Any], form: str | None
) -> None:
    """Set the rule that later documents inherit, by a document that is deleted at once."""
    uploads = session.setup.server.uploads
    try:
        created = await uploads.create_by_text(
            dataset,
            RULE_DOCUMENT,
            "",
            doc_form=DocForm(form) if form else UNSET,
            process_rule=read_rule(rule, form or DocForm.TEXT),
        )
    except BadRequestError as error:
        raise KnowledgeError(f"The chunking rule was not set: {error.summary}") from error
    await delete_document(session, dataset, created.document.id)
