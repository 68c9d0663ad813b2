"""Describe API operations: method, path, request and response types, repeatability."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from urllib.parse import quote

from attrs import field, frozen

from dify_kb.arguments import check_unicode

from .version_bugs import is_older

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dify_kb.models import Event

B = TypeVar("B")
"""The request model; None for calls without one."""

R = TypeVar("R")
"""The response model; None if the body is ignored."""


class Repeatability(enum.Enum):
    """The effect of repeating an identical request."""

    SAFE = enum.auto()
    """None: the request only reads."""

    IDEMPOTENT = enum.auto()
    """None: the requested state already exists."""

    UPSERT = enum.auto()
    """The document of that name is indexed again, in place (recordings 127 to 178)."""

    CREATE = enum.auto()
    """A second object is created."""


class RequestEncoding(enum.Enum):
    """The encoding of a request model."""

    NONE = enum.auto()
    QUERY = enum.auto()
    JSON = enum.auto()
    FORM = enum.auto()


@frozen(kw_only=True)
class LegacyRoute:
    """The method and path of an operation on servers older than `before`."""

    before: str
    method: str
    path: str


@frozen
class Endpoint(Generic[B, R]):
    """An operation of the API. Logs, errors and fault plans refer to it by `name`.

    `status` is the success status of a 1.16 server; the client accepts any 2xx. `since` is the
    oldest version known to support the operation (None: all), `until` the oldest newer one known to
    lack it.
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
        """Create a call without a request model."""
        return self._call(path_params, None)

    def __call__(self, body: B, /, **path_params: str) -> Call[R]:
        """Create a call with a request model."""
        return self._call(path_params, body)

    def describe_absence(self, version: str | None) -> str | None:
        """Return why servers of this version lack the operation; None if they have it."""
        if self.since and is_older(version, self.since):
            return f"it was added in {self.since}"
        if self.until and version and not is_older(version, self.until):
            return f"it was removed in {self.until}"
        return None

    def _call(self, path_params: dict[str, str], body: object) -> Call[R]:
        older = None if self.legacy is None else _fill_path(self.legacy.path, path_params)
        return Call(self, _fill_path(self.path, path_params), body, older)


@frozen
class Call(Generic[R]):
    """A request to an endpoint: path and request model, not sent yet."""

    endpoint: Endpoint[Any, R]
    path: str
    body: object
    legacy_path: str | None = None

    def select_route(self, version: str | None) -> tuple[str, str]:
        """Return method and path for a server version; None selects the newest."""
        older = self.endpoint.legacy
        if older is not None and self.legacy_path is not None and is_older(version, older.before):
            return older.method, self.legacy_path
        return self.endpoint.method, self.path


class CallSender(Protocol):
    """The interface through which resources send calls."""

    @property
    def server_version(self) -> str | None:
        """The version that the server last reported, or None."""
        ...

    async def __call__(self, call: Call[R], /) -> R:
        """Send `call` and return the decoded response."""
        ...

    def stream(self, call: Call[Event], /) -> AsyncIterator[Event]:
        """Send `call` and yield the events of its response as they arrive."""
        ...


def _fill_path(path: str, path_params: dict[str, str]) -> str:
    return path.format_map({name: _quote(value, name) for name, value in path_params.items()})


@functools.lru_cache(maxsize=4096)
def _quote(value: str, name: str) -> str:
    """Quote a path parameter. Cached, as nearly all calls of a load have the same dataset id."""
    check_unicode(value, name)
    return quote(value, safe="")


NOTHING = type(None)
"""The request or response type of calls without a request model or a response body."""
