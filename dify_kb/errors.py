"""The exceptions of the package.

`KnowledgeError` is the base class. `summary` says what failed and how the server responded,
`hint` what to do about it; `str(error)` is both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class KnowledgeError(Exception):
    """The base class of all exceptions that this package raises."""

    def __init__(self, summary: str, *, hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.summary} {self.hint}" if self.hint else self.summary


class ConfigError(KnowledgeError, ValueError):
    """Raised for an invalid address, API key or argument. Nothing was sent."""


class SourceError(KnowledgeError):
    """Raised if a file cannot be read."""


class SourceChangedError(SourceError):
    """Raised if a file changed while it was read or sent. Sending it again may succeed."""


class JournalError(KnowledgeError):
    """Raised if a load's journal is in use, damaged, of a newer version, or not writable."""


class ArchiveError(KnowledgeError):
    """Raised if an archive is damaged, incomplete, in use, or of a newer format."""


class TransportError(KnowledgeError):
    """Raised if a request has no readable response.

    `delivered` is whether the server may have received the request.
    """

    def __init__(
        self, summary: str, *, endpoint: str, delivered: bool = True, hint: str = ""
    ) -> None:
        super().__init__(summary, hint=hint)
        self.endpoint = endpoint
        self.delivered = delivered


class ConnectError(TransportError):
    """Raised if the connection to the server fails. Nothing was sent.

    `permanent` is whether a retry cannot succeed: the server's certificate is invalid, or the proxy
    refuses to connect.
    """

    def __init__(
        self,
        summary: str,
        *,
        endpoint: str,
        delivered: bool = False,
        permanent: bool = False,
        hint: str = "",
    ) -> None:
        super().__init__(summary, endpoint=endpoint, delivered=delivered, hint=hint)
        self.permanent = permanent


class RequestTimeoutError(TransportError, TimeoutError):
    """Raised if the server did not accept or answer a request within the timeout."""


class OutcomeUnknownError(TransportError):
    """Raised if a create request may have succeeded although no response arrived.

    Repeating it could create a duplicate. `__cause__` is the error of the connection.
    """


class ProtocolError(KnowledgeError):
    """Raised for a 2xx response that the API does not document.

    Args:
        complete: whether the body arrived completely. Retrying does not help then.
        page: whether the body is an HTML page, such as a login form of a proxy.
    """

    def __init__(
        self,
        summary: str,
        *,
        endpoint: str,
        status: int,
        complete: bool = True,
        page: bool = False,
        hint: str = "",
    ) -> None:
        super().__init__(summary, hint=hint)
        self.endpoint = endpoint
        self.status = status
        self.complete = complete
        self.page = page


class ApiError(KnowledgeError):
    """Raised for an error response of the server; callers usually handle a subclass.

    `after_lost_response` is whether an earlier attempt of the same call lost its response, and may
    be the reason for this one.
    """

    def __init__(
        self,
        summary: str,
        *,
        endpoint: str,
        status: int,
        code: str = "",
        message: str = "",
        server_version: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(summary, hint=hint)
        self.endpoint = endpoint
        self.status = status
        self.code = code
        self.message = message
        self.server_version = server_version
        self.request_id = request_id
        self.retry_after = retry_after
        self.after_lost_response = False


class BadRequestError(ApiError):
    """400 or 422: the server rejected the request as invalid."""


class UnauthorizedError(ApiError):
    """401: the API key is missing, or is not a knowledge key of this server."""


class ForbiddenError(ApiError):
    """403: the API key does not permit this request."""


class QuotaExceededError(ForbiddenError):
    """402 or 403: the plan's limit of documents or vector space is reached. Do not retry."""


class NotFoundError(ApiError):
    """404: the resource, or the route itself, does not exist on this server."""


class ConflictError(ApiError):
    """409: the name is already in use."""


class TooLargeError(ApiError):
    """413: the body exceeds a size limit of the server or of a proxy."""


class UnsupportedTypeError(ApiError):
    """415: the server does not accept this type of file or body."""


class RateLimitedError(ApiError):
    """429, or the 403 of Dify's rate limit: wait `retry_after` seconds (None: not reported)."""


class ServerError(ApiError):
    """5xx, or 400 while the plugin daemon is down: the server or a proxy failed."""


class LoadError(KnowledgeError):
    """Raised by `LoadReport.raise_for_failures` if a load did not succeed for every file."""


class PartialError(KnowledgeError):
    """Raised if only some of the requests of a call succeeded.

    `done` lists what succeeded, in the order of the call: the segments created, or the ids of the
    documents changed. `failed` maps each rejected id to its reason. Anything in neither was not
    attempted. `__cause__` is the error that stopped the call, if an error did.
    """

    def __init__(
        self,
        summary: str,
        *,
        done: Sequence[object],
        failed: Mapping[str, str] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(summary, hint=hint)
        self.done = done
        self.failed = failed or {}


def escape_text(text: str) -> str:
    """Escape what a terminal cannot show: control characters, undecodable bytes of file names."""
    text = text.encode(errors="backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
