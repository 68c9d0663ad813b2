"""A request that the server refuses, in Dify's words."""

from __future__ import annotations


class RefusedError(Exception):
    """Becomes `{"code", "message", "status"}` (findings.md §2.1a)."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def invalid_param(message: str) -> RefusedError:
    """Refuse what a service of Dify raises as ValueError, or pydantic as ValidationError."""
    return RefusedError(400, "invalid_param", message)


def not_found(message: str) -> RefusedError:
    """Refuse an id that this workspace does not have."""
    return RefusedError(404, "not_found", message)
