"""Errors that become error responses, with Dify's codes and messages."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

RATE_LIMIT_MESSAGE: Final = (
    "Sorry, you have reached the knowledge base request rate limit of your subscription."
)


class EmulatedError(Exception):
    """An error response with `{"code", "message", "status"}` (measured), or with `body`."""

    def __init__(
        self, status: int, code: str, message: str, body: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.body = body or {"code": code, "message": message, "status": status}


class UnvalidatedInputError(Exception):
    """Raised for input that no server validates, so that it crashes (078, 229, 389, 833, 841)."""


def parse_uuid(value: object) -> str:
    """Parse an id from a body.

    Raises:
        UnvalidatedInputError: the value is not a UUID.
    """
    try:
        return str(uuid.UUID(str(value)))
    except ValueError as error:
        raise UnvalidatedInputError(str(error)) from error


def invalid_param_error(message: str) -> EmulatedError:
    """Return the 400 for a ValueError of Dify's services or a ValidationError of pydantic."""
    return EmulatedError(400, "invalid_param", message)


def not_found_error(message: str) -> EmulatedError:
    """Return the 404 for an id that the workspace does not have."""
    return EmulatedError(404, "not_found", message)
