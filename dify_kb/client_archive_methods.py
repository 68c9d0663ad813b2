"""The methods of the asynchronous client that save and move knowledge bases."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeGuard, cast
from uuid import UUID

from .argument_checks import check_methods
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .archive import (
        CompareReport,
        CopyReport,
        ExportReport,
        ImportReport,
        OnArchiveEvent,
        OnExistingDocument,
        VerifyReport,
    )
    from .emulator import Emulator
    from .models import Condition, Dataset, MetadataFilter, ModelRef
    from .transport import Connection, Sender


@check_methods
class ClientArchiveMethods:
    """The methods `export`, `import_`, `copy`, `compare` and `verify` of an asynchronous client."""

    _sender: Sender
    _connection: Connection
    _emulator: Emulator | None

    async def export(
        self,
        dataset_id: Dataset | str,
        path: str | os.PathLike[str],
        *,
        files: bool = True,
        only: str | Sequence[str] = (),
        filter: MetadataFilter | Condition | None = None,  # noqa: A002 -- the word of users
        full: bool = False,
        concurrency: int = 4,
        dry_run: bool = False,
        on_event: OnArchiveEvent | None = None,
    ) -> ExportReport:
        """Export a knowledge base to an archive: documents, chunks, states, metadata, files.

        The archive is a folder, or a single file if `path` ends with `.zip`; `import_` creates the
        knowledge base again from it. It contains neither the API key nor the server's address. The
        same export again reads only documents that changed, and continues after an interruption,
        even by `kill -9`.

        Costs one request per 100 documents, and for each new or changed document: one since 1.8,
        one per 100 chunks, one for the file (two up to 1.8). Needs no more memory for more
        documents. Original files are available up to 1.8 and since 1.13.1.

        An edited chunk of the same length, new keywords, and a disabled chunk do not change
        anything in the list of documents (measured on 1.4.3, 1.12.1 and 1.14.2): pass `full=True`
        to read all documents again.

        Args:
            path: a new folder, one of an earlier export of this knowledge base, or a `.zip`.
            files: include the files that documents were created from.
            only: globs of document names; others are left out of the archive.
            filter: condition on the metadata of documents, such as `Field("year") >= 2024`.
            full: read all documents, not only those that changed.
            concurrency: documents read at a time.
            dry_run: only list the documents, and count those that would be read.
            on_event: receives `ArchiveProgress` in the loop thread; must not block.

        Returns:
            A report, also of an export that had to stop (`report.stopped`).

        Raises:
            ConfigError: the knowledge base is external or has a pipeline, or the folder is the
                archive of another one.
            ArchiveError: the folder is in use, contains other files, or cannot be written.
            NotFoundError: the knowledge base does not exist.
        """
        from .archive import ExportOptions, export_dataset
        from .models import MetadataFilter

        if concurrency < 1:
            raise ConfigError(f"Invalid concurrency: {concurrency}.", hint="Use 1 or more.")
        options = ExportOptions(
            files=files,
            only=(only,) if isinstance(only, str) else tuple(only),
            filter=None if filter is None else MetadataFilter.from_condition(filter),
            full=full,
            concurrency=concurrency,
            dry_run=dry_run,
        )
        key = dataset_id if isinstance(dataset_id, str) else dataset_id.id
        return await export_dataset(self._sender, key, path, options, on_event)

    async def import_(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        dataset_id: Dataset | str | None = None,
        on_existing: OnExistingDocument = "fail",
        recut: bool = False,
        embedding: ModelRef | None = None,
        concurrency: int | tuple[int, int] | None = None,
        rate: str | float | None = None,
        journal: str | os.PathLike[str] | None = None,
        ids: str | os.PathLike[str] | None = None,
        dry_run: bool = False,
        on_event: OnArchiveEvent | None = None,
    ) -> ImportReport:
        """Create the documents of an archive in a knowledge base, with exactly their chunks.

        The whole archive is verified before anything is changed. A document is created from its
        original file and compared chunk by chunk; without one, its chunks are joined to one text or
        appended to an empty document (`report.methods`). Then follow keywords, answers, metadata,
        disabled and archived states, and for a new knowledge base its settings. What the server
        cannot keep is counted in `report.losses`. A journal records what was created: the same
        import again continues after an interruption, even by `kill -9`, and a later one sends only
        what changed in the archive.

        Costs about five requests per document, one per 50 chunks, and one for each chunk that is
        edited, disabled or could not be split exactly.

        Args:
            path: an archive of `export`.
            name: name of the knowledge base, which is created if necessary; by default that in the
                archive.
            dataset_id: an existing knowledge base instead of a name.
            on_existing: what to do if the knowledge base has a document with the name of one of the
                archive, which an earlier import did not create: `fail` (in the first import before
                anything is changed, later for that document), `skip`, or `replace` (the old
                document is deleted).
            recut: split the original files anew, by the rule of the knowledge base, instead of
                creating the archived chunks.
            embedding: embedding model of a new knowledge base; by default that in the archive.
            concurrency: concurrent creates; None tunes it automatically, as for `load`.
            rate: maximum rate of creates, such as `100/min`.
            journal: path of the journal. None uses one per server, knowledge base and exported
                knowledge base in `~/.local/state/dify-kb/imports`.
            ids: path of a JSON file to write, with the new id of each document by its old one.
            dry_run: change nothing; count what would be created.
            on_event: receives `ArchiveProgress` in the loop thread; must not block.

        Returns:
            A report, also of an import that had to stop (`report.stopped`).

        Raises:
            ArchiveError: the archive is damaged, or an import with its journal is running. Nothing
                was changed.
            ConfigError: the server does not have the embedding model, the knowledge base has
                another form, or has some of the documents. Nothing was changed.
            NotFoundError: the knowledge base `dataset_id` does not exist.
        """
        from .archive import ImportOptions, import_archive

        if name is not None and dataset_id is not None:
            raise ConfigError("name cannot be combined with dataset_id.", hint="Pass one of them.")
        options = ImportOptions(
            on_existing=on_existing,
            recut=recut,
            embedding=embedding,
            concurrency=concurrency,
            rate=rate,
            journal=None if journal is None else Path(journal),
            ids=None if ids is None else Path(ids),
            dry_run=dry_run,
        )
        return await import_archive(
            self._sender, self._identity, path, dataset_id, name, options, on_event
        )

    async def copy(
        self,
        dataset_id: Dataset | str,
        target: Self,
        *,
        name: str | None = None,
        target_id: Dataset | str | None = None,
        on_existing: OnExistingDocument = "fail",
        recut: bool = False,
        embedding: ModelRef | None = None,
        files: bool = True,
        full: bool = False,
        on_event: OnArchiveEvent | None = None,
    ) -> CopyReport:
        """Copy a knowledge base to another server, or under another name to the same.

        An export followed by an import; the archive between is kept in
        `~/.local/state/dify-kb/copies`, so that the same copy again reads and sends only what
        changed, and continues after an interruption. Costs as `export` and `import_`.

        Args:
            target: client of the other server, or this one.
            name: name of the copy, which is created if necessary; by default the same name.
            target_id: an existing knowledge base of the other server instead of a name.
            on_existing: see `import_`.
            recut: see `import_`.
            embedding: see `import_`.
            files: copy the files that documents were created from.
            full: see `export`.
            on_event: receives `ArchiveProgress` in the loop thread; must not block.

        Raises:
            ConfigError: see `export` and `import_`; or the copy would replace its source.
            ArchiveError: the same copy is running already.
        """
        from .archive import CopyReport, copy_folder

        source = await self._fetch_dataset(dataset_id)
        check_copy(source, name, target_id, is_same_client=target is self)
        with copy_folder(self._identity, source.id) as folder:
            exported = await self.export(source, folder, files=files, full=full, on_event=on_event)
            if not exported:
                return CopyReport(exported=exported)
            imported = await target.import_(
                folder,
                name=None if target_id is not None else name or source.name,
                dataset_id=target_id,
                on_existing=on_existing,
                recut=recut,
                embedding=embedding,
                on_event=on_event,
            )
            return CopyReport(exported=exported, imported=imported)

    async def compare(
        self,
        a: Dataset | str | os.PathLike[str],
        b: Dataset | str | os.PathLike[str],
        *,
        target: Self | None = None,
        on_event: OnArchiveEvent | None = None,
    ) -> CompareReport:
        """Compare two knowledge bases, or archives of them, document by document.

        Each knowledge base is read as by `export` without files. Documents are compared by name.
        Not compared are ids, order, dates, files and the chunking rules of documents.

        Args:
            a: a knowledge base or its id, or the path of an archive.
            b: the same; a knowledge base of `target` if that is given.
            target: client of the server of `b`; by default this one.
            on_event: receives `ArchiveProgress` in the loop thread; must not block.

        Raises:
            ArchiveError: an archive is damaged, or a knowledge base could not be read completely.
        """
        import anyio.to_thread

        from .archive import compare_archives, comparison_folder

        with comparison_folder() as folder:
            first = await self._read_operand(a, folder / "a", on_event)
            second = await (target or self)._read_operand(b, folder / "b", on_event)  # noqa: SLF001 -- ours
            names = describe_operand(a), describe_operand(b)
            return await anyio.to_thread.run_sync(partial(compare_archives, first, second, names))

    async def verify(
        self,
        path: str | os.PathLike[str],
        *,
        against: Dataset | str | None = None,
        on_event: OnArchiveEvent | None = None,
    ) -> VerifyReport:
        """Verify an archive by its checksums; optionally compare it with a knowledge base.

        Costs no request without `against`, with it those of `compare`.

        Args:
            path: an archive of `export`.
            against: a knowledge base or its id.
            on_event: receives `ArchiveProgress` in the loop thread; must not block.

        Returns:
            A report, which is falsy if a member is missing or damaged, or something differs.
        """
        import anyio.to_thread
        from attrs import evolve

        from .archive import verify_archive

        report = await anyio.to_thread.run_sync(verify_archive, path)
        if not report or against is None:
            return report
        return evolve(report, comparison=await self.compare(path, against, on_event=on_event))

    async def _read_operand(
        self,
        operand: Dataset | str | os.PathLike[str],
        folder: Path,
        on_event: OnArchiveEvent | None,
    ) -> Path:
        """Return the archive of an operand; that of a knowledge base is created in a folder."""
        from .errors import ArchiveError

        if not is_dataset(operand):
            return Path(cast("str", operand))
        report = await self.export(operand, folder, files=False, on_event=on_event)
        if not report:
            raise ArchiveError(
                f"The dataset could not be read completely: {report.stop_message}",
                hint="Run the same comparison again.",
            )
        return folder

    async def _fetch_dataset(self, dataset_id: Dataset | str) -> Dataset:
        from .resources import Datasets

        if isinstance(dataset_id, str):
            return await Datasets(self._sender).get(dataset_id)
        return dataset_id

    @property
    def _identity(self) -> str | None:
        return self._emulator.identity if self._emulator else self._connection.config.base_url


def check_copy(
    source: Dataset, name: str | None, target_id: Dataset | str | None, *, is_same_client: bool
) -> None:
    """Check that a copy does not replace its source.

    Raises:
        ConfigError: it would.
    """
    target = target_id if isinstance(target_id, str | None) else target_id.id
    is_same = target == source.id if target is not None else name in {None, source.name}
    if is_same_client and is_same:
        raise ConfigError(
            f"A copy of {source.name!r} on the same server needs another name.",
            hint="Pass name= with another name.",
        )


def is_dataset(operand: Dataset | str | os.PathLike[str]) -> TypeGuard[Dataset | str]:
    """Return whether an operand of a comparison is a knowledge base, not a path."""
    if not isinstance(operand, str):
        return not isinstance(operand, os.PathLike)
    try:
        return str(UUID(operand)) == operand.lower()
    except ValueError:
        return False


def describe_operand(operand: Dataset | str | os.PathLike[str]) -> str:
    """Return the name of an operand of a comparison."""
    return os.fspath(operand) if isinstance(operand, str | os.PathLike) else operand.name
