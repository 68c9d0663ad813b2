"""A retriever for the files of a folder."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import queue
import sqlite3
import tempfile
import threading
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import anyio
import anyio.to_thread

from dify_kb.errors import ConfigError
from dify_kb.rag import remove_stop_words, tokenize

from .folder_index import (
    FOLDER_DATASET,
    FolderCounts,
    IndexReader,
    IndexWriter,
    Passage,
    connect_index,
    prepare_index,
)
from .retriever import RetrievalRecord

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from .retriever import RetrievalRequest

_log = logging.getLogger(__name__)

_MAX_READERS: Final = 4
"""Maximum number of concurrent searches, so that a slow search does not delay the others."""

_CANDIDATES_PER_RESULT: Final = 4
"""Passages per result (times `top_k`) that are fetched by BM25 and sorted by score."""

_MAX_CACHED_FREQUENCIES: Final = 100_000
"""Words whose frequency is cached in memory."""

_MAX_QUERY_CHARACTERS: Final = 10_000
"""Characters of a query that are used."""

_MAX_QUERY_WORDS: Final = 256
"""Words of a query that are used; each word without a cached frequency costs 0.1 ms."""

_MAX_PASSAGES_SEARCHED: Final = 500
"""Passages to search, rare words first; the rarest word is always searched. At about 1.5 us per
passage (measured), common words cost the most and are the least significant."""


class FolderRetriever:
    """A retriever for the files of a folder: keyword search in an index that follows changes.

    Open it with `async with`, as `create_app` does: this indexes new and changed files, then polls
    for changes every `refresh` seconds. Documents are extracted and chunked like in the embedded
    Dify server; pdf and Office files require the extra `emulator`. Files with another extension are
    indexed if they are UTF-8 text. Hidden files and folders, symbolic links out of the folder, and
    files over 15 MiB are skipped; nothing outside the folder is ever read.

    The score of a record is the share of the query's words in its passage, with more weight for
    rare words. Its metadata are `document_id` and `path` (relative to the folder), `name`,
    `extension`, `size` in bytes, and `modified` in seconds since the epoch; conditions may use all
    of them.

    Args:
        folder: the folder to serve.
        index: an SQLite file for the index, which includes the texts; None uses a file in
            `~/.cache/dify-kb` (`XDG_CACHE_HOME`). A deleted index is rebuilt from the folder.
        refresh: seconds between polls for changes; each poll lists the whole folder.

    Raises:
        ConfigError: on opening: the folder cannot be listed, or the index cannot be used.
    """

    filters_metadata = True

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        index: str | os.PathLike[str] | None = None,
        refresh: float = 2.0,
    ) -> None:
        self.folder = Path(folder)
        self._index = None if index is None else Path(index)
        self._refresh = refresh
        self._served_folder: _ServedFolder | None = None
        self._limiter: anyio.CapacityLimiter | None = None

    @property
    def counts(self) -> FolderCounts:
        """The numbers of served files and passages as of the latest poll.

        Raises:
            ConfigError: the retriever is not open.
        """
        return self._require_open().counts

    async def __aenter__(self) -> Self:
        self._limiter = anyio.CapacityLimiter(_MAX_READERS)
        stop = threading.Event()
        try:
            self._served_folder = await anyio.to_thread.run_sync(
                lambda: _ServedFolder(
                    _resolve_folder(self.folder), self._index, self._refresh, stop
                ),
                abandon_on_cancel=True,
            )
        except BaseException:
            stop.set()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        served_folder, self._served_folder = self._served_folder, None
        if served_folder is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(served_folder.close)

    async def retrieve(self, query: RetrievalRequest) -> list[RetrievalRecord]:
        """Return the best passages, best first.

        Raises:
            ConfigError: the retriever is not open.
        """
        served_folder = self._require_open()
        return await anyio.to_thread.run_sync(
            served_folder.search, query, abandon_on_cancel=True, limiter=self._limiter
        )

    def _require_open(self) -> _ServedFolder:
        if self._served_folder is None:
            raise ConfigError("The folder is not open.", hint="Use `async with`, or `create_app`.")
        return self._served_folder


class _ServedFolder:
    """An open folder: a thread that refreshes its index, and the index readers."""

    def __init__(
        self, root: Path, index: Path | None, refresh: float, stop: threading.Event
    ) -> None:
        self._root = root
        self._stop = stop
        self._refresh_interval = refresh
        self._temporary_folder: tempfile.TemporaryDirectory[str] | None = None
        path = self._prepare_index_path(index)
        self._writer = IndexWriter(root, connect_index(path), stop)
        self._readers: queue.SimpleQueue[IndexReader] = queue.SimpleQueue()
        for _ in range(_MAX_READERS):
            self._readers.put(IndexReader.open(path))
        self._frequencies: dict[str, int] = {}
        self._writer.refresh(retry_failed=True)
        self.counts = self._writer.counts()
        self._thread = threading.Thread(
            target=self._refresh_until_stopped, name="dify-kb-folder", daemon=True
        )
        self._thread.start()
        if stop.is_set():  # opening was cancelled
            self.close()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._writer.connection.close()
        for _ in range(_MAX_READERS):
            self._readers.get().connection.close()
        if self._temporary_folder is not None:
            self._temporary_folder.cleanup()

    def _prepare_index_path(self, index: Path | None) -> Path:
        path = index or default_index_path(self._root)
        try:
            prepare_index(path, self._root)
        except ConfigError as error:
            if index is not None:
                raise
            _log.warning("Using a temporary index: %s", error.summary)
            self._temporary_folder = tempfile.TemporaryDirectory(prefix="dify-kb-")
            path = Path(self._temporary_folder.name) / "folder.db"
            prepare_index(path, self._root)
        return path

    def _refresh_until_stopped(self) -> None:
        last_error = ""
        while not self._stop.wait(self._refresh_interval):
            try:
                if self._writer.refresh():
                    self.counts = self._writer.counts()
                    self._frequencies = {}
                last_error = ""
            except (OSError, sqlite3.Error) as error:
                if str(error) != last_error:
                    _log.warning("Cannot refresh the index of %s: %s", self._root, error)
                last_error = str(error)

    @contextmanager
    def _borrow_reader(self) -> Iterator[IndexReader]:
        """Borrow a reader with a consistent snapshot of the index."""
        reader = self._readers.get()
        try:
            with reader.snapshot():
                yield reader
        finally:
            self._readers.put(reader)

    def search(self, query: RetrievalRequest) -> list[RetrievalRecord]:
        query_words = select_query_words(query.query)
        # Read before the snapshot is taken: the frequencies must not be newer than the snapshot.
        known_frequencies = self._frequencies
        with self._borrow_reader() as reader:
            allowed_paths = None
            if query.metadata_condition is not None:
                files = reader.files()
                allowed_paths = [row[0] for row in files if query.matches(_build_metadata(*row))]
            if not query_words or allowed_paths == []:
                return []
            frequencies = {
                word: _lookup_frequency(reader, word, known_frequencies) for word in query_words
            }
            limit = _CANDIDATES_PER_RESULT * query.top_k
            hits = reader.index.search(
                FOLDER_DATASET, select_rare_words(frequencies), limit, allowed_paths
            )
            passages = reader.passages([hit.segment_id for hit in hits])
        weights = weigh_words(frequencies, self.counts.passages)
        records = [
            _to_record(passage, score_passage(passage.content, weights)) for passage in passages
        ]
        return sorted(records, key=lambda record: -record.score)[: query.top_k]


def _lookup_frequency(reader: IndexReader, word: str, known_frequencies: dict[str, int]) -> int:
    frequency = known_frequencies.get(word)
    if frequency is None:
        frequency = reader.index.count_segments_with(FOLDER_DATASET, word)
        if len(known_frequencies) < _MAX_CACHED_FREQUENCIES:
            known_frequencies[word] = frequency
    return frequency


def default_index_path(root: Path) -> Path:
    """Return the path of a folder's index in the user's cache (`XDG_CACHE_HOME`)."""
    cache_home = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(cache_home) if cache_home else Path.home() / ".cache"
    except RuntimeError:  # no home directory
        cache = Path(os.devnull)
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()
    return cache / "dify-kb" / "folders" / f"{digest[:16]}.db"


def _resolve_folder(folder: Path) -> Path:
    try:
        root = folder.resolve(strict=True)
        with closing(os.scandir(root)):
            return root
    except OSError as error:
        raise ConfigError(
            f"Cannot serve folder {folder}: {(error.strerror or str(error)).lower()}.",
            hint="Choose an existing folder with read permission.",
        ) from error


def _build_metadata(path: str, size: int, modified: float) -> dict[str, object]:
    name = path.rpartition("/")[2]
    return {
        "document_id": path,
        "path": path,
        "name": name,
        "extension": name.rpartition(".")[2].lower() if "." in name else "",
        "size": size,
        "modified": round(modified, 3),
    }


def _to_record(passage: Passage, score: float) -> RetrievalRecord:
    metadata = _build_metadata(passage.path, passage.size, passage.modified)
    return RetrievalRecord(
        passage.content, score=round(score, 4), title=passage.path, metadata=metadata
    )


def select_query_words(query: str) -> list[str]:
    """Return the distinct significant words of a query; a long query is truncated."""
    words = tokenize(query[:_MAX_QUERY_CHARACTERS])
    significant_words = remove_stop_words(words)
    return [word for word in dict.fromkeys(words) if word in significant_words][:_MAX_QUERY_WORDS]


def select_rare_words(frequencies: Mapping[str, int]) -> str:
    """Return the words to search for, rarest first, up to the limit of searched passages."""
    selected: list[str] = []
    remaining = _MAX_PASSAGES_SEARCHED
    for frequency, word in sorted((frequency, word) for word, frequency in frequencies.items()):
        if selected and frequency > remaining:
            break
        if frequency:
            selected.append(word)
            remaining -= frequency
    return " ".join(selected)


def weigh_words(frequencies: Mapping[str, int], size: int) -> dict[str, float]:
    """Return the BM25 weight of each word, never negative, normalized to a sum of 1."""
    weights = {
        word: math.log(1 + (max(size, number) - number + 0.5) / (number + 0.5))
        for word, number in frequencies.items()
    }
    total = sum(weights.values())
    return {word: weight / total for word, weight in weights.items()}


def score_passage(content: str, weights: Mapping[str, float]) -> float:
    """Return the sum of the weights of the words in a passage, at most 1."""
    passage_words = _split_passage(content)
    return min(1.0, sum(weight for word, weight in weights.items() if word in passage_words))


@lru_cache(maxsize=4096)
def _split_passage(content: str) -> frozenset[str]:
    return frozenset(tokenize(content))
