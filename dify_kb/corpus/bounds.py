"""What a document may become, for a small file can ask for any amount.

The real server has no such limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .unread import ExtractError

if TYPE_CHECKING:
    from collections.abc import Iterable

_MAX_CHARACTERS: Final = 50_000_000
"""Of the whole text. Pages may share their content, and every row repeats the columns' names."""

_MAX_TEXTS: Final = 2_000_000
"""Twice the rows that a sheet of Excel can have."""

MAX_CELLS: Final = 10_000_000
"""Places of a table, empty ones included: a value at the far end of a row makes it long."""


def bounded(texts: Iterable[str]) -> list[str]:
    """Collect the texts while there is room for them.

    Raises:
        ExtractError: they are more than a server should hold.
    """
    kept: list[str] = []
    left = _MAX_CHARACTERS
    for text in texts:
        left -= len(text)
        if left < 0 or len(kept) == _MAX_TEXTS:
            raise ExtractError(
                f"This embedded server reads at most {_MAX_CHARACTERS:,} characters,"
                f" in {_MAX_TEXTS:,} rows or pages."
            )
        kept.append(text)
    return kept


def too_many_cells() -> ExtractError:
    """Say that a table is larger than a server should hold."""
    return ExtractError(f"This embedded server reads at most {MAX_CELLS:,} cells of tables.")
