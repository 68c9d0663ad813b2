"""Measuring an instance: a base of its own, every part in turn, and nothing left behind."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial

import anyio
from attrs import define, field

from dify_kb.client import AsyncClient
from dify_kb.config import Retry, Timeout
from dify_kb.errors import (
    ConfigError,
    ForbiddenError,
    KnowledgeError,
    NotFoundError,
    QuotaExceededError,
    UnauthorizedError,
)
from dify_kb.models import UNSET, Dataset, ModelRef, ModelType
from dify_kb.transport.clock import loop_time

from .corpus import Sample, page_of, questions_about
from .indexing import Indexing
from .listing import Listing
from .methods import Method, methods
from .numbers import Latency
from .own import models, own_dataset
from .place import place
from .plan import Plan, Search, Technique, Upload
from .report import Indexed, InstanceReport, Listed, Searches, Uploads, Where
from .sweep import Sweep
from .watch import Step, Tally, Tell

ONCE = Retry(reads=1, idempotent=1, writes=1, throttled=1)
"""What is measured is not repeated: every failure is counted."""

PATIENT = Timeout(connect=5.0, read=15.0, answer=30.0)

PINGS = 10

QUERIES = 200

FATAL = (UnauthorizedError, ForbiddenError, QuotaExceededError, ConfigError, NotFoundError)
"""What ends the run, and not only a part of it."""


@define(kw_only=True)
class Instance:
    """Measures the server of an open client, which takes as many requests at once as the plan.

    Bases of its own are made, and deleted whatever happens; only a killed process leaves one.
    """

    client: AsyncClient
    plan: Plan
    samples: Sequence[Sample]
    """Whose indexing is followed, and what is searched."""

    tally: Tally
    """What the client tells its events."""

    tell: Tell
    look: float = 0.5
    """Seconds between looks at documents that are being indexed: how exactly their ends are known,
    at the price of a page of the list each."""

    technique: Technique | None = None
    """None is high quality where the workspace has an embedding model."""

    _uploads: list[Uploads] = field(factory=list, init=False)
    _searches: list[Searches] = field(factory=list, init=False)
    _indexed: Indexed | None = field(default=None, init=False)
    _listed: Sequence[Listed] = field(factory=list, init=False)
    _notes: list[str] = field(factory=list, init=False)
    _error: KnowledgeError | None = field(default=None, init=False)
    """The first that was met, which is told where no upload came through."""

    _documents: int = field(default=0, init=False)
    _began: float = field(default=0.0, init=False)
    _ends: float = field(default=0.0, init=False)

    async def measure(self) -> InstanceReport:
        """Measure everything of the plan, within its time.

        Raises:
            KnowledgeError: the key may not do it, the server is not reached or took no upload at
                all, or what was made could not be deleted.
        """
        self._began = loop_time()
        self._ends = self._began + self.plan.seconds
        where = await self._where()
        embedding, rerank = await self._models()
        technique = "high_quality" if embedding else "economy"
        async with own_dataset(self.client, technique, embedding or UNSET) as dataset:
            await self._part("indexing", partial(self._index, dataset))
            ways = methods(embedding=embedding, rerank=rerank)
            await self._part("retrieval", partial(self._search, dataset, ways))
        # Last, since what it leaves to index would keep everything else waiting; and without
        # embeddings, which cost money and are no part of an upload.
        async with own_dataset(self.client, "economy") as dataset:
            listing = Listing(self._once(), dataset)
            for upload in self.plan.uploads:
                await self._part("upload", partial(self._upload, dataset, upload, listing))
            self._listed = listing.result()
            self._say("cleanup", "deleting what was made")
        if self._error and not any(level.latency for row in self._uploads for level in row.levels):
            raise self._error
        return self._report(where)

    async def _where(self) -> Where:
        self._say("start", "asking the server what it is")
        await self.client.datasets.list(limit=1)
        once, times = self._once(), list[float]()
        for _ in range(PINGS):
            began = time.perf_counter()
            await once.datasets.list(limit=1)
            times.append(time.perf_counter() - began)
        return place(self.client, Latency.of(times))

    async def _models(self) -> tuple[ModelRef | None, ModelRef | None]:
        if self.technique == "economy":
            return None, None
        embeddings = await models(self.client, ModelType.TEXT_EMBEDDING)
        if not embeddings:
            if self.technique == "high_quality":
                raise ConfigError(
                    "The workspace has no embedding model, which a high-quality base needs.",
                    hint="Add one in the console, or measure an economy base.",
                )
            return None, None
        reranks = await models(self.client, ModelType.RERANK)
        return embeddings[0], next(iter(reranks), None)

    async def _part(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do one part; trouble that is no refusal of the whole ends that part only."""
        try:
            with anyio.CancelScope(deadline=self._ends) as scope:
                await work()
        except FATAL:
            raise
        except KnowledgeError as error:
            self._notes.append(f"{name}: {error.summary}")
            self._error = self._error or error
            return
        if scope.cancelled_caught:
            self._notes.append(f"{name}: the time of the run was over.")

    async def _index(self, dataset: Dataset) -> None:
        indexing = Indexing(
            client=self._once(),
            dataset=dataset,
            samples=self.samples,
            limit=self.plan.indexing,
            look=self.look,
            tell=lambda ended: self._say("indexing", f"{ended} of {len(self.samples)} documents"),
        )
        self._say("indexing", f"uploading {len(self.samples)} documents")
        try:
            await indexing.run()
        finally:
            self._indexed = indexing.result()
            self._documents += self._indexed.documents
        if self._indexed.unfinished:
            self._notes.append(
                f"indexing: {self._indexed.unfinished} of {self._indexed.documents} documents were"
                f" not at their end after {self.plan.indexing:g} s."
            )

    async def _search(self, dataset: Dataset, ways: Mapping[str, Method]) -> None:
        plan = self.plan.search
        queries = itertools.cycle(questions_about(self.samples, QUERIES))
        for name, method in ways.items():
            for top_k in plan.top_k:
                await self._search_by(dataset, name, method, top_k, queries, plan)

    async def _search_by(
        self,
        dataset: Dataset,
        name: str,
        method: Method,
        top_k: int,
        queries: itertools.cycle[str],
        plan: Search,
    ) -> None:
        model, once = method(top_k), self._once()
        sweep = Sweep(
            lambda: once.datasets.retrieve(dataset, next(queries), retrieval_model=model),
            plan.at_once,
            plan.rounds,
            plan.seconds,
            plan.most,
            lambda number: self._say("retrieval", f"{name}, top {top_k}, {number} at once"),
        )
        try:
            await sweep.run()
        finally:
            if levels := sweep.levels():
                self._searches.append(
                    Searches(method=name, top_k=top_k, levels=levels, knee=sweep.knee())
                )

    async def _upload(self, dataset: Dataset, upload: Upload, listing: Listing) -> None:
        data, once = page_of(upload.size), self._once()

        async def create() -> None:
            self._documents += 1
            name = f"{upload.size}-{self._documents:06}.html"
            await once.documents.create_by_file(dataset, data, name=name)
            stored.append(name)

        async def look() -> None:
            await listing.look(len(stored))

        stored: list[str] = []
        sweep = Sweep(
            create,
            upload.at_once,
            upload.rounds,
            upload.seconds,
            upload.most,
            lambda number: self._say("upload", f"{upload.size:,} bytes, {number} at once"),
            look if upload.size == min(one.size for one in self.plan.uploads) else None,
        )
        try:
            await sweep.run()
        finally:
            self._error = self._error or sweep.error()
            if levels := sweep.levels():
                self._uploads.append(Uploads(size=upload.size, levels=levels, knee=sweep.knee()))

    def _once(self) -> AsyncClient:
        return self.client.with_options(timeout=PATIENT, retry=ONCE)

    def _say(self, phase: str, what: str) -> None:
        part = (loop_time() - self._began) / self.plan.seconds
        self.tell(Step(phase=phase, what=what, part=min(1.0, part)))

    def _report(self, where: Where) -> InstanceReport:
        return InstanceReport(
            where=where,
            plan=self.plan.name,
            load=self.plan.load(),
            uploads=sorted(self._uploads, key=lambda row: row.size),
            indexed=self._indexed,
            searches=self._searches,
            listed=self._listed,
            troubles=self.tally.troubles(),
            notes=self._notes,
            requests=self.tally.requests,
            documents=self._documents,
            seconds=loop_time() - self._began,
        )
