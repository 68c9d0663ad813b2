"""What differs between server versions, as fields.

Where the catalogue already says it (`since`, `until`, `older`), it is not said again.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Literal

from attrs import frozen

from dify_kb.wire.version_bugs import is_older

if TYPE_CHECKING:
    from dify_kb.wire.endpoint import Endpoint


class ErrorStyle(enum.Enum):
    """How a version refuses a field (measured)."""

    PARAMS = enum.auto()
    """`{"code", "message", "params"}`: the first wrong field, and no status."""

    ERRORS = enum.auto()
    """`{"errors": {field: text}, "message"}`: the first wrong field, neither code nor status."""

    PYDANTIC = enum.auto()
    """The usual three keys; the message tells all wrong fields."""


@frozen(kw_only=True)
class Quirks:
    """How one version answers there; a field of its `Profile`."""

    validates_segments: bool
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

    has_partial_update: bool
    """Whether `partial_update` is heeded (measured)."""

    refuses_unknown_document: bool
    """Whether metadata for an unknown document is a 400, not a success (server source)."""

    validates_search: bool
    """Whether pydantic checks the settings of a search; else one that is missing is a crash with
    its name (measured).
    """

    compares_strictly: bool
    """Whether a text in a search's filter never equals a number (789)."""

    has_in_operator: bool
    """Whether searches know `in` and `not in` (measured)."""

    ignores_in_operator: bool
    """Whether a condition with `in` or `not in` is taken and then lets everything through (801)."""

    keywords_everywhere: bool
    """Whether high-quality bases have keywords, too, and keyword search (recordings 934, 952)."""

    default_top_k: int
    """How many hits a search without settings has (recording 930)."""

    duplicate_hit_orders: frozenset[str]
    """Orders of a hybrid search, `plain` or `weighted`, in which what both of its halves find is
    there twice (recordings 937, 1022)."""

    incomplete_weights: Literal["ignored", "nothing", "crash"]
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

    unbinds_several_tags: bool
    """Whether unbinding takes `tag_ids`, too (server source)."""

    drops_external_errors: bool
    """Whether an external API that does not answer 200 found nothing, and is no error (server
    source)."""


@frozen(kw_only=True)
class ServerProfile:
    """How one version of the server answers."""

    version: str
    """What `X-Version` says."""

    compact_json: bool
    """Whether JSON has no spaces between its tokens (measured)."""

    sends_challenge: bool
    """Whether a 401 has `WWW-Authenticate` (measured)."""

    error_style: ErrorStyle

    crash_body_has_status: bool
    """Whether the body of a 500 tells its status (measured)."""

    delete_status: int
    delete_body: bytes
    """What a successful delete answers: 200 and `204` up to 1.12, then a real 204 (measured)."""

    bare_success_endpoints: frozenset[str]
    """Endpoints that answer `200` where others answer `{"result": "success"}` (measured)."""

    missing_endpoints: frozenset[str] = frozenset()
    """Endpoints that this version has not, although older and newer ones have (recording 009)."""

    older_route_endpoints: frozenset[str] = frozenset()
    """Endpoints that still have their older route, too (server source)."""

    checks_dataset_first: bool
    """Whether the dataset is looked up before the key (measured)."""

    dataset_is_param_endpoints: frozenset[str]
    """Endpoints where an unknown dataset is a 400, not a 404 (measured)."""

    dataset_unchecked_endpoints: frozenset[str]
    """Endpoints that do not look whether the dataset exists (recording 845)."""

    json_only_endpoints: frozenset[str] | None
    """Endpoints that refuse what is not JSON, which is an empty body for others. None: all."""

    has_status_filter: bool
    """Whether the document list has its `status` (measured)."""

    has_tag_filter: bool
    """Whether the dataset list takes `tag_ids`, and does not refuse it (measured)."""

    storable_search_methods: tuple[str, ...]
    """The search methods that a dataset may store (measured), in the order of the message."""

    checks_renames: bool
    """Whether a rename to a name that is taken is refused (measured)."""

    allows_unbound_external: bool
    """Whether an external dataset may have no API, and is not a crash (measured)."""

    requires_model_names: bool
    """Whether a change to high_quality crashes without the names of a model (recording 107)."""

    checks_doc_form: bool
    """Whether another `doc_form` than the dataset's is refused, not a crash (measured)."""

    has_default_rule: bool
    """Whether a text without a process rule takes the latest, or automatic; else a crash."""

    checks_technique: bool
    """Whether a text without a technique for a dataset without one is refused, not a crash."""

    counts_words_of_text: bool
    """Whether `word_count` is the characters of the text, known before it is cut, and not those
    of the chunks (§11.5; recordings 152, 269)."""

    update_hangs: bool
    """Whether an update of a document with chunks never ends, and holds its worker."""

    empty_param_error: bool
    """Whether a form without a file is `bad_request_key_error` (recording 180)."""

    default_model_type: str
    """The end of the message that there is no default model (recordings 038, 239)."""

    sends_null_objects: bool
    """Whether an unset nested object is null, not an object of nulls (server source)."""

    external_retrieval: bool
    """Whether a dataset that is not external shows the settings of one all the same (measured)."""

    unset_count: int | None
    """`tokens` and `word_count` that are not known yet (server source)."""

    sends_float_created_at: bool
    """Whether one document's `created_at` is written with a fraction (measured)."""

    empty_doc_metadata: tuple[()] | None
    """`doc_metadata` of a document without any, in lists and creates (server source)."""

    empty_items: tuple[()] | None
    """`child_chunks` and `files` of a record without any (server source)."""

    economy_score: float | None
    """The score of a keyword hit (measured)."""

    unknown_fields: frozenset[str]
    """Fields that this version does not know, wherever they would stand."""

    validates_search_method: bool
    """Whether a search method that does not exist is refused, not a search that finds nothing."""

    has_models: bool
    """Whether the workspace has the stand-in models, unless it is told otherwise."""

    quirks: Quirks
    """What else differs, for chunks, metadata, tags and searches."""

    pydantic_version: str
    """The version in the links of validation messages."""

    def routes(self, endpoint: Endpoint[Any, Any]) -> list[tuple[str, str]]:
        """Tell the methods and paths of an endpoint; none when this version does not have it."""
        missing = endpoint.describe_absence(self.version)
        if missing or endpoint.name in self.missing_endpoints:
            return []
        now, older = (endpoint.method, endpoint.path), endpoint.legacy
        if older is None:
            return [now]
        then = (older.method, older.path)
        if is_older(self.version, older.before):
            return [then]
        return [now, then] if endpoint.name in self.older_route_endpoints else [now]
