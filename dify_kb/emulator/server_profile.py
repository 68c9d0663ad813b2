"""Differences between server versions, as fields of a profile.

Differences that the endpoint catalogue contains (`since`, `until`, `legacy`) are not repeated here.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from dify_kb.rag import SplitterVersion
from dify_kb.wire.version_bugs import is_older

if TYPE_CHECKING:
    from dify_kb.wire.endpoint import Endpoint


class ErrorStyle(enum.Enum):
    """Body of the response for invalid fields (measured)."""

    PARAMS = enum.auto()
    """`{"code", "message", "params"}`: the first invalid field; no status."""

    ERRORS = enum.auto()
    """`{"errors": {field: text}, "message"}`: the first invalid field; no code, no status."""

    PYDANTIC = enum.auto()
    """The usual three keys; the message lists all invalid fields."""


@frozen(kw_only=True)
class Quirks:
    """Differences for chunks, metadata, tags and searches; part of a `ServerProfile`.

    A crash is a 500. Numbers without further explanation are recordings.
    """

    validates_segments: bool
    """Whether pydantic checks the bodies of chunks; otherwise an invalid one crashes (569)."""

    bare_segment_errors: bool
    """Whether pydantic checks every field of new chunks, with all errors as `{"error"}`; otherwise
    only a missing list is such an error (536 to 543).
    """

    validates_doc_form: bool
    """Whether an unknown `doc_form` is a validation error (156); otherwise only one unlike the
    dataset's is refused.
    """

    fails_without_answer: bool
    """Whether new content without an answer fails in high-quality Q&A documents, which leaves the
    chunk with an error, disabled and without answer; otherwise only the answer is cleared (2008).
    """

    touches_document: bool
    """Whether changed chunks and metadata set `updated_at` of their document (584, 811)."""

    segment_in_document: bool
    """Whether a chunk is looked up only in the document of the path (575)."""

    strict_segment_query: bool
    """Whether the chunk list rejects a page below 1 (504) and crashes with an unknown status (516).
    """

    loses_child_chunks: bool
    """Whether updating or deleting a child chunk never finds it (measured)."""

    child_chunk_in_segment: bool
    """Whether a child chunk is looked up only in the chunk of the path (measured)."""

    strict_child_chunk_query: bool
    """Whether the child chunk list rejects a page below 1 and accepts any keyword (607 to 610)."""

    child_chunk_needs_model: bool
    """Whether deleting a child chunk fails without an embedding model, even in economy datasets
    (603).
    """

    checks_field_length: bool
    """Whether a field name of more than 255 characters is rejected; otherwise it crashes (649,
    664).
    """

    has_partial_update: bool
    """Whether `partial_update` has an effect (measured)."""

    refuses_unknown_document: bool
    """Whether metadata for an unknown document is a 400 instead of a success (703)."""

    locks_metadata: bool
    """Whether a document refuses values while another request assigns some (measured)."""

    dataset_name_racers: int
    """How many of several creates of one dataset name at once succeed (1071; measured)."""

    field_name_racers: int
    """How many of several creates of one field name at once succeed (measured)."""

    binds_any_metadata_id: bool
    """Whether the id of an assigned field may be any text; otherwise one that is not a UUID crashes
    (699, 1642).
    """

    ignores_nul_metadata: bool
    """Whether a value with a NUL is dropped silently; otherwise it crashes (measured)."""

    sends_null_field: bool
    """Whether renaming an unknown field returns nulls; otherwise it is a 400 (660)."""

    validates_search: bool
    """Whether pydantic checks search settings; otherwise a missing one crashes with its name
    (measured).
    """

    compares_strictly: bool
    """Whether a string in a search filter never equals a number (789)."""

    has_in_operator: bool
    """Whether search filters support `in` and `not in` (measured)."""

    ignores_in_operator: bool
    """Whether conditions with `in` and `not in` are accepted, but match everything (801)."""

    keywords_everywhere: bool
    """Whether high-quality datasets have keywords and keyword search, too (934, 952)."""

    default_top_k: int
    """Maximum number of hits of a search without settings (930)."""

    duplicate_hit_orders: frozenset[str]
    """Orders of a hybrid search, `plain` or `weighted`, in which a hit of both of its searches is
    returned twice (937, 1022).
    """

    incomplete_weights: Literal["ignored", "nothing", "crash"]
    """Result of a search with incomplete weights: the weights are ignored, nothing is found, or the
    server crashes (server source)."""

    drops_failed_hybrid: bool
    """Whether a hybrid search whose reranking model fails finds nothing instead of failing (server
    source).
    """

    needs_all_words: bool
    """Whether a full-text search finds only chunks with all words, as the recorded servers with
    pgvector (1859, 1941); otherwise any word, as with Weaviate, the default vector store.
    """

    refuses_top_k: bool
    """Whether a `top_k` below 1 is a 400 in high-quality datasets; otherwise it is a limit as in
    Python's slices (1838, 1839).
    """

    merges_search: bool
    """Whether settings that a search omits default to the dataset's (server source)."""

    checks_provider: bool
    """Whether a new dataset's `provider` must be `vendor` or `external` (031)."""

    numeric_tag_count: bool
    """Whether the `binding_count` of a new tag is a number, not a string (measured)."""

    refuses_own_tags: bool
    """Whether every response with a tag is a 400, although the request succeeded (measured)."""

    refuses_own_tag_name: bool
    """Whether a tag cannot be renamed to its own name (1449)."""

    filters_by_all_tags: bool
    """Whether the dataset list requires all of several `tag_ids`, not any (1464)."""

    unbinds_several_tags: bool
    """Whether unbinding also accepts `tag_ids` (1471)."""

    drops_external_errors: bool
    """Whether a status other than 200 of an external API means no hits, not an error (server
    source).
    """


