"""Profiles of the supported server versions.

1.14.2 is the newest one that was recorded. 1.16 is defined as changes to it, and each older version
as changes to the next newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from dify_kb.errors import ConfigError
from dify_kb.rag import SplitterVersion, build_leading_symbols

from .server_profile import ErrorStyle, Quirks, ServerProfile

if TYPE_CHECKING:
    from collections.abc import Mapping

_SINCE_1_16: Final = frozenset(
    {"maintainer", "error_code", "estimated_vector_space_mb", "vector_space_limit_mb"}
)

_SINCE_1_11: Final = frozenset(
    {
        "author_name", "summary_index_setting", "pipeline_id", "runtime_mode", "chunk_structure",
        "icon_info", "is_published", "total_documents", "total_available_documents",
        "enable_api", "is_multimodal", "summary_index_status", "need_summary",
        "attachments", "files", "summary", "icon_small_dark",
    }
)  # fmt: skip
"""Fields that servers send since 1.11 (measured)."""

_BY_DOCUMENT: Final = frozenset(
    {
        "documents.create_by_text", "documents.create_by_file", "documents.update_by_text",
        "documents.update_by_file", "documents.delete",
    }
)  # fmt: skip

_METADATA_WRITES: Final = frozenset({"metadata.set_built_in", "metadata.assign"})

_QUIRKS_1_14_2 = Quirks(
    validates_segments=True,
    bare_segment_errors=True,
    validates_doc_form=True,
    fails_without_answer=True,
    touches_document=True,
    segment_in_document=False,
    strict_segment_query=True,
    loses_child_chunks=False,
    child_chunk_in_segment=True,
    strict_child_chunk_query=True,
    child_chunk_needs_model=False,
    checks_field_length=True,
    has_partial_update=True,
    refuses_unknown_document=True,
    locks_metadata=True,
    dataset_name_racers=3,
    field_name_racers=1,
    binds_any_metadata_id=False,
    ignores_nul_metadata=False,
    sends_null_field=False,
    validates_search=True,
    compares_strictly=False,
    has_in_operator=True,
    ignores_in_operator=False,
    keywords_everywhere=False,
    default_top_k=4,
    duplicate_hit_orders=frozenset(),
    incomplete_weights="nothing",
    drops_failed_hybrid=True,
    needs_all_words=True,
    refuses_top_k=True,
    merges_search=False,
    checks_provider=False,
    numeric_tag_count=False,
    refuses_own_tags=False,
    refuses_own_tag_name=False,
    filters_by_all_tags=True,
    unbinds_several_tags=True,
    drops_external_errors=False,
)

_QUIRKS_1_12_1 = attrs.evolve(
    _QUIRKS_1_14_2,
    bare_segment_errors=False,
    validates_doc_form=False,
    strict_segment_query=False,
    child_chunk_needs_model=True,
    refuses_unknown_document=False,
    locks_metadata=False,
    dataset_name_racers=1,
    field_name_racers=2,
    binds_any_metadata_id=True,
    ignores_nul_metadata=True,
    sends_null_field=True,
    validates_search=False,
    refuses_top_k=False,
    refuses_own_tags=True,
    refuses_own_tag_name=True,
    filters_by_all_tags=False,
    unbinds_several_tags=False,
)

_QUIRKS_1_8_1 = attrs.evolve(
    _QUIRKS_1_12_1,
    validates_segments=False,
    fails_without_answer=False,
    touches_document=False,
    loses_child_chunks=True,
    child_chunk_in_segment=False,
    strict_child_chunk_query=False,
    has_partial_update=False,
    compares_strictly=True,
    ignores_in_operator=True,
    drops_external_errors=True,
    duplicate_hit_orders=frozenset({"plain", "weighted"}),
    incomplete_weights="crash",
    drops_failed_hybrid=False,
    refuses_own_tags=False,
)

_QUIRKS_1_4_3 = attrs.evolve(
    _QUIRKS_1_8_1,
    loses_child_chunks=False,
    checks_field_length=False,
    field_name_racers=4,
    has_in_operator=False,
    keywords_everywhere=True,
    default_top_k=2,
    duplicate_hit_orders=frozenset({"plain"}),
    numeric_tag_count=True,
)

_1_14_2 = ServerProfile(
    version="1.14.2",
    quirks=_QUIRKS_1_14_2,
    has_models=True,
    workers=4,
    validates_search_method=True,
    compact_json=True,
    sends_challenge=True,
    error_style=ErrorStyle.PYDANTIC,
    crash_body_has_status=True,
    delete_status=204,
    delete_body=b"",
    bare_success_endpoints=frozenset(),
    older_route_endpoints=frozenset({"documents.update_by_file"}),
    checks_dataset_first=False,
    dataset_is_param_endpoints=frozenset(),
    dataset_unchecked_endpoints=frozenset(),
    json_only_endpoints=None,
    has_status_filter=True,
    has_tag_filter=True,
    shows_keyword_method=True,
    storable_search_methods=(
        "semantic_search",
        "full_text_search",
        "hybrid_search",
        "keyword_search",
    ),
    checks_renames=True,
    allows_unbound_external=True,
    requires_model_names=True,
    checks_doc_form=True,
    has_default_rule=True,
    checks_technique=True,
    counts_words_of_text=False,
    forbidden_in_names="/\\",
    too_large_message="",
    splitter=SplitterVersion(),
    update_hangs=False,
    empty_param_error=False,
    default_model_type="text-embedding",
    external_retrieval=True,
    unset_count=None,
    replaces_as_stored=False,
    model_type_error="{!r} is not a valid ModelType",
    sends_float_created_at=False,
    empty_doc_metadata=(),
    sends_typed_metadata=True,
    empty_items=(),
    signs_records=False,
    economy_score=0.0,
    unknown_fields=_SINCE_1_16,
    pydantic_version="2.12",
)

CHANGES_IN_1_16: Final[Mapping[str, tuple[object, str]]] = {
    "version": ("1.16", ""),
    "unknown_fields": (
        frozenset(),
        "datasets have a `maintainer`, and errors of Dify Cloud a code (published API)",
    ),
    "segment_in_document": (True, "a chunk under another document is a 404 (server source)"),
    "checks_provider": (True, "a `Literal` in the body of a new dataset (published API)"),
    "merges_search": (True, "settings of a search default to the dataset's (server source)"),
    "needs_all_words": (False, "the default vector store finds any word (server source)"),
    "incomplete_weights": ("ignored", "server source"),
    "drops_failed_hybrid": (False, "a failing reranking model is an error (server source)"),
}
"""All differences between 1.14.2, which was recorded, and 1.16: values and sources.

