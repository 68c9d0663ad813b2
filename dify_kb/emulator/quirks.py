"""The part of a profile that is about chunks, metadata, tags and searches."""

from __future__ import annotations

from typing import Literal

import attrs
from attrs import frozen


@frozen(kw_only=True)
class Quirks:
    """How one version answers there; a field of its `Profile`."""

    typed_segments: bool
    """Whether pydantic checks the bodies of chunks; else a bad one is a crash (recording 569)."""

    bare_segment_errors: bool
    """Whether all that pydantic says of new chunks is in `{"error"}`, not only that there are none
    (server source).
    """

    segment_in_document: bool
    """Whether a chunk is looked for in the document of the path only (server source)."""

    strict_segment_query: bool
    """Whether a page below 1 is refused in the chunk list (server source)."""

    loses_child_chunks: bool
    """Whether a child chunk is never found to change or delete it (measured)."""

    child_chunk_in_segment: bool
    """Whether a child chunk is looked for in the chunk of the path only (measured)."""

    strict_child_chunk_query: bool
    """Whether a page below 1 is refused, and no word is, in the child chunk list (607 to 610)."""

    child_chunk_needs_model: bool
    """Whether deleting a child chunk fails for want of a model, on economy bases too (603). That
    1.16 can do it is a guess.
    """

    checks_field_length: bool
    """Whether a field's name of more than 255 characters is refused, not a crash (649, 664)."""

    partial_metadata: bool
    """Whether `partial_update` is heeded (measured)."""

    refuses_unknown_document: bool
    """Whether metadata for an unknown document is a 400, not a success (server source)."""

    typed_search: bool
    """Whether pydantic checks the settings of a search; else one that is missing is a crash with
    its name (measured).
    """

    texts_apart: bool
    """Whether a text in a search's filter never equals a number (789)."""

    in_operator: bool
    """Whether searches know `in` and `not in` (measured)."""

    passes_over_in: bool
    """Whether a condition with `in` or `not in` is taken and then lets everything through (801)."""

    keywords_everywhere: bool
    """Whether high-quality bases have keywords, too, and keyword search (recordings 934, 952)."""

    default_top_k: int
    """How many hits a search without settings has (recording 930)."""

    twice: frozenset[str]
    """Orders of a hybrid search, `plain` or `weighted`, in which what both of its halves find is
    there twice (recordings 937, 1022)."""

    wrong_weights: Literal["ignored", "nothing", "crash"]
    """What becomes of a search whose weights lack a part (server source)."""

    drops_failed_hybrid: bool
    """Whether a hybrid search finds nothing, instead of failing, when its reranking model fails
    (server source)."""

    merges_search: bool
    """Whether settings that a search leaves out are the dataset's (server source)."""

    crashes_unchecked: bool
    """Whether an id in a body that is no UUID, or a value of an odd type, is a crash (078, 229,
    389, 833, 841). The published API of 1.16 has no such answer there.
    """

    numeric_tag_count: bool
    """Whether a new tag's `binding_count` is a number, not a text (measured)."""

    refuses_own_tags: bool
    """Whether every answer with a tag is a 400, although all is done (measured)."""

    several_unbound: bool
    """Whether unbinding takes `tag_ids`, too (server source)."""

    drops_external_errors: bool
    """Whether an external API that does not answer 200 found nothing, and is no error (server
    source)."""


QUIRKS_1_16 = Quirks(
    typed_segments=True,
    bare_segment_errors=True,
    segment_in_document=True,
    strict_segment_query=True,
    loses_child_chunks=False,
    child_chunk_in_segment=True,
    strict_child_chunk_query=True,
    child_chunk_needs_model=False,
    checks_field_length=True,
    partial_metadata=True,
    refuses_unknown_document=True,
    typed_search=True,
    texts_apart=False,
    in_operator=True,
    passes_over_in=False,
    keywords_everywhere=False,
    default_top_k=4,
    twice=frozenset(),
    wrong_weights="ignored",
    drops_failed_hybrid=False,
    merges_search=True,
    crashes_unchecked=False,
    numeric_tag_count=False,
    refuses_own_tags=False,
    several_unbound=True,
    drops_external_errors=False,
)

QUIRKS_1_12_1 = attrs.evolve(
    QUIRKS_1_16,
    bare_segment_errors=False,
    segment_in_document=False,
    strict_segment_query=False,
    child_chunk_needs_model=True,
    crashes_unchecked=True,
    refuses_unknown_document=False,
    typed_search=False,
    wrong_weights="nothing",
    drops_failed_hybrid=True,
    merges_search=False,
    refuses_own_tags=True,
    several_unbound=False,
)

QUIRKS_1_8_1 = attrs.evolve(
    QUIRKS_1_12_1,
    typed_segments=False,
    loses_child_chunks=True,
    child_chunk_in_segment=False,
    strict_child_chunk_query=False,
    partial_metadata=False,
    texts_apart=True,
    passes_over_in=True,
    drops_external_errors=True,
    twice=frozenset({"plain", "weighted"}),
    wrong_weights="crash",
    drops_failed_hybrid=False,
    refuses_own_tags=False,
)

QUIRKS_1_4_3 = attrs.evolve(
    QUIRKS_1_8_1,
    loses_child_chunks=False,
    checks_field_length=False,
    in_operator=False,
    keywords_everywhere=True,
    default_top_k=2,
    twice=frozenset({"plain"}),
    numeric_tag_count=True,
)