@frozen(kw_only=True)
class ServerProfile:
    """The behavior of one server version."""

    version: str
    """Value of the `X-Version` header."""

    compact_json: bool
    """Whether JSON has no spaces between its tokens (measured)."""

    sends_challenge: bool
    """Whether a 401 has a `WWW-Authenticate` header (measured)."""

    error_style: ErrorStyle

    crash_body_has_status: bool
    """Whether the body of a 500 contains the status (measured)."""

    delete_status: int
    delete_body: bytes
    """Body of a successful delete: status 200 and `204` up to 1.12, then a real 204 (measured)."""

    bare_success_endpoints: frozenset[str]
    """Endpoints that send `200` where others send `{"result": "success"}` (measured)."""

    older_route_endpoints: frozenset[str] = frozenset()
    """Endpoints that also keep their older route (300)."""

    workers: int
    """Number of Celery workers of a default installation (measured)."""

    checks_dataset_first: bool
    """Whether the dataset is checked before the API key (measured)."""

    dataset_is_param_endpoints: frozenset[str]
    """Endpoints for which an unknown dataset is a 400, not a 404 (measured)."""

    dataset_unchecked_endpoints: frozenset[str]
    """Endpoints that do not check whether the dataset exists (recording 845)."""

    json_only_endpoints: frozenset[str] | None
    """Endpoints that reject a body that is not JSON; others treat it as empty. None: all."""

    has_status_filter: bool
    """Whether the document list supports the `status` filter (measured)."""

    has_tag_filter: bool
    """Whether the dataset list supports `tag_ids` instead of rejecting it (measured)."""

    shows_keyword_method: bool
    """Whether a single economy dataset shows `keyword_search`, not the stored method (090)."""

    storable_search_methods: tuple[str, ...]
    """Search methods that a dataset can store, in the order of the error message (measured)."""

    checks_renames: bool
    """Whether renaming a dataset to an existing name is rejected (measured)."""

    allows_unbound_external: bool
    """Whether an external dataset without an API is allowed; otherwise it crashes (measured)."""

    requires_model_names: bool
    """Whether changing to high_quality without model names crashes (recording 107)."""

    checks_doc_form: bool
    """Whether a `doc_form` unlike the dataset's is rejected; otherwise it crashes (measured)."""

    has_default_rule: bool
    """Whether a text without a process rule uses the latest or an automatic one; otherwise it
    crashes.
    """

    checks_technique: bool
    """Whether a text without a technique is rejected if the dataset has none; otherwise it
    crashes.
    """

    counts_words_of_text: bool
    """Whether `word_count` is the length of the text, set before splitting, and not the length of
    the chunks (§11.5; recordings 152, 269).
    """

    forbidden_in_names: str
    """Characters that the name of an uploaded file must not contain (219, 2160 to 2168)."""

    too_large_message: str
    """Message about a file that is too large to replace another (322)."""

    splitter: SplitterVersion
    """How texts are split into chunks (measured)."""

    update_hangs: bool
    """Whether updating a document with chunks never ends and blocks the worker."""

    empty_param_error: bool
    """Whether a form without a file is a `bad_request_key_error` (recording 180)."""

    default_model_type: str
    """Model type in the message about a missing default model (recordings 038, 239)."""

    external_retrieval: bool
    """Whether datasets that are not external have external retrieval settings, too (measured)."""

    unset_count: int | None
    """Value of `tokens` and `word_count` before they are known (server source)."""

    replaces_as_stored: bool
    """Whether a create replaces the first of several documents of its name in storage order, not
    the newest (measured)."""

    model_type_error: str
    """Message about an unknown model type (863)."""

    sends_float_created_at: bool
    """Whether `created_at` has a fraction when a single document is fetched (measured)."""

    empty_doc_metadata: tuple[()] | None
    """Value of an empty `doc_metadata` in lists and creates (260)."""

    sends_typed_metadata: bool
    """Whether document lists send metadata values as JSON values, not all as strings (712)."""

    empty_items: tuple[()] | None
    """Value of empty `child_chunks`, `files` and `segment.keywords` of a record (752)."""

    signs_records: bool
    """Whether the `sign_content` of a record is its content, not null (752)."""

    economy_score: float | None
    """Score of a keyword hit (measured)."""

    unknown_fields: frozenset[str]
    """Fields that this version does not send in any object."""

    validates_search_method: bool
    """Whether an unknown search method is rejected; otherwise the search finds nothing."""

    has_models: bool
    """Whether the workspace has the stub models unless `Settings.models` is set."""

    quirks: Quirks
    """Differences for chunks, metadata, tags and searches."""

    pydantic_version: str
    """Version in the links of validation messages."""

    def routes(self, endpoint: Endpoint[Any, Any]) -> list[tuple[str, str]]:
        """Return the methods and paths of an endpoint; empty if this version lacks it."""
        if endpoint.describe_absence(self.version):
            return []
        now, older = (endpoint.method, endpoint.path), endpoint.legacy
        if older is None:
            return [now]
        then = (older.method, older.path)
        if is_older(self.version, older.before):
            return [then]
        return [now, then] if endpoint.name in self.older_route_endpoints else [now]