A key is a field of `ServerProfile` or `Quirks`. 1.16 was not recorded; what is not listed here is
as on 1.14.2.
"""


def _apply_changes(changes: Mapping[str, tuple[object, str]]) -> ServerProfile:
    """Return 1.14.2 with changes to the fields of the profile and of its quirks."""
    values: dict[str, Any] = {name: value for name, (value, _) in changes.items()}
    quirks = {name: values.pop(name) for name in values.keys() & attrs.fields_dict(Quirks).keys()}
    return attrs.evolve(_1_14_2, quirks=attrs.evolve(_QUIRKS_1_14_2, **quirks), **values)


_1_16 = _apply_changes(CHANGES_IN_1_16)

_1_12_1 = attrs.evolve(
    _1_14_2,
    version="1.12.1",
    quirks=_QUIRKS_1_12_1,
    has_models=False,
    workers=1,
    delete_status=200,
    delete_body=b"204\n",
    older_route_endpoints=frozenset(),
    checks_dataset_first=True,
    has_tag_filter=False,
    checks_technique=False,
    forbidden_in_names='/\\:*?"<>|',
    too_large_message="File size exceeded. {message}",
    model_type_error="invalid origin model type {}",
    splitter=SplitterVersion(
        leading_symbols=build_leading_symbols(added="[]", kept="\u2026\u3010"),
        assumes_paragraphs=False,
    ),
    update_hangs=True,
    empty_doc_metadata=None,
    sends_typed_metadata=False,
    empty_items=None,
    signs_records=True,
    pydantic_version="2.11",
)

_1_8_1 = attrs.evolve(
    _1_12_1,
    version="1.8.1",
    quirks=_QUIRKS_1_8_1,
    validates_search_method=False,
    error_style=ErrorStyle.ERRORS,
    bare_success_endpoints=_METADATA_WRITES,
    checks_dataset_first=False,
    dataset_is_param_endpoints=_BY_DOCUMENT,
    dataset_unchecked_endpoints=frozenset({"tags.list_for_dataset"}),
    json_only_endpoints=frozenset({"datasets.update", "documents.set_status"}),
    has_status_filter=False,
    has_tag_filter=True,
    shows_keyword_method=False,
    storable_search_methods=(
        "hybrid_search",
        "semantic_search",
        "full_text_search",
        "keyword_search",
    ),
    checks_renames=False,
    allows_unbound_external=False,
    requires_model_names=False,
    has_default_rule=False,
    checks_technique=True,
    counts_words_of_text=True,
    splitter=SplitterVersion(
        leading_symbols=build_leading_symbols(added="!"),
        escapes_separator=False,
        assumes_paragraphs=False,
    ),
    update_hangs=False,
    default_model_type="ModelType.TEXT_EMBEDDING",
    sends_float_created_at=True,
    economy_score=None,
    unknown_fields=_SINCE_1_16 | _SINCE_1_11,
)

_1_4_3 = attrs.evolve(
    _1_8_1,
    version="1.4.3",
    quirks=_QUIRKS_1_4_3,
    compact_json=False,
    sends_challenge=False,
    error_style=ErrorStyle.PARAMS,
    crash_body_has_status=False,
    json_only_endpoints=None,
    storable_search_methods=("hybrid_search", "semantic_search", "full_text_search"),
    checks_doc_form=False,
    empty_param_error=True,
    replaces_as_stored=True,
    unset_count=0,
    sends_float_created_at=False,
)

_PROFILES = {profile.version: profile for profile in (_1_4_3, _1_8_1, _1_12_1, _1_14_2, _1_16)}

VERSIONS = tuple(_PROFILES)
"""Versions that the emulator supports, oldest first."""


def get_profile(version: str) -> ServerProfile:
    """Return the profile of a version.

    Raises:
        ConfigError: the version is not supported.
    """
    if version not in _PROFILES:
        raise ConfigError(
            f"Unsupported server version {version!r}.",
            hint=f"Choose one of: {', '.join(VERSIONS)}.",
        )
    return _PROFILES[version]
