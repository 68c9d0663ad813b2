"""Every exception of the package.

`KnowledgeError` is the root. An error says what was asked, what came back and what to do:
`summary` holds the first two, `hint` the third, `str(error)` all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class KnowledgeError(Exception):
    """Anything that this package raises on purpose."""

    def __init__(self, summary: str, *, hint: str = "") -> None:
        super().__init__(summary)
        self.summary = summary
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.summary} {self.hint}" if self.hint else self.summary


class ConfigError(KnowledgeError, ValueError):
    """The call itself is wrong: an address, a key or an argument. Nothing was sent."""


class SourceError(KnowledgeError):
    """A file could not be read."""


class SourceChangedError(SourceError):
    """A file changed while it was read or sent; sending it again may succeed."""


class JournalError(KnowledgeError):
    """A load's journal is in use, damaged, of a newer version, or cannot be written."""


class TransportError(KnowledgeError):
    """No reply that could be read came back. `delivered`: the server may have the request."""

    def __init__(
        self, summary: str, *, endpoint: str, delivered: bool = True, hint: str = ""
    ) -> None:
        super().__init__(summary, hint=hint)
        self.endpoint = endpoint
        self.delivered = delivered


class ConnectError(TransportError):
    """The server was not reached; nothing was sent."""


class RequestTimeoutError(TransportError, TimeoutError):
    """The server did not take the request, or did not answer, within the time allowed."""


class OutcomeUnknownError(TransportError):
    """The request may have been carried out, and repeating it could do it twice.

    Raised for calls that create something; `__cause__` is what happened.
    """


class ProtocolError(KnowledgeError):
    """A success (2xx) that is not what the API answers.

    Args:
        complete: the body was whole, so that asking again would not help.
        page: the body is an HTML page, such as a login form: the API was not reached.
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
    """The server refused the call. Subclasses name what a caller acts on."""

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


class BadRequestError(ApiError):
    """400, 422: the server does not take this request as it is."""


class UnauthorizedError(ApiError):
    """401: no key, or not a knowledge key of this server."""


class ForbiddenError(ApiError):
    """403: the key may not do this here."""


class QuotaExceededError(ForbiddenError):
    """402, 403: the plan's documents or vector space are used up; waiting does not help."""


class NotFoundError(ApiError):
    """404: no such thing, or no such route on this server."""


class ConflictError(ApiError):
    """409: the name is taken."""


class TooLargeError(ApiError):
    """413: the body is larger than the server or a proxy before it takes."""


class UnsupportedTypeError(ApiError):
    """415: the server does not take this kind of file or body."""


class RateLimitedError(ApiError):
    """429, or Dify's 403 for its request rate: wait `retry_after` seconds (None: not told)."""


class ServerError(ApiError):
    """5xx, or 400 while the plugin daemon is down: the server, or a proxy before it, failed."""


class LoadError(KnowledgeError):
    """A load did not bring every file in; raised by `LoadReport.raise_for_failures`."""


class PartialError(KnowledgeError):
    """A call of several requests was carried out in part; `__cause__` is what ended it, if one did.

    `done` is what holds, in the order of the call: chunks that were made, ids of documents that
    were set. `failed` gives the reason of each id that was refused; what is in neither was not
    reached.
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
