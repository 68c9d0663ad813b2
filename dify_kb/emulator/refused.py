"""A request that the server refuses, in Dify's words."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

RATE_LIMIT: Final = (
    "Sorry, you have reached the knowledge base request rate limit of your subscription."
)


class RefusedError(Exception):
    """Becomes `{"code", "message", "status"}` (measured), or `body` if one is given."""

    def __init__(
        self, status: int, code: str, message: str, body: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.body = body or {"code": code, "message": message, "status": status}


class UncheckedError(Exception):
    """What servers up to 1.12 do not check and so crash on; `refusal` is what 1.16 answers."""

    def __init__(self, refusal: RefusedError) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def id_of(value: object) -> str:
    """Read an id out of a body.

    Raises:
        UncheckedError: it is no UUID.
    """
    try:
        return str(uuid.UUID(str(value)))
    except ValueError as error:
        raise UncheckedError(not_found(f"Not found: {error}.")) from error


def invalid_param(message: str) -> RefusedError:
    """Refuse what a service of Dify raises as ValueError, or pydantic as ValidationError."""
    return RefusedError(400, "invalid_param", message)


def not_found(message: str) -> RefusedError:
    """Refuse an id that this workspace does not have."""
    return RefusedError(404, "not_found", message)
