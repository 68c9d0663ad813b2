"""What differs between server versions, as fields.

Where the catalogue already says it (`since`, `until`, `older`), it is not said again.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from attrs import frozen

from dify_kb.wire.version import before

from .quirks import Quirks

if TYPE_CHECKING:
    from dify_kb.wire.endpoint import Endpoint


class Wording(enum.Enum):
    """How a version refuses a field (measured)."""

    PARAMS = enum.auto()
    """`{"code", "message", "params"}`: the first wrong field, and no status."""

    ERRORS = enum.auto()
    """`{"errors": {field: text}, "message"}`: the first wrong field, neither code nor status."""

    PYDANTIC = enum.auto()
    """The usual three keys; the message tells all wrong fields."""


@frozen(kw_only=True)
class Profile:
    """How one version of the server answers."""

    version: str
    """What `X-Version` says."""

    compact: bool
    """Whether JSON has no spaces between its tokens (measured)."""

    challenge: bool
    """Whether a 401 has `WWW-Authenticate` (measured)."""

    wording: Wording

    crash_status: bool
    """Whether the body of a 500 tells its status (measured)."""

    delete_status: int
    delete_body: bytes
    """What a successful delete answers: 200 and `204` up to 1.12, then a real 204 (measured)."""

    bare_success: frozenset[str]
    """Endpoints that answer `200` where others answer `{"result": "success"}` (measured)."""

    lacks: frozenset[str] = frozenset()
    """Endpoints that this version has not, although older and newer ones have (recording 009)."""

    keeps_older: frozenset[str] = frozenset()
    """Endpoints that still have their older route, too (server source)."""

    dataset_first: bool
    """Whether the dataset is looked up before the key (measured)."""

    dataset_is_param: frozenset[str]
    """Endpoints where an unknown dataset is a 400, not a 404 (measured)."""

    dataset_unchecked: frozenset[str]
    """Endpoints that do not look whether the dataset exists (recording 845)."""

    needs_json: frozenset[str] | None
    """Endpoints that refuse what is not JSON, which is an empty body for others. None: all."""

    status_filter: bool
    """Whether the document list has its `status` (measured)."""

    tag_filter: bool
    """Whether the dataset list takes `tag_ids`, and does not refuse it (measured)."""

    stored_methods: tuple[str, ...]
    """The search methods that a dataset may store (measured), in the order of the message."""

    unique_renames: bool
    """Whether a rename to a name that is taken is refused (measured)."""

    external_unbound: bool
    """Whether an external dataset may have no API, and is not a crash (measured)."""

    named_models: bool
    """Whether a change to high_quality crashes without the names of a model (recording 107)."""

    checks_form: bool
    """Whether another `doc_form` than the dataset's is refused, not a crash (measured)."""

    automatic_rule: bool
    """Whether a text without a process rule takes the latest, or automatic; else a crash."""

    checks_technique: bool
    """Whether a text without a technique for a dataset without one is refused, not a crash."""

    counts_text: bool
    """Whether `word_count` is the characters of the text, known before it is cut, and not those
    of the chunks (§11.5; recordings 152, 269)."""

    update_hangs: bool
    """Whether an update of a document with chunks never ends, and holds its worker."""

    empty_param_error: bool
    """Whether a form without a file is `bad_request_key_error` (recording 180)."""

    no_model: str
    """The end of the message that there is no default model (recordings 038, 239)."""

    unset_object: bool
    """Whether an unset nested object is null, not an object of nulls (server source)."""

    external_retrieval: bool
    """Whether a dataset that is not external shows the settings of one all the same (measured)."""

    unset_count: int | None
    """`tokens` and `word_count` that are not known yet (server source)."""

    float_created: bool
    """Whether one document's `created_at` is written with a fraction (measured)."""

    no_doc_metadata: tuple[()] | None
    """`doc_metadata` of a document without any, in lists and creates (server source)."""

    no_items: tuple[()] | None
    """`child_chunks` and `files` of a record without any (server source)."""

    economy_score: float | None
    """The score of a keyword hit (measured)."""

    never_sent: frozenset[str]
    """Fields that this version does not know, wherever they would stand."""

    typed_methods: bool
    """Whether a search method that does not exist is refused, not a search that finds nothing."""

    models: bool
    """Whether the workspace has the stand-in models, unless it is told otherwise."""

    quirks: Quirks
    """What else differs, for chunks, metadata, tags and searches."""

    pydantic: str
    """The version in the links of validation messages."""

    def routes(self, endpoint: Endpoint[Any, Any]) -> list[tuple[str, str]]:
        """Tell the methods and paths of an endpoint; none when this version does not have it."""
        missing = endpoint.missing_in(self.version)
        if missing or endpoint.name in self.lacks:
            return []
        now, older = (endpoint.method, endpoint.path), endpoint.older
        if older is None:
            return [now]
        then = (older.method, older.path)
        if before(self.version, older.before):
            return [then]
        return [now, then] if endpoint.name in self.keeps_older else [now]
