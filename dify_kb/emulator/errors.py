"""A request that the server refuses, in Dify's words."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

RATE_LIMIT_MESSAGE: Final = (
    "Sorry, you have reached the knowledge base request rate limit of your subscription."
)


class EmulatedError(Exception):
    """Becomes `{"code", "message", "status"}` (measured), or `body` if one is given."""

    def __init__(
        self, status: int, code: str, message: str, body: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.body = body or {"code": code, "message": message, "status": status}


class UnvalidatedInputError(Exception):
    """What servers up to 1.12 do not check and so crash on; `validated_error` is what 1.16
    answers.
    """

    def __init__(self, validated_error: EmulatedError) -> None:
        super().__init__(validated_error.message)
        self.validated_error = validated_error


def parse_uuid(value: object) -> str:
    """Read an id out of a body.

    Raises:
        UnvalidatedInputError: it is no UUID.
    """
    try:
        return str(uuid.UUID(str(value)))
    except ValueError as error:
        raise UnvalidatedInputError(not_found_error(f"Not found: {error}.")) from error


def invalid_param_error(message: str) -> EmulatedError:
    """Refuse what a service of Dify raises as ValueError, or pydantic as ValidationError."""
    return EmulatedError(400, "invalid_param", message)


def not_found_error(message: str) -> EmulatedError:
    """Refuse an id that this workspace does not have."""
    return EmulatedError(404, "not_found", message)
