"""What a handler is given, and how it is bound to its endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from aiohttp import web
from attrs import define, field, frozen
from yarl import URL

from dify_kb.models import Event
from dify_kb.wire.endpoint import Endpoint

from .clocks import Clock
from .history import Exchange, History
from .server_profile import ServerProfile
from .settings import Settings
from .signed_urls import SignedUrls
from .store import DatasetRow, Store

BodyT = TypeVar("BodyT")
ResultT = TypeVar("ResultT")


InvokeModel = Callable[[str], None]
"""Calls a model by its name; raises a `ModelError` where that is planned to fail."""


class Enqueue(Protocol):
    """Has the indexer index a document."""

    def __call__(self, document_id: str, /, *, hangs: bool = False) -> None:
        """Queue a document; one that hangs keeps its worker for ever."""
        ...


@define
class RequestNotes:
    """What models have no field for, noted while a request is answered."""

    document: str | None = None
    """The name of the document that is to be created, for the history."""

    document_id: str | None = None
    """The id of the document that was created or changed, for the history."""

    file_id: str | None = None
    """The id of the file that it was given, for the history."""

    replaced_status: str | None = None
    """The indexing status of the document that was replaced, for the history."""

    as_of: float | None = None
    """The time that the list of documents is shown as of, by a cache in front."""

    committed: bool = False
    """Whether the call was carried out, for the history."""

    mime_type: str | None = None
    """What the client calls its file."""

    replaced_document_id: str | None = None
    """The id of the document that a create is to replace, whatever its name."""

    rule_only: bool = False
    """Whether an update brings a process rule and leaves the text."""

    response_fields: frozenset[str] | None = None
    """The fields that the answer is cut down to."""

    float_fields: frozenset[str] = frozenset()
    """The times of the answer that are written with a fraction."""

    events: Sequence[Event] | None = None
    """What is answered as a stream of events, and not as the model."""


@frozen(kw_only=True)
class RequestContext:
    """The server, and what the path and the headers of one request say."""

    store: Store
    settings: Settings
    profile: ServerProfile
    clock: Clock
    enqueue: Enqueue

    url: URL = field(factory=URL)
    """What was asked for, and so where the server is reached, for links to it."""

    signed_urls: SignedUrls
    """Makes links to files."""

    invoke_model: InvokeModel
    """Calls a model."""

    path_parameters: Mapping[str, str] = field(factory=dict)
    path_dataset: DatasetRow | None = None
    notes: RequestNotes = field(factory=RequestNotes)

    @property
    def has_models(self) -> bool:
        """Whether the workspace has models."""
        override = self.settings.models
        return self.profile.has_models if override is None else override

    @property
    def dataset(self) -> DatasetRow:
        """The dataset that the path names."""
        if self.path_dataset is None:
            raise LookupError("the path of this endpoint names no dataset")
        return self.path_dataset


Handler = Callable[[RequestContext, BodyT], ResultT]
BodyReader = Callable[[RequestContext, Any], BodyT]
"""Makes the model of a call from what came: a query, parsed JSON, or a form."""


@frozen
class EndpointHandler(Generic[BodyT, ResultT]):
    """An endpoint, how its body is read, and who answers it. Called, it answers."""

    endpoint: Endpoint[BodyT, ResultT]
    reader: BodyReader[BodyT]
    handler: Handler[BodyT, ResultT]

    def __call__(self, context: RequestContext, body: BodyT) -> ResultT:
        """Answer."""
        return self.handler(context, body)


def handles(
    endpoint: Endpoint[BodyT, ResultT], reader: BodyReader[BodyT]
) -> Callable[[Handler[BodyT, ResultT]], EndpointHandler[BodyT, ResultT]]:
    """Bind a handler to an endpoint; type checkers refuse one of other models."""
    return lambda handler: EndpointHandler(endpoint, reader, handler)


def ignore_body(_context: RequestContext, _raw: object) -> None:
    """Read the body of a call that takes none."""


@define(eq=False)
class ApiCall:
    """A request while it is answered, and what became known of it."""

    handler: EndpointHandler[Any, Any]
    request: web.Request
    history: History
    clock: Clock
    started: float
    max_body: int
    """Bytes that its body may have."""

    notes: RequestNotes = field(factory=RequestNotes)
    body: bytes | None = None
    """Its body, if that was read already."""

    worker_process: int = 0
    """The process that its connection is of."""

    is_recorded: bool = False

    @property
    def endpoint_name(self) -> str:
        """The endpoint."""
        return self.handler.endpoint.name

    def record(self, status: int) -> None:
        """Put it into the history, once; status 0 is no answer."""
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
