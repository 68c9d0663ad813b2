"""Measure from outside the server settings that hold a load back, in temporary datasets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

import anyio
from attrs import define, field, frozen

from dify_kb.client import AsyncClient
from dify_kb.config import MAX_FILE_SIZE, Retry
from dify_kb.errors import (
    ApiError,
    BadRequestError,
    KnowledgeError,
    RateLimitedError,
    ServerError,
    TooLargeError,
)
from dify_kb.models import UNSET, IndexingStatus, ModelRef, ProcessRule, RetrievalModel, Unset
from dify_kb.transport.clock import loop_time

from .temporary_dataset import temporary_dataset

if TYPE_CHECKING:
    from dify_kb.models import Dataset, Document

TRIAL_DOCUMENTS = 8
"""Documents that are indexed to measure the worker."""

TRIAL_CHUNKS = 40
"""Chunks of each of them: about a second of work, so that polls see which are indexed at once."""

CONNECTIONS_TRIED = 32
"""Concurrent requests of the connection check; a default server has 10 connections."""

DEFAULT_WORKERS = 4
"""CELERY_WORKER_AMOUNT since 1.13 (docker/.env.example, 1.13.3); 1 up to 1.12."""

QUEUED_POLLS = 3
"""Polls that must see a queue before the number of documents beside each other is a limit."""

MIN_POLL_INTERVAL = 0.1
MAX_INDEXING_TIME = 120.0
"""Seconds for which the trial documents are followed."""

SILENCE = 0.75
"""Seconds without a response after which the remaining requests wait for a connection."""

TICK = 0.05
"""Seconds between two looks at the responses; a pause of this machine is not silence."""

SIZE_STEP = 256 * 1024
"""Resolution of the search for the body limit, in bytes."""

QUOTA_PAUSE = 61.0
"""Seconds of silence after which a subscription accepts requests again: its window is a minute and
includes refused requests (measured)."""

WORKER_LIMITS = ("CELERY_WORKER_AMOUNT",)
FILE_LIMITS = ("UPLOAD_FILE_SIZE_LIMIT", "NGINX_CLIENT_MAX_BODY_SIZE", "client_max_body_size")
CONNECTION_LIMITS = ("SERVER_WORKER_AMOUNT", "SERVER_WORKER_CONNECTIONS")


@frozen
class SettingCheck:
    """The result of a check, with the names of the settings that it depends on."""

    check: str
    status: Literal["ok", "warning", "failed"]
    detail: str
    remedy: str = ""
    settings: Sequence[str] = ()


@define(kw_only=True)
class SettingsTrial:
    """The measurements of `doctor --trial`: eight documents, files of 15 MiB, 32 connections.

    `client` must allow `CONNECTIONS_TRIED` concurrent requests.
    """

    client: AsyncClient
    report: Callable[[SettingCheck], None]
    embedding: ModelRef | None = None
    rerank: ModelRef | None = None
    patience: float = 60.0
    """Seconds without indexing progress after which the worker counts as halted."""

    quota_pause: float = QUOTA_PAUSE
    _once: AsyncClient = field(init=False)
    """A client that reports refusals because of the number of requests instead of retrying."""

    def __attrs_post_init__(self) -> None:
        self._once = self.client.with_options(retry=Retry(write_attempts=1, throttled_attempts=1))

    async def run(self) -> None:
        """Run all measurements, and report the result of each; end at a limit of requests.

        Costs about 120 requests, of which 20 create or delete something.

        Raises:
            KnowledgeError: the server refused the trial, or a temporary dataset could not be
                deleted.
        """
        try:
            async with self._open_dataset("economy") as dataset:
                self.report(await self._check_worker(dataset))
                self.report(await self._check_file_size(dataset))
                self.report(await self._check_file_types(dataset))
            if self.embedding is not None:
                await self._check_models(self.embedding)
            self.report(await self._check_connections())
        except ApiError as error:
            if not _is_throttled(error):
                raise

    @asynccontextmanager
    async def _open_dataset(
        self, technique: str, embedding: ModelRef | Unset = UNSET
    ) -> AsyncIterator[Dataset]:
        """Create a temporary dataset; wait before its deletion if requests were refused."""
        async with temporary_dataset(self.client, technique, embedding) as dataset:
            try:
                yield dataset
            except RateLimitedError:
                await anyio.sleep(self.quota_pause)
                raise

    async def _check_worker(self, dataset: Dataset) -> SettingCheck:
        """Index documents, and count how many are indexed beside each other."""
        text = "\n\n".join(f"Trial sentence {number}. " * 2 for number in range(TRIAL_CHUNKS))
        rule = ProcessRule.custom(max_tokens=50, separator="\n\n", chunk_overlap=0)
        started = loop_time()
        errors: list[KnowledgeError] = []
        async with anyio.create_task_group() as group:

            async def create(number: int) -> None:
                try:
                    await self._once.documents.create_by_text(
                        dataset, f"trial-{number}.txt", text, process_rule=rule
                    )
                except KnowledgeError as error:
                    errors.append(error)

            for number in range(TRIAL_DOCUMENTS):
                group.start_soon(create, number)
        for error in errors:
            raise error
        watch = WorkerWatch(started=started, patience=self.patience)
        while True:
            page = await self._once.documents.list(dataset, limit=100)
            if watch.record(page.data, loop_time()):
                return watch.summarize()
            elapsed = loop_time() - started
            await anyio.sleep(max(MIN_POLL_INTERVAL, elapsed / 20))

    async def _check_models(self, embedding: ModelRef) -> None:
        """Embed a document of one sentence, and rerank it."""
        try:
            async with self._open_dataset("high_quality", embedding) as dataset:
                created = await self._once.documents.create_by_text(
                    dataset, "trial.txt", "A trial sentence.", process_rule=ProcessRule.automatic()
                )
                (row,) = await self.client.documents.wait(
                    dataset, [created], stall_after=self.patience
                )
                is_indexed = row.indexing_status is IndexingStatus.COMPLETED
                problem = "" if is_indexed else row.error or "its document was not indexed"
                self.report(_check_model("embedding", embedding, problem))
                if is_indexed and self.rerank is not None:
                    self.report(await self._check_rerank(dataset, self.rerank))
        except (BadRequestError, ServerError) as error:
            self.report(_check_model("embedding", embedding, error.message))

    async def _check_rerank(self, dataset: Dataset, rerank: ModelRef) -> SettingCheck:
        model = RetrievalModel.semantic(rerank=rerank)
        try:
            await self._once.datasets.retrieve(dataset, "trial", retrieval_model=model)
        except (BadRequestError, ServerError) as error:
            return _check_model("reranking", rerank, error.message)
        return _check_model("reranking", rerank, "")

    async def _check_file_size(self, dataset: Dataset) -> SettingCheck:
        """Send a file of 15 MiB; if it is refused, search for the largest that is not."""
        refusal = await self._send_file(dataset, MAX_FILE_SIZE)
        if refusal is None:
            detail = f"a file of {format_size(MAX_FILE_SIZE)} is accepted"
            return SettingCheck("file size", "ok", detail, settings=FILE_LIMITS)
        accepted, refused = 0, MAX_FILE_SIZE
        while refused - accepted > SIZE_STEP:
            size = accepted + (refused - accepted) // SIZE_STEP // 2 * SIZE_STEP
            if await self._send_file(dataset, size) == refusal:
                refused = size
            else:
                accepted = size
        limit = format_size(accepted)
        if refusal == "proxy":
            return SettingCheck(
                "file size",
                "warning",
                f"a proxy refuses bodies of more than {limit} (413)",
                "Raise client_max_body_size of nginx (NGINX_CLIENT_MAX_BODY_SIZE in Dify's .env,"
                " default 100M) above UPLOAD_FILE_SIZE_LIMIT.",
                ("NGINX_CLIENT_MAX_BODY_SIZE", "client_max_body_size"),
            )
        return SettingCheck(
            "file size",
            "warning",
            f"Dify refuses files of more than {limit}",
            "Raise UPLOAD_FILE_SIZE_LIMIT (whole MB, default 15), or load with --max-file-size.",
            ("UPLOAD_FILE_SIZE_LIMIT",),
        )

    async def _send_file(self, dataset: Dataset, size: int) -> Literal["proxy", "dify"] | None:
        """Send a file that no parser reads, so that its indexing ends at once; return who refused.

        Each has its own name: the file of a replaced document would stay on the server (measured).
        """
        try:
            await self._once.documents.create_by_file(
                dataset,
                bytes(size),
                name=f"trial-{size}.pdf",
                process_rule=ProcessRule.automatic(),
            )
        except TooLargeError:
            return "proxy"
        except BadRequestError as error:
            if error.message:
                raise
            return "dify"  # without a message (measured)
        return None

    async def _check_file_types(self, dataset: Dataset) -> SettingCheck:
        try:
            await self._once.documents.create_by_file(
                dataset, b"<a>Trial</a>", name="trial.xml", process_rule=ProcessRule.automatic()
            )
        except BadRequestError:
            detail = (
                "extraction by Dify; doc, eml, epub, msg, pptx and xml need ETL_TYPE=Unstructured"
            )
        else:
            detail = "extraction by Unstructured, with doc, eml, epub, msg, pptx and xml"
        return SettingCheck("file types", "ok", detail, settings=("ETL_TYPE",))

    async def _check_connections(self) -> SettingCheck:
        """Send requests at once; those beyond the limit wait until idle connections close."""
        # A pause of this machine looks like a limit, but does not happen twice in a row.
        limits = [await self._find_connection_limit() for _ in range(2)]
        if None in limits:
            detail = f"at least {CONNECTIONS_TRIED} at once"
            return SettingCheck("connections", "ok", detail, settings=CONNECTION_LIMITS)
        limit = max(limit or 0 for limit in limits)
        return SettingCheck(
            "connections",
            "warning",
            f"{limit} at once; further ones wait until an idle one closes",
            f"Use at most {limit} connections in all programs together, or raise"
            " SERVER_WORKER_AMOUNT (API processes, default 1) or SERVER_WORKER_CONNECTIONS"
            " (connections of each, default 10).",
            CONNECTION_LIMITS,
        )

    async def _find_connection_limit(self) -> int | None:
        """Return how many concurrent requests are answered before a long silence; None for all.

        A busy process answers steadily. A server without free connections is silent until it closes
        idle ones, after 2 to 5 s (measured).
        """
        answered = failed = 0
        started = last_answer = loop_time()

        async def request() -> None:
            nonlocal answered, failed, last_answer
            try:
                await self._once.datasets.list(limit=1)
            except KnowledgeError as error:
                failed += not isinstance(error, ApiError)
            answered, last_answer = answered + 1, loop_time()

        async with anyio.create_task_group() as group:
            for _ in range(CONNECTIONS_TRIED):
                group.start_soon(request)
            silent_ticks = 0
            while answered < CONNECTIONS_TRIED:
                before = answered
                await anyio.sleep(TICK)
                silent_ticks = silent_ticks + 1 if answered == before else 0
                usual = (last_answer - started) / max(answered, 1)
                if answered and silent_ticks * TICK >= max(SILENCE, 10 * usual):
                    group.cancel_scope.cancel()
                    return answered
        return CONNECTIONS_TRIED - failed if failed else None


@define(kw_only=True)
class WorkerWatch:
    """The observations of the worker by polls of the trial documents."""

    started: float
    patience: float
    _polls_with_queue: int = 0
    _at_once: int = 0
    _ended: int = 0
    _last_progress: float = field(init=False)
    _states: Sequence[str] = ()
    _errors: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._last_progress = self.started

    def record(self, rows: Sequence[Document], now: float) -> bool:
        """Record one poll; return whether no further poll is needed."""
        running = [
            row
            for row in rows
            if not row.indexing_status.is_final
            and row.indexing_status is not IndexingStatus.WAITING
        ]
        waiting = sum(row.indexing_status is IndexingStatus.WAITING for row in rows)
        self._polls_with_queue += bool(running and waiting)
        self._at_once = max(self._at_once, len(running))
        self._ended = sum(row.indexing_status.is_final for row in rows)
        self._errors = [row.error or "no reason given" for row in rows if row.error]
        states = [f"{row.id}{row.indexing_status}" for row in rows]
        if states != self._states:
            self._states, self._last_progress = states, now
        return (
            self._ended == len(rows)
            or now - self._last_progress >= self.patience
            or now - self.started >= MAX_INDEXING_TIME
        )

    def summarize(self) -> SettingCheck:
        """Return the finding about the worker."""
        if self._errors:
            return SettingCheck(
                "worker",
                "failed",
                f"{len(self._errors)} of {TRIAL_DOCUMENTS} documents were not indexed:"
                f" {self._errors[0]}",
                "See the log of the Celery worker.",
            )
        if not self._ended:
            seconds = self._last_progress - self.started + self.patience
            return SettingCheck(
                "worker",
                "failed",
                f"none of {TRIAL_DOCUMENTS} documents was indexed within {seconds:.0f} s",
                "Check that the Celery worker runs, that its -Q lists the queues dataset and"
                " priority_dataset, and that no other load keeps it busy.",
                ("celery worker -Q",),
            )
        minutes = max(self._last_progress - self.started, 1e-3) / 60
        pace = f"{self._ended / minutes:,.0f} documents of {TRIAL_CHUNKS} chunks per minute"
        if self._polls_with_queue < QUEUED_POLLS:
            detail = f"no queue of documents formed; {pace}"
            return SettingCheck("worker", "ok", detail, settings=WORKER_LIMITS)
        detail = f"{self._at_once} document{'s' * (self._at_once > 1)} indexed at a time; {pace}"
        if self._at_once >= DEFAULT_WORKERS:
            return SettingCheck("worker", "ok", detail, settings=WORKER_LIMITS)
        return SettingCheck(
            "worker",
            "warning",
            detail,
            f"Raise CELERY_WORKER_AMOUNT of the worker (default {DEFAULT_WORKERS} since Dify 1.13,"
            " before that 1), while the machine has idle processors and the model allows it.",
            WORKER_LIMITS,
        )


def format_size(size: int) -> str:
    """Return a size in MiB."""
    return f"{size / 2**20:g} MiB"


def _is_throttled(error: ApiError) -> bool:
    return isinstance(error, RateLimitedError) or error.status in {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }


def _check_model(kind: str, model: ModelRef, problem: str) -> SettingCheck:
    name = f"{model.provider}:{model.model}"
    if not problem:
        return SettingCheck(kind, "ok", f"{name} works")
    return SettingCheck(
        kind,
        "failed",
        f"{name} fails: {problem}",
        "Check the credentials and limits of the provider in the Dify console under Settings, and"
        " that the plugin daemon runs (PLUGIN_DAEMON_URL).",
        ("PLUGIN_DAEMON_URL",),
    )
