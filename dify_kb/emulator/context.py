"""What a handler is given, and how it is bound to its endpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from attrs import define, field, frozen
from yarl import URL

from dify_kb.models import Event
from dify_kb.wire.endpoint import Endpoint

from .clock import Clock
from .links import Links
from .profile import Profile
from .settings import Settings
from .stand_ins import Invoke
from .store import DatasetRow, Store

B = TypeVar("B")
R = TypeVar("R")


class Enqueue(Protocol):
    """Has the indexer index a document."""

    def __call__(self, document_id: str, /, *, hangs: bool = False) -> None:
        """Queue a document; one that hangs keeps its worker for ever."""
        ...


@define
class Notes:
    """What models have no field for, noted while a request is answered."""

    document: str | None = None
    """The name of the document that is to be created, for the history."""

    document_id: str | None = None
    """The id of the document that was created or changed, for the history."""

    file_id: str | None = None
    """The id of the file that it was given, for the history."""

    replaced: str | None = None
    """The indexing status of the document that was replaced, for the history."""

    as_of: float | None = None
    """The time that the list of documents is shown as of, by a cache in front."""

    committed: bool = False
    """Whether the call was carried out, for the history."""

    mime_type: str | None = None
    """What the client calls its file."""

    original: str | None = None
    """The id of the document that a create is to replace, whatever its name."""

    rule_only: bool = False
    """Whether an update brings a process rule and leaves the text."""

    only: frozenset[str] | None = None
    """The fields that the answer is cut down to."""

    floats: frozenset[str] = frozenset()
    """The times of the answer that are written with a fraction."""

    events: Sequence[Event] | None = None
    """What is answered as a stream of events, and not as the model."""


@frozen(kw_only=True)
class Context:
    """The server, and what the path and the headers of one request say."""

    store: Store
    settings: Settings
    profile: Profile
    clock: Clock
    enqueue: Enqueue

    url: URL = field(factory=URL)
    """What was asked for, and so where the server is reached, for links to it."""

    links: Links
    """Makes links to files."""

    invoke: Invoke
    """Calls a model."""

    slots: Mapping[str, str] = field(factory=dict)
    found: DatasetRow | None = None
    notes: Notes = field(factory=Notes)

    @property
    def models(self) -> bool:
        """Whether the workspace has models."""
        chosen = self.settings.models
        return self.profile.models if chosen is None else chosen

    @property
    def dataset(self) -> DatasetRow:
        """The dataset that the path names."""
        if self.found is None:
            raise LookupError("the path of this endpoint names no dataset")
        return self.found


Handler = Callable[[Context, B], R]
Reader = Callable[[Context, Any], B]
"""Makes the model of a call from what came: a query, parsed JSON, or a form."""


@frozen
class Served(Generic[B, R]):
    """An endpoint, how its body is read, and who answers it. Called, it answers."""

    endpoint: Endpoint[B, R]
    reader: Reader[B]
    handler: Handler[B, R]

    def __call__(self, context: Context, body: B) -> R:
        """Answer."""
        return self.handler(context, body)


def serves(endpoint: Endpoint[B, R], reader: Reader[B]) -> Callable[[Handler[B, R]], Served[B, R]]:
    """Bind a handler to an endpoint; type checkers refuse one of other models."""
    return lambda handler: Served(endpoint, reader, handler)


def nothing(_context: Context, _raw: object) -> None:
    """Read the body of a call that takes none."""
