"""The versions that the emulator knows, each told by how it differs from the next newer one."""

from __future__ import annotations

from typing import Final

import attrs

from dify_kb.errors import ConfigError

from .profile import Profile, Wording
from .quirks import QUIRKS_1_4_3, QUIRKS_1_8_1, QUIRKS_1_12_1, QUIRKS_1_16

_SINCE_MAIN: Final = frozenset({"maintainer"})

_SINCE_1_11: Final = frozenset(
    {
        "author_name", "summary_index_setting", "pipeline_id", "runtime_mode", "chunk_structure",
        "icon_info", "is_published", "total_documents", "total_available_documents",
        "enable_api", "is_multimodal", "summary_index_status", "need_summary",
        "attachments", "files", "summary", "icon_small_dark",
    }
)  # fmt: skip
"""Fields by the version that first sends them (measured)."""

_BY_DOCUMENT: Final = frozenset(
    {
        "documents.create_by_text", "documents.create_by_file", "documents.update_by_text",
        "documents.update_by_file", "documents.delete",
    }
)  # fmt: skip

_METADATA_WRITES: Final = frozenset({"metadata.set_built_in", "metadata.assign"})

_1_16 = Profile(
    version="1.16",
    quirks=QUIRKS_1_16,
    models=True,
    typed_methods=True,
    compact=True,
    challenge=True,
    wording=Wording.PYDANTIC,
    crash_status=True,
    delete_status=204,
    delete_body=b"",
    bare_success=frozenset(),
    keeps_older=frozenset({"documents.update_by_file"}),
    dataset_first=False,
    dataset_is_param=frozenset(),
    dataset_unchecked=frozenset(),
    needs_json=None,
    status_filter=True,
    tag_filter=True,
    stored_methods=("semantic_search", "full_text_search", "hybrid_search", "keyword_search"),
    unique_renames=True,
    external_unbound=True,
    named_models=True,
    checks_form=True,
    automatic_rule=True,
    checks_technique=True,
    counts_text=False,
    update_hangs=False,
    empty_param_error=False,
    no_model="text-embedding",
    unset_object=True,
    external_retrieval=False,
    unset_count=None,
    float_created=False,
    no_doc_metadata=(),
    no_items=(),
    economy_score=0.0,
    never_sent=frozenset(),
    pydantic="2.11",
)

_1_12_1 = attrs.evolve(
    _1_16,
    version="1.12.1",
    quirks=QUIRKS_1_12_1,
    models=False,
    delete_status=200,
    delete_body=b"204\n",
    lacks=frozenset({"server.info"}),
    keeps_older=frozenset(),
    dataset_first=True,
    tag_filter=False,
    checks_technique=False,
    update_hangs=True,
    unset_object=False,
    external_retrieval=True,
    no_doc_metadata=None,
    no_items=None,
    never_sent=_SINCE_MAIN,
)

_1_8_1 = attrs.evolve(
    _1_12_1,
    version="1.8.1",
    quirks=QUIRKS_1_8_1,
    typed_methods=False,
    wording=Wording.ERRORS,
    bare_success=_METADATA_WRITES,
    dataset_first=False,
    dataset_is_param=_BY_DOCUMENT,
    dataset_unchecked=frozenset({"tags.list_for_dataset"}),
    needs_json=frozenset({"datasets.update", "documents.set_status"}),
    status_filter=False,
    tag_filter=True,
    stored_methods=("hybrid_search", "semantic_search", "full_text_search", "keyword_search"),
    unique_renames=False,
    external_unbound=False,
    named_models=False,
    automatic_rule=False,
    checks_technique=True,
    counts_text=True,
    update_hangs=False,
    no_model="ModelType.TEXT_EMBEDDING",
    float_created=True,
    economy_score=None,
    never_sent=_SINCE_MAIN | _SINCE_1_11,
)

_1_4_3 = attrs.evolve(
    _1_8_1,
    version="1.4.3",
    quirks=QUIRKS_1_4_3,
    compact=False,
    challenge=False,
    wording=Wording.PARAMS,
    crash_status=False,
    lacks=frozenset({"documents.get"}),
    needs_json=None,
    stored_methods=("hybrid_search", "semantic_search", "full_text_search"),
    checks_form=False,
    empty_param_error=True,
    unset_count=0,
    float_created=False,
)

_PROFILES = {profile.version: profile for profile in (_1_4_3, _1_8_1, _1_12_1, _1_16)}

VERSIONS = tuple(_PROFILES)
"""The versions that the emulator can be, the oldest first."""


def profile_of(version: str) -> Profile:
    """Find a profile.

    Raises:
        ConfigError: this version is not known.
    """
    if version not in _PROFILES:
        raise ConfigError(
            f"The emulator does not know version {version!r}.",
            hint=f"Choose one of: {', '.join(VERSIONS)}.",
        )
    return _PROFILES[version]
