from __future__ import annotations

from typing import Final

BAD_FORMAT: Final = 1001
"""The Authorization header is not `Bearer <api-key>`."""

BAD_KEY: Final = 1002
"""The key is not known."""

UNKNOWN_KNOWLEDGE: Final = 2001
"""There is no knowledge base of this id."""


class RefusedError(Exception):
    """Becomes `{"error_code", "error_msg"}`, which Dify shows to people as it is.

    `code` is one of Dify's three (External Knowledge API page), else the status.
    """

    def __init__(self, status: int, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = status if code is None else code
