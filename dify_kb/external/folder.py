from __future__ import annotations

import hashlib
import logging
import os
import queue
import sqlite3
import tempfile
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import anyio
import anyio.to_thread

from dify_kb.errors import ConfigError

from .contract import Record
from .folder_database import connect, prepare
from .folder_index import DATASET, Counts, Passage, Reader, Writer
from .folder_ranking import rarest, score_of, weights_of, words_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from .contract import RetrievalRequest

_log = logging.getLogger(__name__)

_READERS: Final = 4
"""Searches at a time: one that is slow does not hold up the others."""

_CANDIDATES: Final = 4
"""Times top_k that passages are taken by BM25, to be put into the order of their scores."""

_REMEMBERED: Final = 100_000
"""Words whose frequency is kept in memory."""


class FolderRetriever:
    """Serves the files of a folder, found by their words, and kept fresh as files change.

    Open it by `async with`, as `create_app` does: that reads what is new since the last time, and
    from then on looks for changes every `refresh` seconds. Documents are read and cut as the
    embedded Dify server does it, pdf and Office files with the extra `emulator`; what has another
    extension is a text if it is UTF-8. Hidden files and folders, links out of the folder, and
    files beyond 15 MiB are left out; nothing outside the folder is ever read.

    A record's score is the part of the question's words that its passage has, rare ones counting
    more. Its metadata are `document_id` and `path` (relative to the folder), `name`, `extension`,
    `size` in bytes, and `modified` in seconds since the epoch; conditions may be on each of them.

    Args:
        folder: what is served.
        index: an SQLite file that remembers what was read, texts included; None for one of this
            folder in `~/.cache/dify-kb` (`XDG_CACHE_HOME`). Deleting it costs the time of reading
            everything once more.
        refresh: seconds between looks for changes; each lists the whole folder.

    Raises:
        ConfigError: on opening; the folder is none, or the index cannot be used.
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
        self._open: _Open | None = None
        self._limiter: anyio.CapacityLimiter | None = None

    @property
    def counts(self) -> Counts:
        """What is served as of the latest look.

        Raises:
            ConfigError: it is not open.
        """
        return self._require_open().counts

    async def __aenter__(self) -> Self:
        self._limiter = anyio.CapacityLimiter(_READERS)
        stop = threading.Event()
        try:
            self._open = await anyio.to_thread.run_sync(
                lambda: _Open(_folder(self.folder), self._index, self._refresh, stop),
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
        opened, self._open = self._open, None
        if opened is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(opened.close)

    async def retrieve(self, query: RetrievalRequest) -> list[Record]:
        """Find passages, the best first.

        Raises:
            ConfigError: it is not open.
        """
        opened = self._require_open()
        return await anyio.to_thread.run_sync(
            opened.search, query, abandon_on_cancel=True, limiter=self._limiter
        )

    def _require_open(self) -> _Open:
        if self._open is None:
            raise ConfigError("The folder is not open.", hint="Use `async with`, or create_app.")
        return self._open


class _Open:
    """A folder while it is served: a thread that keeps its index fresh, and readers of that."""

    def __init__(
        self, root: Path, index: Path | None, refresh: float, stop: threading.Event
    ) -> None:
        self._root = root
        self._stopped = stop
        self._seconds = refresh
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        path = self._prepared(index)
        self._writer = Writer(root, connect(path), stop)
        self._readers: queue.SimpleQueue[Reader] = queue.SimpleQueue()
        for _ in range(_READERS):
            self._readers.put(Reader.of(path))
        self._frequencies: dict[str, int] = {}
        self._writer.refresh(again=True)
        self.counts = self._writer.counts()
        self._thread = threading.Thread(target=self._keep, name="dify-kb-folder", daemon=True)
        self._thread.start()
        if stop.is_set():  # nobody waits for it any more
            self.close()

    def close(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._writer.connection.close()
        for _ in range(_READERS):
            self._readers.get().connection.close()
        if self._scratch is not None:
            self._scratch.cleanup()

    def _prepared(self, index: Path | None) -> Path:
        path = index or default_index(self._root)
        try:
            prepare(path, self._root)
        except ConfigError as error:
            if index is not None:
                raise
            _log.warning("the index is not kept: %s", error.summary)
            self._scratch = tempfile.TemporaryDirectory(prefix="dify-kb-")
            path = Path(self._scratch.name) / "folder.db"
            prepare(path, self._root)
        return path

    def _keep(self) -> None:
        trouble = ""
        while not self._stopped.wait(self._seconds):
            try:
                if self._writer.refresh():
                    self.counts = self._writer.counts()
                    self._frequencies = {}
                trouble = ""
            except (OSError, sqlite3.Error) as error:
                if str(error) != trouble:
                    _log.warning("%s cannot be kept fresh: %s", self._root, error)
                trouble = str(error)

    @contextmanager
    def _reader(self) -> Iterator[Reader]:
        """Lend a reader, that sees one state of the index for as long."""
        reader = self._readers.get()
        try:
            with reader.steady():
                yield reader
        finally:
            self._readers.put(reader)

    def search(self, query: RetrievalRequest) -> list[Record]:
        asked = words_of(query.query)
        known = self._frequencies  # before the reader: of a state no newer than what it sees
        with self._reader() as reader:
            within = None
            if query.metadata_condition is not None:
                files = reader.files()
                within = [row[0] for row in files if query.allows(_metadata(*row))]
            if not asked or within == []:
                return []
            frequencies = {word: _frequency(reader, word, known) for word in asked}
            limit = _CANDIDATES * query.top_k
            hits = reader.index.search(DATASET, rarest(frequencies), limit, within)
            passages = reader.passages([hit.segment_id for hit in hits])
        weights = weights_of(frequencies, self.counts.passages)
        records = [_record(passage, score_of(passage.content, weights)) for passage in passages]
        return sorted(records, key=lambda record: -record.score)[: query.top_k]


def _frequency(reader: Reader, word: str, known: dict[str, int]) -> int:
    found = known.get(word)
    if found is None:
        found = reader.index.frequency(DATASET, word)
        if len(known) < _REMEMBERED:
            known[word] = found
    return found


def default_index(root: Path) -> Path:
    """Name the index of a folder in the user's cache (`XDG_CACHE_HOME`)."""
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        cache = Path(given) if given else Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        cache = Path(os.devnull)
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()
    return cache / "dify-kb" / "folders" / f"{digest[:16]}.db"


def _folder(folder: Path) -> Path:
    try:
        root = folder.resolve(strict=True)
        with closing(os.scandir(root)):
            return root
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be served: {(error.strerror or str(error)).lower()}.",
            hint="Name a folder that you may read.",
        ) from error


def _metadata(path: str, size: int, modified: float) -> dict[str, object]:
    name = path.rpartition("/")[2]
    return {
        "document_id": path,
        "path": path,
        "name": name,
        "extension": name.rpartition(".")[2].lower() if "." in name else "",
        "size": size,
        "modified": round(modified, 3),
    }


def _record(passage: Passage, score: float) -> Record:
    metadata = _metadata(passage.path, passage.size, passage.modified)
    return Record(passage.content, score=round(score, 4), title=passage.path, metadata=metadata)
