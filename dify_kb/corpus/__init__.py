"""What a Dify server does with a document, without HTTP: read, clean, cut, index, search.

Everything here is synchronous and holds the GIL; call it in a thread. Behaviour is Dify 1.12.1's
where a docstring does not say otherwise.
"""

from __future__ import annotations

from .chunk import ChunkError, chunk
from .extract import extract, reads
from .family import Parent, children, parents
from .filters import FilterError, meets
from .index import Hit, Index, Row
from .rerank import Candidate, distinct, rerank, weigh
from .unread import ExtractError
from .vectors import cosine, embed
from .words import keywords, telling, words

__all__ = [
    "Candidate",
    "ChunkError",
    "ExtractError",
    "FilterError",
    "Hit",
    "Index",
    "Parent",
    "Row",
    "children",
    "chunk",
    "cosine",
    "distinct",
    "embed",
    "extract",
    "keywords",
    "meets",
    "parents",
    "reads",
    "rerank",
    "telling",
    "weigh",
    "words",
]
