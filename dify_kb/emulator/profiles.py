"""What differs between server versions, as data."""

from __future__ import annotations

from attrs import frozen

from dify_kb.errors import ConfigError


@frozen(kw_only=True)
class Profile:
    """How one version of the server answers."""

    version: str
    """What `X-Version` says."""

    delete_status: int
    delete_body: bytes
    """What a successful delete answers: 200 and `204` up to 1.12, then a real 204 (§1.1)."""

    unset_object: bool
    """Whether an unset nested object is null, not an object of nulls (reference.md §0.1)."""

    no_doc_metadata: tuple[()] | None
    """`doc_metadata` of a document without any, in lists and creates (reference.md §1.2)."""

    no_items: tuple[()] | None
    """`child_chunks` and `files` of a record without any (reference.md §1.9)."""

    never_sent: frozenset[str]
    """Fields that this version does not know, wherever they would stand."""

    pydantic: str
    """The version in the links of validation messages."""


_1_16 = Profile(
    version="1.16",
    delete_status=204,
    delete_body=b"",
    unset_object=True,
    no_doc_metadata=(),
    no_items=(),
    never_sent=frozenset(),
    pydantic="2.11",
)

_PROFILES = {profile.version: profile for profile in (_1_16,)}

VERSIONS = tuple(_PROFILES)
"""The versions that the emulator can be."""


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
