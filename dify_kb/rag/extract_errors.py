"""What hinders the reading of a document, and the parsers that may not be installed."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class ExtractError(Exception):
    """The bytes of a document cannot be read; the text becomes the document's error."""


def import_parser(module: str, kind: str) -> Any:
    """Import what reads files of this kind.

    Raises:
        ExtractError: it is not installed.
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
    """Have whatever a parser raises become the document's error, in its own words (measured)."""
    try:
        yield
    except ExtractError:
        raise
    except Exception as error:
        raise ExtractError(str(error) or type(error).__name__) from error
