"""Find or create the dataset of an import."""

from __future__ import annotations

from attrs import frozen

from dify_kb.errors import ConfigError
from dify_kb.models import Dataset, DocForm, IndexingTechnique
from dify_kb.resources import Datasets
from dify_kb.transport import Sender

from .import_report import ImportOptions
from .import_state import ImportState
from .read_archive import ArchiveReader
from .restore_settings import check_embedding, create_dataset


@frozen
class DatasetChoice:
    """Finds or creates the dataset of an import."""

    sender: Sender
    archive: ArchiveReader
    state: ImportState
    options: ImportOptions

    async def find(self, target: Dataset | str | None, name: str) -> Dataset | None:
        """Return the dataset to import into; None if it has to be created.

        Raises:
            ConfigError: the server lacks the embedding model, or the dataset has another form.
        """
        datasets = Datasets(self.sender)
        if target is not None:
            found: Dataset | None = await datasets.get(target)
        else:
            found = await datasets.find(name)
        previous = await self.state.call(self.state.get_meta, "dataset")
        if previous is not None and (found is None or previous != found.id):
            await self.state.call(self.state.reset)
        if found is None:
            await check_embedding(
                self.sender, self.archive.manifest.dataset, self.options.embedding
            )
        else:
            self._check_form(found)
        return found

    async def create(self, name: str) -> Dataset:
        """Create the dataset. Recorded before, so that an import that was killed knows its own."""
        archived = self.archive.manifest.dataset
        embedding = await check_embedding(self.sender, archived, self.options.embedding)
        await self.state.call(self.state.set_meta, "created", "started")
        return await create_dataset(Datasets(self.sender), archived, name, embedding)

    def _check_form(self, dataset: Dataset) -> None:
        archived = self.archive.manifest.dataset
        forms = {dataset.doc_form, archived.form} - {None}
        if dataset.document_count and self.archive.manifest.documents and len(forms) > 1:
            raise ConfigError(
                f"Dataset {dataset.name!r} has the form {dataset.doc_form}, the archive"
                f" {archived.form}.",
                hint="Import into a new dataset: pass another name.",
            )
        if (
            archived.form == DocForm.HIERARCHICAL
            and dataset.indexing_technique == IndexingTechnique.ECONOMY
        ):
            raise ConfigError(
                f"Dataset {dataset.name!r} is economy, which has no parent-child chunks.",
                hint="Import into a new dataset: pass another name.",
            )
