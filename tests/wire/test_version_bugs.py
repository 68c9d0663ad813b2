"""Version comparison, known bugs, and legacy routes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kb.models import CreateTag, File, UpdateByFile
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import Call
from dify_kb.wire.version_bugs import (
    KNOWN_BUGS,
    VERSIONS_HANGING_ON_UPDATE,
    find_bug_hint,
    find_warning,
    is_older,
    parse_version,
)

BUILT_IN: Call[object] = catalog.LIST_BUILT_IN_FIELDS.call(dataset_id="d1")  # type: ignore[assignment]  # its result plays no part
UPDATE: Call[object] = catalog.UPDATE_DOCUMENT_BY_FILE(  # type: ignore[assignment]  # likewise
    UpdateByFile(file=File(name="a.txt", content=b"", size=0)), dataset_id="d1", document_id="d2"
)
TAG: Call[object] = catalog.CREATE_TAG(CreateTag(name="a"))  # type: ignore[assignment]  # likewise


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("1.12.1", (1, 12, 1)),
        ("1.16", (1, 16)),
        ("v1.8.1", (1, 8, 1)),
        ("1.11.0-beta.2", (1, 11, 0)),
        ("main", ()),
        ("", ()),
    ],
)
def test_a_version_is_parsed_into_its_numbers(version: str, numbers: tuple[int, ...]) -> None:
    """A pre-release counts as the release, as it has the same operations."""
    assert parse_version(version) == numbers


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [
        ("1.8.1", "1.11", True),
        ("1.9.9", "1.11", True),
        ("1.10.1", "1.11", True),
        ("1.11", "1.11", False),
        ("1.11.0", "1.11", False),
        ("1.11.0-rc1", "1.11", False),
        ("1.12.1", "1.11", False),
        ("2.0", "1.16", False),
        ("0.15.3", "1.4.2", True),
        (None, "1.11", False),
        ("", "1.11", False),
        ("main", "1.11", False),
    ],
)
def test_versions_compare_by_their_numbers(
    version: str | None,
    than: str,
    older: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    """As text, 1.8 would be newer than 1.11. An unknown version counts as new."""
    assert is_older(version, than) is older


@given(st.text(max_size=20))
def test_no_version_breaks_a_comparison(version: str) -> None:
    """The version is a header, which a proxy may set to any value."""
    assert is_older(version, "1.11") in {True, False}


@pytest.mark.parametrize("version", [None, "1.11", "1.12.1", "1.16", "main"])
def test_a_new_or_unknown_server_is_asked_at_the_new_path(version: str | None) -> None:
    assert BUILT_IN.select_route(version) == ("GET", "/datasets/d1/metadata/built-in")


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.10.9"])
def test_an_older_server_is_asked_at_the_older_path(version: str) -> None:
    assert BUILT_IN.select_route(version) == ("GET", "/datasets/metadata/built-in")


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.12.1", "1.13.3"])
def test_an_older_server_is_asked_by_the_older_verb(version: str) -> None:
    """Older servers return 405 for PATCH. The older path has the same parameters."""
    assert UPDATE.select_route(version) == ("POST", "/datasets/d1/documents/d2/update-by-file")
    assert UPDATE.select_route("1.14.2") == ("PATCH", "/datasets/d1/documents/d2")


@pytest.mark.parametrize("version", [None, "1.4.3", "1.16"])
def test_an_operation_without_an_older_path_has_one_way(version: str | None) -> None:
    assert TAG.select_route(version) == ("POST", "/datasets/tags")


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.4.1", "it was added in 1.4.2"),
        ("1.4.2", None),
        ("1.12.1", None),
        (None, None),
    ],
)
def test_an_operation_says_since_when_it_exists(version: str | None, said: str | None) -> None:
    assert catalog.CREATE_TAG.describe_absence(version) == said


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("1.8.1", None),
        ("1.10.1", None),
        ("1.11.0", "it was removed in 1.11"),
        ("1.16", "it was removed in 1.11"),
        (None, None),
    ],
)
def test_an_operation_says_when_it_was_removed(version: str | None, said: str | None) -> None:
    assert catalog.GET_UPLOAD_FILE.describe_absence(version) == said


def test_a_bug_is_known_by_operation_version_status_and_words() -> None:
    """Any criterion alone would add a wrong hint to genuine errors."""
    assert find_bug_hint("tags.create", "1.12.1", 400, "…\nbinding_count\n…")
    assert find_bug_hint("tags.create", "1.12.1", 400, "Tag name already exists") is None
    assert find_bug_hint("tags.create", "1.12.1", 404, "binding_count") is None
    assert find_bug_hint("tags.create", "1.8.1", 400, "binding_count") is None
    assert find_bug_hint("tags.delete", "1.12.1", 400, "binding_count") is None
    assert find_bug_hint("tags.create", None, 400, "binding_count") is None
    assert find_bug_hint("tags.create", "1.12.1-fix1", 400, "binding_count")


def test_bugs_are_of_operations_that_exist() -> None:
    """A misspelt name would never match."""
    names = {endpoint.name for endpoint in catalog.ENDPOINTS}

    assert {name for known in KNOWN_BUGS for name in known.endpoints} <= names


@pytest.mark.parametrize("version", sorted(VERSIONS_HANGING_ON_UPDATE))
@pytest.mark.parametrize("name", ["documents.update_by_text", "documents.update_by_file"])
def test_an_update_is_dangerous_where_the_worker_hangs(name: str, version: str) -> None:
    """The queue of the whole server stops (upstream issue 33748)."""
    warning = find_warning(name, version)

    assert warning
    assert version in warning
    assert "under its name instead" in warning


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("documents.update_by_text", "1.8.1"),
        ("documents.update_by_text", "1.16"),
        ("documents.update_by_text", None),
        ("documents.create_by_text", "1.12.1"),
        ("segments.update", "1.12.1"),
    ],
)
def test_other_calls_are_not_warned_of(name: str, version: str | None) -> None:
    assert find_warning(name, version) is None
