"""A load put together: what it may be told, its journal, its run, its report."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
import warnings
from collections.abc import Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread
import attrs

from dify_kb.errors import ConfigError, JournalError, KnowledgeError
from dify_kb.resources.labels import Labels

from .engine.run import Run
from .engine.verify import Verifier
from .journal import Journal, failures, open_journal
from .planning.planner import Planner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from dify_kb.models import Dataset

    from .options import Options, Server
    from .report import ItemResult, LoadReport, Tally
    from .sources.reader import SourceReader


async def load(
    server: Server, dataset_id: Dataset | str, source: SourceReader, options: Options, tally: Tally
) -> LoadReport:
    """Bring a source into a dataset and tell how each of its files ended.

    Raises:
        ConfigError: the dataset has no indexing technique, the metadata of all files cannot be set,
            or the journal is of another load.
        JournalError: the journal is in use, damaged, newer, or cannot be written.
        LoadError: a file failed, under `errors="stop"`.
        KnowledgeError: the dataset could not be fetched and listed.
    """
    started = time.monotonic()
    dataset = await server.datasets.get(dataset_id)
    if dataset.indexing_technique is None:
        raise ConfigError(
            f"The dataset {dataset.name!r} has no indexing technique yet.",
            hint="Create it with indexing_technique (--technique): economy or high_quality.",
        )
    labels = Labels(server.metadata, server.documents, dataset)
    if isinstance(options.metadata, Mapping):
        await labels.require(options.metadata)
    identity = {"server": server.identity or "", "dataset": dataset.id}
    if source.identity is not None:
        identity["source"] = source.identity
    async with _journal(server, identity, source, options) as journal:
        run = Run(
            server=server,
            dataset=dataset,
            journal=journal,
            options=options,
            tally=tally,
            labels=labels,
        )
        producer = Planner(journal, server.documents, dataset, options.wishes, options.metadata)
        with contextlib.closing(run), _ungrouped():
            await producer.prepare(run)
            await run.through(lambda: producer.through(source, run))
        try:
            await journal.flush()
        except JournalError as error:
            run.fail_run(error)
        verified = options.verifies and await _audited(server, dataset, journal, run)
        report = attrs.evolve(
            tally.report(time.monotonic() - started),
            verified=verified,
            dry_run=options.dry_run,
            stopped=run.stopped,
            stop_message=run.message,
            journal=str(journal.path) if journal.path else None,
            _failures=_failures(journal),
        )
        journal.finish(report.to_json())
    if options.errors == "stop":
        report.raise_for_failures()
    return report


@contextmanager
def _ungrouped() -> Iterator[None]:
    """Raise what went wrong, such as an error of the caller's generator, as itself."""
    try:
        yield
    except BaseExceptionGroup as group:
        only: BaseException = group
        while isinstance(only, BaseExceptionGroup) and len(only.exceptions) == 1:
            only = only.exceptions[0]
        raise only from only.__cause__


async def _audited(server: Server, dataset: Dataset, journal: Journal, run: Run) -> bool:
    """Verify what is held; what cannot be looked at any more is pending."""
    try:
        await Verifier(journal, server.documents, dataset).run(run.verified)
    except KnowledgeError as error:
        run.fail_run(error)
        run.pend_rest()
        return False
    return run.stopped is None


@asynccontextmanager
async def _journal(
    server: Server, identity: Mapping[str, str], source: SourceReader, options: Options
) -> AsyncIterator[Journal]:
    path = options.journal
    if path is None and server.identity is not None and source.identity is not None:
        path = await anyio.to_thread.run_sync(_own, identity, options.dry_run)
    admission = server.admission
    async with open_journal(
        path, identity, copy=options.dry_run, max_waiters=lambda: admission.in_flight
    ) as journal:
        yield journal


def default_path(identity: Mapping[str, str]) -> Path:
    """Name the journal of a load in the user's state folder (`XDG_STATE_HOME`)."""
    told = "\0".join(identity[name] for name in ("server", "dataset", "source"))
    digest = hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()
    return state_folder() / f"{digest[:16]}.db"


def state_folder() -> Path:
    """Name the folder of the journals that nobody named."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "dify-kb"


def _own(identity: Mapping[str, str], dry_run: bool) -> Path | None:  # noqa: FBT001 -- for a thread
    """Choose the journal that nobody named; None where it could not be kept."""
    try:
        path = default_path(identity)
    except RuntimeError as error:  # a user without a home
        _warn(f"There is no folder for journals ({error})")
        return None
    if not dry_run and not _writable(path.parent):
        _warn(f"{path.parent} cannot be written")
        return None
    return path


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _warn(why: str) -> None:
    warnings.warn(
        f"{why}, so this load cannot be resumed. Name a journal= (--journal).", stacklevel=3
    )


def _failures(journal: Journal) -> Callable[[], Iterator[ItemResult]]:
    """Tell how the failures are read once the journal is closed."""
    if journal.path is not None:
        return functools.partial(failures, journal.path, journal.run)
    kept = tuple(journal.failures())
    return lambda: iter(kept)
