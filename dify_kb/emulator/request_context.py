"""The context of a request, the rows that its path names, and the binding of handlers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Generic, Protocol, TypeVar

from aiohttp import web
from attrs import define, field, frozen
from yarl import URL

from dify_kb.models import Event
from dify_kb.wire.endpoint import Endpoint

from .clocks import Clock
from .errors import not_found_error
from .history import Exchange, History
from .server_profile import ServerProfile
from .settings import Settings
from .signed_urls import SignedUrls
from .store import DatasetRow, DocumentRow, SegmentRow, Store

BodyT = TypeVar("BodyT")
ResultT = TypeVar("ResultT")


InvokeModel = Callable[[str], None]
"""Simulates a call of a model by name; raises a `ModelError` if a failure is planned."""


class Enqueue(Protocol):
    """A function that queues a document for indexing."""

    def __call__(self, document_id: str, /, *, hangs: bool = False) -> None:
        """Queue a document; with `hangs` its task occupies the worker forever."""
        ...


@define
class RequestNotes:
    """Data of a request in progress that its models have no field for."""

    document: str | None = None
    """Name of the document to create, for the history."""

    document_id: str | None = None
    """Id of the document that was created or changed, for the history."""

    file_id: str | None = None
    """Id of the new file of that document, for the history."""

    replaced_status: str | None = None
    """Indexing status of a replaced document before the request, for the history."""

    as_of: float | None = None
    """Time of the document list to return, if a stale cache is simulated."""

    committed: bool = False
    """Whether the request was processed, for the history."""

    mime_type: str | None = None
    """Content type of the file, as sent by the client."""

    replaced_document_id: str | None = None
    """Id of the document that a create replaces, whatever its name."""

    rule_only: bool = False
    """Whether an update changes only the process rule, not the text."""

    summary_setting: object = None
    """Settings of the summary index of the dataset to create, unchecked."""

    has_attachments: bool = False
    """Whether a search names attachments."""

    overlooks_name: bool = False
    """Whether the request does not see that a request in flight creates the same name."""

    locked_ids: AbstractSet[str] = frozenset()
    """Ids of the documents whose metadata a request in flight is changing."""

    response_fields: frozenset[str] | None = None
    """The only fields to send in the response; None for all."""

    float_fields: frozenset[str] = frozenset()
    """Times that the response contains with a fraction."""

    events: Sequence[Event] | None = None
    """Events to send as a stream instead of the model."""


@frozen(kw_only=True)
class RequestContext:
    """The parts of the server that handlers use, and the data of one request."""

    store: Store
    settings: Settings
    profile: ServerProfile
    clock: Clock
    enqueue: Enqueue

    url: URL = field(factory=URL)
    """The requested URL, whose origin is used in links to files."""

    signed_urls: SignedUrls
    invoke_model: InvokeModel

    path_parameters: Mapping[str, str] = field(factory=dict)
    path_dataset: DatasetRow | None = None
    notes: RequestNotes = field(factory=RequestNotes)

    @property
    def has_models(self) -> bool:
        """Whether the workspace has the stub models."""
        override = self.settings.models
        return self.profile.has_models if override is None else override

    @property
    def dataset(self) -> DatasetRow:
        """The dataset in the path."""
        if self.path_dataset is None:
            raise LookupError("the path of this endpoint has no dataset id")
        return self.path_dataset


def require_document(context: RequestContext) -> DocumentRow:
    """Return the document of the path."""
    row = context.store.documents.get(context.dataset.id, context.path_parameters["document_id"])
    if row is None:
        raise not_found_error("Document not found.")
    return row


def require_segment(context: RequestContext) -> SegmentRow:
    """Return the segment of the path; up to 1.12 it may belong to another document (measured)."""
    document = require_document(context)
    row = context.store.segments.get(context.path_parameters["segment_id"])
    if row is None or (
        row.document_id != document.id and context.profile.quirks.segment_in_document
    ):
        raise not_found_error("Segment not found.")
    return row


Handler = Callable[[RequestContext, BodyT], ResultT]
BodyReader = Callable[[RequestContext, Any], BodyT]
"""Converts a query, parsed JSON or a form to the request model of an endpoint."""


@frozen
class EndpointHandler(Generic[BodyT, ResultT]):
    """An endpoint with the function that reads its body and the function that handles it."""

    endpoint: Endpoint[BodyT, ResultT]
    reader: BodyReader[BodyT]
    handler: Handler[BodyT, ResultT]

    def __call__(self, context: RequestContext, body: BodyT) -> ResultT:
        """Process a request and return the response model."""
        return self.handler(context, body)


def handles(
    endpoint: Endpoint[BodyT, ResultT], reader: BodyReader[BodyT]
) -> Callable[[Handler[BodyT, ResultT]], EndpointHandler[BodyT, ResultT]]:
    """Return a decorator that binds a handler to an endpoint with the same models."""
    return lambda handler: EndpointHandler(endpoint, reader, handler)


def ignore_body(_context: RequestContext, _raw: object) -> None:
    """Ignore the body of a request: the body reader of endpoints that have no body."""


@define(eq=False)
class ApiCall:
    """A request in progress, with the notes for its history entry."""

    handler: EndpointHandler[Any, Any]
    request: web.Request
    history: History
    clock: Clock
    started: float
    max_body: int
    """Maximum size of the body, in bytes."""

    notes: RequestNotes = field(factory=RequestNotes)
    body: bytes | None = None
    """The body, if it was read already."""

    worker_process: int = 0
    """Number of the simulated process that handles the connection."""

    is_recorded: bool = False

    @property
    def endpoint_name(self) -> str:
        """The name of the endpoint."""
        return self.handler.endpoint.name

    def record(self, status: int) -> None:
        """Add the request to the history, once; status 0 means no response."""
        if self.is_recorded:
            return
        self.is_recorded = True
        notes = self.notes
        self.history.add_exchange(
            Exchange(
                self.endpoint_name,
                status,
                notes.document,
                self.started,
                self.clock.now(),
                self.request.match_info.get("dataset_id", "").lower() or None,
                notes.document_id,
                notes.file_id,
                notes.committed,
                notes.replaced_status,
                _client_address(self.request),
            )
        )


def _client_address(request: web.Request) -> str | None:
    peer = request.protocol.peername
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else None
