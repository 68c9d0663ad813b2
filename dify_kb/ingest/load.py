"""Load a source into a dataset: open the journal, send the files, verify, report."""

from __future__ import annotations

import functools
import hashlib
import os
import time
import warnings
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.to_thread
import attrs

from dify_kb.errors import ConfigError, JournalError, KnowledgeError
from dify_kb.models import Dataset
from dify_kb.resources import Datasets
from dify_kb.resources.metadata_assignment import MetadataAssignment

from .engine.run import LoadRun
from .engine.verify import Verifier
from .journal import Journal, iter_failed_results, open_journal
from .load_setup import LoadSetup, prepare_load
from .pacing.admission import Admission
from .pacing.circuit_breaker import CircuitBreaker
from .report import StopReason
from .sources.source_reader import create_source_reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from dify_kb.transport import Sender

    from .load_options import LoadOptions, ServerAccess
    from .report import ItemResult, LoadReport
    from .sources.items import Source
    from .sources.source_reader import SourceReader


async def load(
    sender: Sender,
    identity: str | None,
    dataset_id: Dataset | str,
    source: Source,
    options: LoadOptions,
) -> LoadReport:
    """Load a source into a dataset, and return the report.

    Args:
        identity: identifies the server in journals; None for an embedded server in memory.

    Raises:
        ConfigError: the source does not exist, the dataset has no indexing technique, the metadata
            is invalid, or the journal belongs to another load.
        JournalError: the journal is in use, damaged, of another version, or cannot be written.
        LoadError: a file failed, under `errors="stop"`.
        KnowledgeError: the dataset could not be fetched or listed.
    """
    key = dataset_id.id if isinstance(dataset_id, Dataset) else dataset_id
    with show_progress(sender, options) as (watched, shown):
        reader = await create_source_reader(source)
        admission = create_admission(watched, key, shown)
        try:
            return await load_reader(watched, identity, key, reader, shown, admission)
        finally:
            admission.close()


def create_admission(sender: Sender, dataset_id: str, options: LoadOptions) -> Admission:
    """Create the admission control of one or several loads; `close` it at the end.

    Raises:
        ConfigError: the concurrency or the rate is invalid.
    """
    times = sender.policy.load_timing
    return Admission(
        options.concurrency,
        options.rate,
        sender.limiter,
        CircuitBreaker(Datasets(sender), dataset_id, times),
        unit=times.tuning_second,
    )


async def load_reader(
    sender: Sender,
    identity: str | None,
    dataset_id: str,
    reader: SourceReader,
    options: LoadOptions,
    admission: Admission,
) -> LoadReport:
    """Load what a reader reads into a dataset; as `load`, but for the display of the progress.

    Args:
        admission: that of an earlier load, which has ended, continues with what it has learned.
    """
    setup = await prepare_load(sender, identity, dataset_id, options, admission)
    try:
        await anyio.to_thread.run_sync(reader.prepare, abandon_on_cancel=True)
        return await _load(setup, reader)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(reader.close)


async def fetch_dataset(server: ServerAccess) -> Dataset:
    """Return the dataset of a load, with its number of documents. Costs one or two requests.

    Raises:
        ConfigError: the dataset has no indexing technique.
        KnowledgeError: it could not be fetched.
    """
    dataset = await server.datasets.get(server.breaker.dataset_id)
    if dataset.indexing_technique is None:
        raise ConfigError(
            f"Dataset {dataset.name!r} has no indexing technique.",
            hint="Create datasets with indexing_technique= (--technique) economy or high_quality.",
        )
    if dataset.document_count is None:  # an empty dataset needs a chunking rule
        total = (await server.documents.list(dataset, limit=1)).total
        dataset = attrs.evolve(dataset, document_count=total)
    return dataset


async def _load(setup: LoadSetup, source: SourceReader) -> LoadReport:
    server, sender, options = setup.server, setup.sender, setup.options
    callbacks, metadata = setup.callbacks, setup.metadata
    started = time.monotonic()
    dataset = await fetch_dataset(server)
    assignment = MetadataAssignment(sender, dataset)
    if metadata.constant_values:
        await assignment.require(metadata.constant_values)
    identity = {"server": server.identity or "", "dataset": dataset.id}
    if source.identity is not None:
        identity["source"] = source.identity
    async with open_load_journal(server, identity, source, options) as journal:
        journal.record_dataset_name(dataset.name)
        run = LoadRun(
            server=server,
            dataset=dataset,
            source=source,
            journal=journal,
            options=options,
            assignment=assignment,
            requests=setup.requests,
            metadata=metadata,
        )
        with callbacks.scope, raise_single_error():
            await run.execute()
        if callbacks.error is not None:
            raise callbacks.error
        try:
            await journal.flush()
        except JournalError as error:
            run.files.stop_for_error(error)
        verified = options.verifies and await _verify(server, dataset, journal, run)
        report = run.ledger.report(time.monotonic() - started)
        whole = run.ledger.has_ended and report.stopped is None
        report = attrs.evolve(
            report,
            verified=verified,
            warnings=[*report.warnings, *metadata.warnings(complete=whole)],
            _failures=make_failure_reader(journal),
        )
        if source.identity and not report.found and report.stopped is None:
            report = attrs.evolve(
                report, stopped=StopReason.NO_FILES, stop_message=no_files_message(source)
            )
        journal.finish_run(report.to_json())
    if options.errors == "stop":
        report.raise_for_failures()
    return report


