from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dify_kb.ingest.sources.document_names import MAX_NAME_LENGTH, document_name, file_extension

PART = st.text(st.characters(blacklist_characters="/\x00"), min_size=1, max_size=12).filter(
    lambda part: part not in {".", ".."}
)
KEYS = st.lists(PART, min_size=1, max_size=4).map("/".join)
TRICKY = st.lists(
    st.sampled_from(["a", "b", "_", "__", "/", "~", ".txt", ".md", ".rst", "%", ":", " ", "é"]),
    min_size=1,
    max_size=8,
).map("".join)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("readme.md", "readme.md"),
        ("docs/readme.md", "docs__readme.md"),
        ("a/b.txt", "a__b.txt"),
        ("资料/重置 说明.md", "资料__重置 说明.md"),
        ("under_score.txt", "under_score.txt"),
        ("v1.2 notes.txt", "v1.2 notes.txt"),
    ],
)
def test_plain_keys_become_plain_names(key: str, name: str) -> None:
    assert document_name(key) == name


@pytest.mark.parametrize(
    "key",
    [
        "a__b.txt",
        "a_/b.txt",
        "why?.md",
        "100%.txt",
        "c:\\d.txt",
        "new\nline.txt",
        "surrogate\udcff.txt",
        "e\u0301.txt",
        "tagged~0123abcd.md",
        "notes.rst.txt",
        "x" * 300 + ".md",
    ],
)
def test_ambiguous_keys_get_a_hash(key: str) -> None:
    """Two files must never become one document: the server would overwrite the first."""
    name = document_name(key)

    assert re.search(r"~[0-9a-f]{8}\.(txt|md)$", name)
    assert file_extension(name) == file_extension(key)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a__b.txt", False), ("a/b.txt", False)),
        (("notes.rst", True), ("notes.rst.txt", False)),
        (("README", True), ("README.txt", False)),
        (("ls.1", True), ("ls.1.txt", False)),
        (("e\u0301.md", False), ("\xe9.md", False)),
        (("a:b.md", False), ("a?b.md", False)),
        (("x" * 300 + "1.md", False), ("x" * 300 + "2.md", False)),
    ],
)
def test_similar_keys_get_different_names(one: tuple[str, bool], other: tuple[str, bool]) -> None:
    assert document_name(one[0], as_text=one[1]) != document_name(other[0], as_text=other[1])


def test_files_sent_as_text_get_a_txt_extension() -> None:
    assert document_name("docs/notes.rst", as_text=True) == "docs__notes.rst.txt"


@given(KEYS)
@example("a/" * 150 + "b.markdown")
def test_every_name_is_accepted_unchanged_by_the_server(key: str) -> None:
    """The server rejects nine characters, control characters and a trailing space, and truncates
    names longer than 200 characters at their first dot."""
    name = document_name(key)

    assert 0 < len(name) <= MAX_NAME_LENGTH
    assert not re.search(r'[/\\:*?"<>|%\x00-\x1f\x7f]|\s$', name)
    assert name == unicodedata.normalize("NFC", name)
    name.encode()


@given(st.sets(TRICKY | KEYS, min_size=2, max_size=2))
def test_two_keys_never_share_a_name(keys: set[str]) -> None:
    first, second = keys

    assert document_name(first) != document_name(second)


@given(TRICKY, TRICKY)
@example("a.rst", "a.rst.txt")
@example("a.b__c", "a.b/c.txt")
def test_text_and_a_file_never_share_a_name(text: str, file: str) -> None:
    """Files are sent as text only if the server does not accept their extension."""
    if file_extension(text) in {"txt", "md"} or file_extension(file) not in {"txt", "md"}:
        return

    assert document_name(text, as_text=True) != document_name(file)
