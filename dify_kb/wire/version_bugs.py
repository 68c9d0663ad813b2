"""What is known of single server versions: what they lack, and where they answer wrongly."""

from __future__ import annotations

import re

from attrs import frozen

_NUMBER = re.compile(r"\d+")


def parse_version(version: str) -> tuple[int, ...]:
    """Take the numbers out of a version, e.g. (1, 12, 1); () when there are none."""
    return tuple(int(number) for number in _NUMBER.findall(version.partition("-")[0]))


def is_older(version: str | None, than: str) -> bool:
    """Tell whether a server is older; one of unknown version is not."""
    return bool(version) and () < parse_version(version or "") < parse_version(than)


def _release_of(version: str | None) -> str:
    """Name the release that a build such as 1.12.1-fix1 is of."""
    return (version or "").partition("-")[0]


@frozen
class KnownBug:
    """An answer of some versions that does not mean what it says, and what to do about it.

    `words` tell it from a true refusal of the same status.
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
        "This version refuses its own answer (recordings 820 to 830): the tag was made or renamed"
        " all the same. datasets.list and tags.list_for_dataset show it; upgrade to list tags.",
    ),
    KnownBug(
        frozenset({"datasets.list"}),
        frozenset({"1.12.0", "1.12.1"}),
        400,
        "tag_ids",
        "This version refuses every tag_ids (recording 847); datasets.iter filters here instead.",
    ),
    KnownBug(
        frozenset({"child_chunks.update", "child_chunks.delete"}),
        frozenset({"1.8.1"}),
        404,
        "",
        "This version never finds a child chunk to change or delete; update or delete its segment,"
        " or upgrade.",
    ),
    KnownBug(
        frozenset({"metadata.update"}),
        frozenset({"1.4.3", "1.8.1", "1.12.0", "1.12.1"}),
        200,
        "",
        "There is no field of this id: this version answers its rename with nulls (recording 660).",
    ),
)

VERSIONS_HANGING_ON_UPDATE = frozenset({"1.12.0", "1.12.1"})
"""Versions whose worker hangs for ever on an update of a document that has chunks (upstream issue
33748; measured on 1.12.1)."""

_UPDATES = frozenset({"documents.update_by_text", "documents.update_by_file"})


def find_bug_hint(endpoint: str, version: str | None, status: int, message: str = "") -> str | None:
    """Give the help for an answer that is a bug of this version."""
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


def find_warning(endpoint: str, version: str | None) -> str | None:
    """Give the warning for a call that does harm on this version."""
    if endpoint in _UPDATES and _release_of(version) in VERSIONS_HANGING_ON_UPDATE:
        return (
            f"{endpoint}: Dify {version} hangs its worker for ever when it updates a document that"
            " has chunks; create the document again by its name instead, or upgrade."
        )
    return None
