"""Errors of text extraction: unreadable documents, missing parsers, parser errors."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class ExtractError(Exception):
    """Raised if a document cannot be read; the message becomes the document's error."""


def import_parser(module: str, kind: str) -> Any:
    """Import the parser module of a file format.

    Raises:
        ExtractError: the module is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ExtractError(
            f"Reading .{kind} files needs {error.name}, which is not installed;"
            " install dify-kb[emulator]"
        ) from error


@contextmanager
def translate_parser_errors() -> Iterator[None]:
    """Raise any exception of a parser as `ExtractError` with the same message (measured)."""
    try:
        yield
    except ExtractError:
        raise
    except Exception as error:
        raise ExtractError(str(error) or type(error).__name__) from error
