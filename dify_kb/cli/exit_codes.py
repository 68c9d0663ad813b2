"""Exit codes of errors, and warnings as lines on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from dify_kb.errors import (
    ConfigError,
    ForbiddenError,
    JournalError,
    KnowledgeError,
    LoadError,
    QuotaExceededError,
    RateLimitedError,
    UnauthorizedError,
)

ARCHIVED_DOCUMENT_CODE = "archived_document_immutable"
"""The code of a 403 that concerns one document, not the key."""

GENERAL_ERROR = 1
USAGE_ERROR = 2
FILES_FAILED = 3
GATE_FAILED = 3
ACCESS_DENIED = 4
RETRY_LATER = 5
JOURNAL_ERROR = 8


def exit_code_for(error: KnowledgeError) -> int:
    """Return the exit code of an error."""
    match error:
        case ConfigError():
            return USAGE_ERROR
        case UnauthorizedError() | ForbiddenError() | QuotaExceededError() if (
            error.code != ARCHIVED_DOCUMENT_CODE
        ):
            return ACCESS_DENIED
        case RateLimitedError():
            return RETRY_LATER
        case LoadError():
            return FILES_FAILED
        case JournalError():
            return JOURNAL_ERROR
        case _:
            return GENERAL_ERROR


@contextmanager
def print_warnings() -> Iterator[None]:
    """Print Python warnings as `warning: …` on stderr until the block ends."""

    def write(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        from . import output

        del category, filename, lineno, file, line
        output.err.print(f"warning: {output.escape(str(message))}")

    with warnings.catch_warnings():
        warnings.showwarning = write
        yield
