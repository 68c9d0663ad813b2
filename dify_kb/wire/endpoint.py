"""One value for each operation of the API: everything about it that is not prose."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from attrs import field, frozen

from .version_bugs import is_older

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dify_kb.models import Event

B = TypeVar("B")
"""The model that a call takes; None when it takes none."""

R = TypeVar("R")
"""What a success decodes to; None when its body means nothing."""


class Repeatability(enum.Enum):
    """What a second, identical request does to the server."""

    SAFE = enum.auto()
    """Nothing: it only reads."""

    IDEMPOTENT = enum.auto()
    """Nothing more: what it asks for is already so."""

    UPSERT = enum.auto()
    """Indexes the document of that name again, in place (recordings 127 to 178)."""

    CREATE = enum.auto()
    """Makes a second thing."""


class RequestEncoding(enum.Enum):
    """Where the model that a call takes travels."""

    NONE = enum.auto()
    QUERY = enum.auto()
    JSON = enum.auto()
    FORM = enum.auto()


@frozen(kw_only=True)
class LegacyRoute:
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
    response_type: type[R] = field(kw_only=True)
    request_type: type[B] = field(kw_only=True)
    encoding: RequestEncoding = field(kw_only=True)
    repeatability: Repeatability = field(kw_only=True)
    status: int = field(default=200, kw_only=True)
    since: str | None = field(default=None, kw_only=True)
    until: str | None = field(default=None, kw_only=True)
    legacy: LegacyRoute | None = field(default=None, kw_only=True)

    def call(self: Endpoint[None, R], **path_params: str) -> Call[R]:
        """Fill the slots of a call that takes no model."""
        return self._call(path_params, None)

    def __call__(self, body: B, /, **path_params: str) -> Call[R]:
        """Fill the slots of a call and give it its model."""
        return self._call(path_params, body)

    def describe_absence(self, version: str | None) -> str | None:
        """Say since or until when servers have it, if one of this version does not."""
        if self.since and is_older(version, self.since):
            return f"it exists since {self.since}"
        if self.until and version and not is_older(version, self.until):
            return f"it was removed in {self.until}"
        return None

    def _call(self, path_params: dict[str, str], body: object) -> Call[R]:
        older = None if self.legacy is None else _fill_path(self.legacy.path, path_params)
        return Call(self, _fill_path(self.path, path_params), body, older)


@frozen
class Call(Generic[R]):
    """An endpoint with its slots filled: what the transport sends. Still no I/O."""

    endpoint: Endpoint[Any, R]
    path: str
    body: object
    legacy_path: str | None = None

    def select_route(self, version: str | None) -> tuple[str, str]:
        """Tell method and path on a server of this version; on an unknown one, the newest."""
        older = self.endpoint.legacy
        if older is not None and self.legacy_path is not None and is_older(version, older.before):
            return older.method, self.legacy_path
        return self.endpoint.method, self.path


class CallSender(Protocol):
    """What a resource is given: the way to the server."""

    async def __call__(self, call: Call[R], /) -> R:
        """Send `call`, wait for its reply and decode it."""
        ...

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        """Send `call` and give the events of its reply as they come."""
        ...


def _fill_path(path: str, path_params: dict[str, str]) -> str:
    return path.format_map({name: _quote(value) for name, value in path_params.items()})


@functools.lru_cache(maxsize=4096)
def _quote(value: str) -> str:
    """Cached: nearly all calls of a load name the same dataset."""
    return quote(value, safe="")


NOTHING = type(None)
"""What a call takes that takes nothing, and returns whose body means nothing."""
