"""One value for each operation of the API: everything about it that is not prose."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from attrs import field, frozen

from .version import before

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dify_kb.models import Event

B = TypeVar("B")
"""The model that a call takes; None when it takes none."""

R = TypeVar("R")
"""What a success decodes to; None when its body means nothing."""


class Repeat(enum.Enum):
    """What a second, identical request does to the server."""

    SAFE = enum.auto()
    """Nothing: it only reads."""

    IDEMPOTENT = enum.auto()
    """Nothing more: what it asks for is already so."""

    UPSERT = enum.auto()
    """Indexes the document of that name again, in place (recordings 127 to 178)."""

    CREATES = enum.auto()
    """Makes a second thing."""


class Where(enum.Enum):
    """Where the model that a call takes travels."""

    NOWHERE = enum.auto()
    QUERY = enum.auto()
    JSON = enum.auto()
    FORM = enum.auto()


@frozen(kw_only=True)
class Older:
    """Where servers before a version have the operation."""

    before: str
    method: str
    path: str


@frozen
class Endpoint(Generic[B, R]):
    """An operation: its name in every log, error and fault plan, and its shape on the wire.

    `status` is what a server of profile 1.16 answers; the client takes any 2xx. `since` is the
    oldest version known to have it (None: all), `until` the first that has it no more.
    """

    name: str
    method: str
    path: str
    returns: type[R] = field(kw_only=True)
    takes: type[B] = field(kw_only=True)
    where: Where = field(kw_only=True)
    repeat: Repeat = field(kw_only=True)
    status: int = field(default=200, kw_only=True)
    since: str | None = field(default=None, kw_only=True)
    until: str | None = field(default=None, kw_only=True)
    older: Older | None = field(default=None, kw_only=True)

    def at(self: Endpoint[None, R], **slots: str) -> Call[R]:
        """Fill the slots of a call that takes no model."""
        return self._call(slots, None)

    def __call__(self, body: B, /, **slots: str) -> Call[R]:
        """Fill the slots of a call and give it its model."""
        return self._call(slots, body)

    def missing_in(self, version: str | None) -> str | None:
        """Say since or until when servers have it, if one of this version does not."""
        if self.since and before(version, self.since):
            return f"it exists since {self.since}"
        if self.until and version and not before(version, self.until):
            return f"it was removed in {self.until}"
        return None

    def _call(self, slots: dict[str, str], body: object) -> Call[R]:
        older = None if self.older is None else _fill(self.older.path, slots)
        return Call(self, _fill(self.path, slots), body, older)


@frozen
class Call(Generic[R]):
    """An endpoint with its slots filled: what the transport sends. Still no I/O."""

    endpoint: Endpoint[Any, R]
    path: str
    body: object
    older_path: str | None = None

    def route(self, version: str | None) -> tuple[str, str]:
        """Tell method and path on a server of this version; on an unknown one, the newest."""
        older = self.endpoint.older
        if older is not None and self.older_path is not None and before(version, older.before):
            return older.method, self.older_path
        return self.endpoint.method, self.path


class Send(Protocol):
    """What a resource is given: the way to the server."""

    async def __call__(self, call: Call[R], /) -> R:
        """Send `call`, wait for its reply and decode it."""
        ...

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        """Send `call` and give the events of its reply as they come."""
        ...


def _fill(path: str, slots: dict[str, str]) -> str:
    return path.format_map({name: _quote(value) for name, value in slots.items()})


@functools.lru_cache(maxsize=4096)
def _quote(value: str) -> str:
    """Cached: nearly all calls of a load name the same dataset."""
    return quote(value, safe="")


NOTHING = type(None)
"""What a call takes that takes nothing, and returns whose body means nothing."""