E = TypeVar("E")


def _call_both(
    first: Callable[[E], object] | None, second: Callable[[E], object]
) -> Callable[[E], None]:
    def call(event: E) -> None:
        if first is not None:
            first(event)
        second(event)

    return call


@contextmanager
def show_progress(sender: Sender, options: LoadOptions) -> Iterator[tuple[Sender, LoadOptions]]:
    """Show the progress until the block ends, if `options` ask for it.

    Yields the sender and the options with which to load.

    Raises:
        ConfigError: the package rich is not installed.
    """
    if not options.progress:
        yield sender, options
        return
    try:
        from .progress_display import watch_load
    except ModuleNotFoundError:
        raise ConfigError(
            "progress=True requires the package rich.", hint="pip install 'dify-kb[cli]'"
        ) from None
    with watch_load() as state:
        yield (
            attrs.evolve(sender, on_attempt=_call_both(sender.on_attempt, state.record_attempt)),
            attrs.evolve(options, on_event=_call_both(options.on_event, state.add)),
        )


@contextmanager
def raise_single_error() -> Iterator[None]:
    """Unwrap an exception group with a single error, such as that of the caller's generator."""
    try:
        yield
    except BaseExceptionGroup as group:
        only: BaseException = group
        while isinstance(only, BaseExceptionGroup) and len(only.exceptions) == 1:
            only = only.exceptions[0]
        raise only from only.__cause__


def no_files_message(source: SourceReader) -> str:
    """Return the message of a load without files."""
    places = ", ".join((source.identity or "").split("\n"))
    return f"No files to load in {places}: check the path, include and exclude."


async def _verify(server: ServerAccess, dataset: Dataset, journal: Journal, run: LoadRun) -> bool:
    """Verify the held results; on failure, count the rest as pending. Return whether it worked."""
    try:
        await Verifier(journal, server.documents, dataset, run.ledger).run()
    except KnowledgeError as error:
        run.files.stop_for_error(error)
        run.ledger.record_rest_as_pending()
        return False
    return run.files.stopping.reason is None


@asynccontextmanager
async def open_load_journal(
    server: ServerAccess, identity: Mapping[str, str], source: SourceReader, options: LoadOptions
) -> AsyncIterator[Journal]:
    """Open the journal of a load for one run.

    Raises:
        JournalError: it is in use, damaged, of another version, or cannot be written.
        ConfigError: it belongs to another server, dataset or source.
    """
    path = options.journal
    if path is None and server.identity is not None and source.identity is not None:
        path = await anyio.to_thread.run_sync(_choose_journal, identity, options.dry_run)
    admission = server.admission
    async with open_journal(
        path, identity, copy=options.dry_run, max_waiters=lambda: admission.in_flight
    ) as journal:
        yield journal


def default_journal_path(identity: Mapping[str, str]) -> Path:
    """Return the default path of a load's journal, in the user's state folder."""
    joined = "\0".join(identity[name] for name in ("server", "dataset", "source"))
    digest = hashlib.sha256(joined.encode(errors="surrogatepass")).hexdigest()
    return state_folder() / f"{digest[:16]}.db"


def state_folder() -> Path:
    """Return the folder of journals without an explicit path: below `XDG_STATE_HOME`."""
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "dify-kb"


def _choose_journal(identity: Mapping[str, str], dry_run: bool) -> Path | None:  # noqa: FBT001 -- for a thread
    """Return the default path of the journal; None if it cannot be created there."""
    try:
        path = default_journal_path(identity)
    except RuntimeError as error:  # a user without a home
        _warn(f"No state directory ({error})")
        return None
    if not dry_run and not _is_writable(path.parent):
        _warn(f"Directory {path.parent} is not writable")
        return None
    return path


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _warn(why: str) -> None:
    warnings.warn(
        f"{why}: the journal is kept in memory, and this load cannot be resumed."
        " Pass a writable path with journal= (--journal).",
        stacklevel=3,
    )


def make_failure_reader(journal: Journal) -> Callable[[], Iterator[ItemResult]]:
    """Return a function that reads the failures once the journal is closed."""
    if journal.path is not None:
        return functools.partial(iter_failed_results, journal.path, journal.run)
    failed_results = tuple(journal.results.iter_failures())
    return lambda: iter(failed_results)
