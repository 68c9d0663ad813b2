"""A Dify in virtual time behind the real `Sender`, and a load from it without threads.

All parts between the options of `load()` and the socket are real: sender, retries, admission,
circuit breaker, file lifecycle, reconciler, watcher, SQLite journal. Only the session responds from
memory, and work that usually runs in threads runs in the event loop.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from random import Random
from typing import Any, Literal
from unittest import mock
from urllib.parse import unquote

import anyio
from attrs import Factory, define, evolve, field
from virtual_time import run as run_in_virtual_time

from dify_kb import Item, LoadReport, Policy
from dify_kb.errors import ConnectError, RequestTimeoutError, TransportError
from dify_kb.ingest import LoadOptions
from dify_kb.ingest.engine import uploader
from dify_kb.ingest.engine.ledger import AttemptCounter
from dify_kb.ingest.engine.run import LoadRun
from dify_kb.ingest.journal import Journal, journal_database
from dify_kb.ingest.journal.group_commit import CommitBatch
from dify_kb.ingest.load_options import ServerAccess
from dify_kb.ingest.pacing.admission import Admission
from dify_kb.ingest.pacing.circuit_breaker import CircuitBreaker
from dify_kb.ingest.planning import planner
from dify_kb.ingest.sources import source_reader
from dify_kb.ingest.sources.source_reader import create_source_reader
from dify_kb.models import Dataset
from dify_kb.resources import Datasets, Documents
from dify_kb.resources.metadata_assignment import MetadataAssignment
from dify_kb.transport import AttemptEvent, RequestLimiter, Sender, upload_body
from dify_kb.wire import catalog
from dify_kb.wire.decode_response import Response

DATASET = "00000000-0000-4000-8000-000000000000"
VERSION = {"content-type": "application/json", "x-version": "1.14.2"}
HTML = {"content-type": "text/html"}

Mode = Literal[
    "ok", "500", "502", "503", "429", "quota", "reset", "lost", "refused", "hang", "hang-lost",
    "400", "401", "404", "403-html", "redirect", "login-page", "busy",
]  # fmt: skip
"""Behaviour of a call: `lost` and `hang-lost` are carried out, but their response is lost."""

TRANSPORT_ERRORS: Mapping[Mode, type[TransportError]] = {
    "reset": TransportError,
    "lost": TransportError,
    "refused": ConnectError,
    "hang": RequestTimeoutError,
    "hang-lost": RequestTimeoutError,
}


def refusal(status: int, message: str) -> Response:
    """Return a refusal in the format of the API."""
    body = {"code": "planned", "message": message, "status": status}
    return Response(status, VERSION, json.dumps(body).encode(), 0.05)


RESPONSES: Mapping[Mode, Response] = {
    "500": refusal(500, "planned"),
    "502": refusal(502, "planned"),
    "503": refusal(503, "planned"),
    "429": refusal(429, "planned"),
    "400": refusal(400, "planned"),
    "401": refusal(401, "planned"),
    "404": refusal(404, "planned"),
    "busy": refusal(400, "The document is being indexed, please wait."),
    "quota": refusal(403, "request rate limit"),
    "403-html": Response(403, HTML, b"<html><title>Blocked</title></html>", 0.05),
    "redirect": Response(302, {**HTML, "location": "/signin"}, b"", 0.05),
    "login-page": Response(200, HTML, b"<html><title>Sign in</title></html>", 0.05),
}

FaultSchedule = Callable[[float, str], Mode]
"""Function from time and endpoint to the behaviour of a call."""

CREATE = catalog.CREATE_DOCUMENT_BY_FILE.name
LIST = catalog.LIST_DOCUMENTS.name
STATUS = catalog.GET_INDEXING_STATUS.name
PROBE = catalog.GET_DATASET.name


@define
class VirtualDocument:
    """A document of the server; each create with its name starts an indexing run."""

    id: str
    name: str
    size: int
    batch: str
    file_id: str
    queued_at: float
    runs: int = 1
    overlapped: bool = False
    fails: bool = False


@define
class VirtualDify:
    """A server with documents, each of which is indexed `indexing` seconds after its create."""

    fault_schedule: FaultSchedule
    indexing: float = 1.0
    latency: float = 0.05
    jitter: Callable[[], float] = lambda: 1.0
    """Returns the factor of the next latency. Requests of equal latency end in lockstep, which
    limits of concurrency take for an idle client."""

    documents: list[VirtualDocument] = field(factory=list)
    creates: Counter[str] = field(factory=Counter)
    calls: list[tuple[float, str, str]] = field(factory=list)
    dead_worker: Callable[[float], bool] = field(default=lambda _: False)
    blocked: str = ""
    """The name of a file whose body a proxy rejects."""

    blocked_by: Mode = "403-html"

    def status_of(self, document: VirtualDocument) -> str:
        """Return the current indexing status of a document."""
        if self.dead_worker(anyio.current_time()):
            return "waiting"
        age = anyio.current_time() - document.queued_at
        if age < self.indexing / 2:
            return "waiting"
        if age < self.indexing:
            return "indexing"
        return "error" if document.fails else "completed"

    async def attempt(
        self, call: Any, _body: object, allowed: Any, _version: str | None = None
    ) -> Response:
        """Return the response to a request, as `Session.attempt` does."""
        now, name = anyio.current_time(), call.endpoint.name
        mode = self.fault_schedule(now, name)
        if self.blocked and name == CREATE and call.body.file.name == self.blocked:
            mode = self.blocked_by
        self.calls.append((now, name, mode))
        latency = self.latency * self.jitter()
        await anyio.sleep(latency)
        if mode in {"lost", "hang-lost"}:
            self._content(call)
        if mode in {"hang", "hang-lost"}:
            await anyio.sleep(allowed.read if call.endpoint.method == "GET" else allowed.answer)
        if mode in TRANSPORT_ERRORS:
            raise TRANSPORT_ERRORS[mode](
                f"{name}: {mode}", endpoint=name, delivered=mode != "refused"
            )
        if mode in RESPONSES:
            return RESPONSES[mode]
        content = self._content(call)
        if content is None:
            return refusal(404, "none")
        return Response(200, VERSION, json.dumps(content).encode(), latency)

    def _content(self, call: Any) -> object:
        match call.endpoint.name:
            case catalog.GET_DATASET.name:
                return self._dataset()
            case catalog.LIST_DATASETS.name:
                return {
                    "data": [self._dataset()],
                    "has_more": False,
                    "limit": 100,
                    "total": 1,
                    "page": 1,
                }
            case catalog.CREATE_DOCUMENT_BY_FILE.name:
                return self._create(call.body)
            case catalog.LIST_DOCUMENTS.name:
                return self._list(call.body)
            case catalog.GET_INDEXING_STATUS.name:
                return self._batch(unquote(call.path).split("/")[-2])
            case catalog.DELETE_DOCUMENT.name:
                document_id = unquote(call.path).split("/")[-1]
                self.documents = [row for row in self.documents if row.id != document_id]
                return {}
        raise NotImplementedError(call.endpoint.name)

    def _create(self, body: Any) -> object:
        name = body.file.name
        self.creates[name] += 1
        number = sum(self.creates.values())
        now = anyio.current_time()
        document = next((row for row in self.documents if row.name == name), None)
        if document is None:
            document = VirtualDocument(
                id=f"00000000-0000-4000-8000-{number:012}",
                name=name,
                size=body.file.size,
                batch=f"batch{number}",
                file_id=f"file{number}",
                queued_at=now,
            )
            self.documents.append(document)
        else:
            document.overlapped |= self.status_of(document) not in {"completed", "error"}
            document.runs += 1
            document.batch, document.file_id = f"batch{number}", f"file{number}"
            document.queued_at, document.size = now, body.file.size
        return {"document": self._row(document), "batch": document.batch}

    def _list(self, body: Any) -> object:
        keyword = str(body.keyword or "").replace("\\", "")
        rows = [row for row in reversed(self.documents) if keyword in row.name]
        if body.status == "queuing":
            rows = [row for row in rows if self.status_of(row) == "waiting"]
        size, page = int(body.limit), int(body.page)
        data = [self._row(row) for row in rows[(page - 1) * size : page * size]]
        return {
            "data": data, "has_more": len(data) == size, "limit": size, "total": len(rows),
            "page": page,
        }  # fmt: skip

    def _batch(self, batch: str) -> object:
        document = next((row for row in self.documents if row.batch == batch), None)
        if document is None:
            return None
        status = self.status_of(document)
        done = 3 if status == "completed" else 0
        entry = {
            "id": document.id,
            "indexing_status": status,
            "error": "bad" if document.fails else None,
        }
        return {"data": [{**entry, "completed_segments": done, "total_segments": 3}]}

    def _row(self, document: VirtualDocument) -> Mapping[str, object]:
        status = self.status_of(document)
        stored = {"id": document.file_id, "size": document.size, "name": document.name}
        return {
            "id": document.id, "name": document.name, "position": 1,
            "data_source_type": "upload_file",
            "data_source_info": {"upload_file_id": document.file_id},
            "data_source_detail_dict": {"upload_file": stored},
            "dataset_process_rule_id": None, "created_from": "api", "created_by": "somebody",
            "created_at": 1_795_000_000 + int(document.queued_at), "tokens": 0,
            "indexing_status": status, "error": "bad" if status == "error" else None,
            "enabled": True, "disabled_at": None, "disabled_by": None, "archived": False,
            "display_status": "available" if status == "completed" else "indexing",
            "word_count": 7, "hit_count": 0, "doc_form": "text_model", "doc_metadata": None,
        }  # fmt: skip

    def _dataset(self) -> Mapping[str, object]:
        done = sum(self.status_of(row) == "completed" for row in self.documents)
        return {
            "id": DATASET, "name": "D", "description": None, "provider": "vendor",
            "permission": "only_me", "data_source_type": None, "indexing_technique": "economy",
            "app_count": 0, "document_count": len(self.documents), "word_count": 7 * done,
            "created_by": "somebody", "created_at": 1_795_000_000, "updated_by": None,
            "updated_at": 1_795_000_000, "embedding_model": None, "embedding_model_provider": None,
            "embedding_available": None, "retrieval_model_dict": None, "tags": [],
            "doc_form": "text_model", "external_knowledge_info": None,
            "external_retrieval_model": None, "doc_metadata": None,
            "built_in_field_enabled": False, "total_available_documents": done,
        }  # fmt: skip


@define
class InlineWriter:
    """A journal writer that executes statements immediately in the event loop."""

    connection: sqlite3.Connection
    connection_lock: threading.Lock = field(factory=threading.Lock)
    error: Exception | None = None
    closing: bool = False

    def add(self, statement: Any, values: Any, **_: object) -> tuple[CommitBatch, int]:
        """Execute a statement as `Writer` does; return a batch that is done."""
        batch = CommitBatch()
        batch.done.set()
        row: Any = values() if callable(values) else values
        sql = statement if isinstance(statement, str) else statement(1)
        self.connection.execute(sql, row)
        return batch, 0

    def start(self) -> None:
        """Do nothing; there is no thread."""

    def close(self) -> None:
        """Do nothing; there is no thread."""


async def _run_inline(work: Callable[..., Any], *args: object, **_: object) -> Any:
    await anyio.lowlevel.checkpoint()
    return work(*args)


@contextmanager
def without_threads() -> Iterator[None]:
    """Run work in the event loop that usually runs in threads.

    While a real thread works, timers of the virtual clock expire: hours may pass.
    """
    with ExitStack() as stack:
        for module, name in (
            (anyio.to_thread, "run_sync"),
            (planner, "run_in_thread"),
            (source_reader, "run_in_thread"),
            (uploader, "run_in_batch"),
            (uploader, "run_in_thread"),
            (upload_body, "run_in_batch"),
            (upload_body, "run_in_thread"),
        ):
            stack.enter_context(mock.patch.object(module, name, _run_inline))
        stack.enter_context(mock.patch.object(threading.Thread, "start", _refuse_thread))
        yield


def _refuse_thread(thread: threading.Thread) -> None:
    raise AssertionError(f"{thread.name} would start during virtual time")


@define
class VirtualLoad:
    """A load of `files` items into a virtual Dify; a second load continues with its journal."""

    server: VirtualDify
    files: int = 60
    rest: float = 0.0
    """Seconds that the source takes for each file except the first."""

    policy: Policy = field(factory=Policy)
    seed: int = 1
    options: Mapping[str, Any] = field(factory=dict)
    connection: Any = Factory(lambda: journal_database.connect_journal(None))
    run: LoadRun | None = None

    def __call__(self, limit: float = 20_000) -> LoadReport:
        """Load until all files have ended, for at most `limit` virtual seconds."""
        with without_threads():
            return run_in_virtual_time(lambda: self.load(limit))

    async def load(self, limit: float) -> LoadReport:
        """Load within a running event loop."""
        requests, random = AttemptCounter(), Random(self.seed)
        limiter = RequestLimiter(8)
        policy = self.policy
        retry = policy.retry
        sender = Sender(self.server, limiter, policy, random=random)  # type: ignore[arg-type]
        admission: Admission

        def observe(attempt: AttemptEvent) -> None:
            requests.count(attempt)
            admission.record(attempt)

        observed_sender = evolve(sender, on_attempt=observe)
        single_attempt_sender = evolve(
            observed_sender,
            policy=evolve(
                policy, retry=evolve(retry, read_attempts=1, write_attempts=1, throttled_attempts=1)
            ),
        )
        breaker = CircuitBreaker(
            Datasets(single_attempt_sender), DATASET, policy.load_timing, random
        )
        admission = Admission(None, None, limiter, breaker, anyio.current_time, random)
        server = ServerAccess(
            identity=None, datasets=Datasets(observed_sender),
            documents=Documents(observed_sender), uploads=Documents(single_attempt_sender),
            admission=admission, breaker=breaker, policy=policy,
        )  # fmt: skip
        options = LoadOptions(**self.options)
        journal = Journal(InlineWriter(self.connection), None)  # type: ignore[arg-type]
        await journal.begin_run({"server": "", "dataset": DATASET})
        self.run = LoadRun(
            server=server,
            dataset=await self._dataset(),
            source=await create_source_reader(self._items()),
            journal=journal,
            options=options,
            assignment=MetadataAssignment(observed_sender, DATASET),
            requests=requests,
        )
        with anyio.fail_after(limit):
            await self.run.execute()
        return self.run.ledger.report(anyio.current_time())

    async def _items(self) -> AsyncIterator[Item]:
        """Yield the files; an async source needs no thread."""
        for number in range(self.files):
            if number and self.rest:
                await anyio.sleep(self.rest)
            yield Item(f"{number:03}.txt", text=f"text {number}")

    async def _dataset(self) -> Dataset:
        """Fetch the dataset without faults."""
        sender = Sender(without_faults(self.server), RequestLimiter(1), self.policy)  # type: ignore[arg-type]
        return await Datasets(sender).get(DATASET)


def without_faults(server: VirtualDify) -> VirtualDify:
    """Return the same server without faults."""
    return VirtualDify(
        lambda *_: "ok",
        indexing=server.indexing,
        latency=server.latency,
        documents=server.documents,
        creates=server.creates,
    )


def phases(*schedule: tuple[float, Mapping[str, Sequence[Mode]]], seed: int = 1) -> FaultSchedule:
    """Return a fault schedule of phases: until a time, random modes by endpoint ("" is any)."""
    random = Random(seed)

    def fault_schedule(now: float, endpoint: str) -> Mode:
        for until, modes in schedule:
            if now < until:
                choices = modes.get(endpoint, modes.get("", ("ok",)))
                return random.choice(choices)
        return "ok"

    return fault_schedule
