"""What a Dify server does with a document, without HTTP: read, clean, cut, index, search.

Everything here is synchronous and holds the GIL; call it in a thread. Behaviour is Dify 1.12.1's
where a docstring does not say otherwise.
"""

from __future__ import annotations

from .chunk import ChunkError, chunk
from .extract import ExtractError, extract
from .filters import FilterError, meets
from .index import Hit, Index, Row
from .words import keywords, words

__all__ = [
    "ChunkError",
    "ExtractError",
    "FilterError",
    "Hit",
    "Index",
    "Row",
    "chunk",
    "extract",
    "keywords",
    "meets",
    "words",
]
