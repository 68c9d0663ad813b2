"""Compare server versions, and list the known bugs of some."""

from __future__ import annotations

import re

from attrs import frozen

_NUMBER = re.compile(r"\d+")


def parse_version(version: str) -> tuple[int, ...]:
    """Parse a version into a tuple of ints, e.g. (1, 12, 1); () if it has no digits."""
    return tuple(int(number) for number in _NUMBER.findall(version.partition("-")[0]))


def is_older(version: str | None, than: str) -> bool:
    """Return whether a version is older than another; an unknown version is not."""
    return bool(version) and () < parse_version(version or "") < parse_version(than)


def _release_of(version: str | None) -> str:
    """Return the release of a build such as 1.12.1-fix1."""
    return (version or "").partition("-")[0]


@frozen
class KnownBug:
    """A wrong response of some server versions, and advice about it.

    `words` distinguish it from a genuine error response of the same status.
    """

    endpoints: frozenset[str]
    versions: frozenset[str]
    status: int
    words: str
    help: str


KNOWN_BUGS = (
    KnownBug(
        frozenset({"tags.create", "tags.update", "tags.list"}),
        frozenset({"1.12.0", "1.12.1"}),
        400,
        "binding_count",
        "Ignore this error, a bug of this version (recordings 820 to 830): the tag was created or"
        " renamed. Use datasets.list or tags.list_for_dataset, or upgrade to list tags.",
    ),
    KnownBug(
        frozenset({"datasets.list"}),
        frozenset({"1.12.0", "1.12.1"}),
        400,
        "tag_ids",
        "Use datasets.iter, which filters by tag in the client: this version rejects tag_ids"
        " (recording 847).",
    ),
    KnownBug(
        frozenset({"child_chunks.update", "child_chunks.delete"}),
        frozenset({"1.8.1"}),
        404,
        "",
        "Update or delete the segment instead, or upgrade: this version cannot change or delete"
        " child chunks.",
    ),
    KnownBug(
        frozenset({"metadata.update"}),
        frozenset({"1.4.3", "1.8.1", "1.12.0", "1.12.1"}),
        200,
        "",
        "Check the field id: this version returns nulls for an unknown id (recording 660).",
    ),
)

VERSIONS_HANGING_ON_UPDATE = frozenset({"1.12.0", "1.12.1"})
"""Versions whose worker hangs forever when a document with chunks is updated (upstream issue 33748;
measured on 1.12.1)."""

_UPDATES = frozenset({"documents.update_by_text", "documents.update_by_file"})


def find_bug_hint(endpoint: str, version: str | None, status: int, message: str = "") -> str | None:
    """Return the advice about a response that is a known bug of this version, if it is one."""
    return next(
        (
            bug.help
            for bug in KNOWN_BUGS
            if endpoint in bug.endpoints
            and _release_of(version) in bug.versions
            and status == bug.status
            and bug.words in message
        ),
        None,
    )


def hangs_on_update(version: str | None) -> bool:
    """Return whether updating a document hangs the worker of this version forever."""
    return _release_of(version) in VERSIONS_HANGING_ON_UPDATE


def find_warning(endpoint: str, version: str | None) -> str | None:
    """Return the warning about a call that does harm on this version, if it does."""
    if endpoint in _UPDATES and hangs_on_update(version):
        return (
            f"{endpoint}: the worker of Dify {version} hangs forever when a document with chunks is"
            " updated. Create the document again under its name instead, or upgrade."
        )
    return None


@frozen
class VersionBug:
    """A bug of some versions, independent of single responses."""

    versions: frozenset[str]
    description: str
    fixed_in: str
    """The first measured version without the bug."""


VERSION_BUGS = (
    VersionBug(
        VERSIONS_HANGING_ON_UPDATE,
        "updating a document in place blocks the worker forever; replace documents by name, as"
        " `dify-kb load` does",
        "1.14.2",
    ),
    VersionBug(
        frozenset({"1.12.0", "1.12.1"}),
        "tags are created and renamed, but reported as 400",
        "1.14.2",
    ),
    VersionBug(frozenset({"1.8.1"}), "child chunks can be neither changed nor deleted", "1.12.1"),
    VersionBug(
        frozenset({"1.4.3"}), "archived documents can be neither unarchived nor deleted", "1.8.1"
    ),
    VersionBug(
        frozenset({"1.4.3", "1.8.1", "1.12.0", "1.12.1"}),
        "the metadata fields of a dataset can be read with the key of another workspace",
        "1.14.2",
    ),
)
"""Bugs measured on 1.4.3, 1.8.1 and 1.12.1, and that 1.14.2 does not have."""


def list_version_bugs(version: str | None) -> list[VersionBug]:
    """Return the bugs of a version."""
    return [bug for bug in VERSION_BUGS if _release_of(version) in bug.versions]
