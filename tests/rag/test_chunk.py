"""Chunking; the expected segments of named cases were recorded from a Dify 1.12.1 server."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dify_kb.models import (
    UNSET,
    ChunkingRules,
    PreProcessingRule,
    ProcessMode,
    ProcessRule,
    Segmentation,
    Unset,
)
from dify_kb.rag import ChunkError, SplitterVersion, build_leading_symbols, chunk, extract
from dify_kb.rag.chunk import clean

FOX = (
    "The quick brown fox jumps over the lazy dog.\n\n"
    "Postgres stores relational data in tables. Redis keeps keys in memory.\n\n"
    "Celery runs background tasks for document indexing."
)


def rule(
    separator: str = "\n", max_tokens: int = 50, chunk_overlap: int = 0, *steps: str
) -> ProcessRule:
    """Build a process rule without validation, as the server accepts it."""
    return ProcessRule(
        mode=ProcessMode.CUSTOM,
        rules=ChunkingRules(
            pre_processing_rules=[PreProcessingRule(id=step, enabled=True) for step in steps],
            segmentation=Segmentation(
                separator=separator, max_tokens=max_tokens, chunk_overlap=chunk_overlap
            ),
        ),
    )


def test_automatic_keeps_a_short_text_whole() -> None:
    """Case 121."""
    assert chunk([FOX], ProcessRule.automatic()) == [FOX]


def test_automatic_joins_lines_up_to_500_characters() -> None:
    """Case 443: one chunk held several lines, and an indentation of four became one space."""
    lines = "\n".join(f"    key{number} = value" for number in range(40))

    first, *rest = chunk([lines], ProcessRule.automatic())

    assert first.startswith("key0 = value\n key1")
    assert 480 < len(first) <= 500
    assert len(rest) == 1
    assert rest[0][:30] in first[-50:]


def test_long_parts_are_split_at_sentences_and_spaces() -> None:
    """Case 153: 12 segments of 490 characters in all."""
    chunks = chunk([FOX * 3], rule("###", 60, 10, "remove_extra_spaces", "remove_urls_emails"))

    assert len(chunks) == 12
    assert sum(map(len, chunks)) == 490
    assert chunks[2:5] == [
        "Redis keeps keys in memory.",
        "Celery runs background tasks for document indexing.The",
        "quick brown fox jumps over the lazy dog.",
    ]


def test_first_split_at_spaces_drops_the_spaces() -> None:
    """Case 500."""
    text = "Paragraph 0 talks about topic0 and some database words like postgres and redis."

    assert chunk([text], rule("\n\n")) == [
        "Paragraph0talksabouttopic0andsomedatabasewordslike",
        "postgresandredis.",
    ]


def test_separator_splits_short_texts_too() -> None:
    """Case 913."""
    sections = [f"Section {number}: cats and dogs" for number in range(5)]

    assert chunk(["\n\n".join(sections)], rule("\\n\\n", 500)) == sections


@pytest.mark.parametrize(
    ("content", "extension", "expected"),
    [
        (b"# Title\n\npara one\n\n## Sub\n\npara two", "md", ["Title\npara one", "Sub\npara two"]),
        (b"q,a\n1,one\n2,two\n", "csv", ["q: 1;a: one", "q: 2;a: two"]),
        (b"<html><body><h1>Hi</h1><p>para</p></body></html>", "html", ["Hipara"]),
        (b"   \n ", "txt", []),
        (b"", "txt", []),
    ],
)
def test_files_become_the_segments_of_a_real_server(
    content: bytes, extension: str, expected: list[str]
) -> None:
    """Cases 133, 135, 199 to 204, and the word counts of 260."""
    assert chunk(extract(content, extension), ProcessRule.automatic()) == expected


def test_leading_symbols_are_removed() -> None:
    assert chunk(["。. one\n, two\n- three\n..."], rule()) == ["one", "two", "- three"]


def test_text_without_separators_is_split_by_length_with_overlap() -> None:
    digits = "".join(str(number % 10) for number in range(120))

    assert chunk([digits], rule(chunk_overlap=10)) == [digits[:50], digits[40:90], digits[80:]]


def test_empty_separator_falls_back_to_default_separators() -> None:
    assert chunk(["a\nb"], rule("")) == ["a\nb"]


@pytest.mark.parametrize("max_tokens", [10, 49, 4001])
def test_length_out_of_range_fails_with_the_message_of_the_server(max_tokens: int) -> None:
    """Cases 149 and 151."""
    with pytest.raises(ChunkError, match=r"^Custom segment length .* between 50 and 4000\.$"):
        chunk(["a"], rule(max_tokens=max_tokens))


def test_overlap_larger_than_the_length_is_an_error() -> None:
    with pytest.raises(ChunkError, match="larger chunk overlap"):
        chunk(["a"], rule(chunk_overlap=51))


@pytest.mark.parametrize("rules", [None, UNSET])
def test_custom_mode_needs_rules(rules: Unset | None) -> None:
    with pytest.raises(ChunkError, match="No rules"):
        chunk(["a"], ProcessRule(mode=ProcessMode.CUSTOM, rules=rules))


def test_hierarchical_rules_split_a_plain_document_like_custom_rules() -> None:
    """Documents of the form `text_model` are split like this (server source)."""
    assert chunk(["one\n\ntwo\nthree"], ProcessRule.parent_child()) == ["one", "two\nthree"]


PIECES = st.sampled_from([" ", "\n", "\n\n", "。", ". ", "a", "字" * 30, "word" * 20, "x" * 49])
TEXTS = st.one_of(st.text(max_size=300), st.lists(PIECES, max_size=40).map("".join))


@settings(deadline=None)
@given(
    text=TEXTS,
    separator=st.sampled_from(["", "\n", "\\n\\n", "a", "###"]),
    max_tokens=st.integers(50, 120),
    chunk_overlap=st.integers(-3, 50),
)
def test_no_chunk_is_blank_or_longer_than_the_rule(
    text: str, separator: str, max_tokens: int, chunk_overlap: int
) -> None:
    chunks = chunk([text], rule(separator, max_tokens, chunk_overlap))

    assert all(content.strip() and len(content) <= max_tokens for content in chunks)


@settings(deadline=None)
@given(text=TEXTS)
def test_automatic_mode_drops_only_spaces_and_leading_symbols(text: str) -> None:
    def letters(text: str) -> set[str]:
        return {char for char in clean(text) if char.isalnum()}

    chunks = chunk([text], ProcessRule.automatic())

    assert all(len(content) <= 500 for content in chunks)
    assert letters("".join(chunks)) == letters(text)


@pytest.mark.parametrize(
    "part", ["a", "[", "<", "![", "a@", " ", "\n", ". ", "#", "https://", "字", "a-"]
)
def test_a_long_text_of_any_kind_is_split_in_linear_time(part: str) -> None:
    """A quadratic regular expression would take minutes here."""
    content = (part * (300_000 // len(part))).encode()
    started = time.process_time()

    chunk(extract(content, "md"), ProcessRule.custom(remove_urls_emails=True))

    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|im_end|>", "<im_end>"),
        ("a\x00\x07b\tc\nd\x7f", "ab\tc\nd"),
        ("na\u00efve \u00bf \u00be \ufffe", "nave   "),
        ("\ufeffa", "\ufeffa"),
        ("a  b\n\n\n\nc", "a  b\n\n\n\nc"),
    ],
)
def test_control_characters_are_always_removed(text: str, expected: str) -> None:
    assert clean(text) == expected


def test_extra_spaces_are_removed() -> None:
    assert clean("a \t\u3000b\n\n\n\nc\td", ["remove_extra_spaces"]) == "a b\n\nc\td"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail me.too+x@mail.example.com now", "mail  now"),
        ("see https://a.example/b?c=d now", "see  now"),
        ("![alt](https://a.example/i.png)", "![alt](https://a.example/i.png)"),
        ("[https://x.example](https://a.example)", "[https://x.example](https://a.example)"),
        ("(http://a.example)", "()"),
    ],
)
def test_addresses_are_removed_except_in_markdown_links(text: str, expected: str) -> None:
    assert clean(text, ["remove_urls_emails"]) == expected


def test_unknown_steps_are_ignored() -> None:
    assert clean("a  b", ["remove_stopwords"]) == "a  b"


OF_1_12_1 = SplitterVersion(
    leading_symbols=build_leading_symbols(added="[]", kept="\u2026\u3010\u3011")
)
OF_1_4_3 = SplitterVersion(
    leading_symbols=build_leading_symbols(added="!"), escapes_separator=False
)


@pytest.mark.parametrize(
    ("text", "newest", "of_1_12_1", "of_1_4_3"),
    [
        ("#,. a", "a", "a", "a"),
        ("\u2014\u300a a", "a", "a", "a"),
        ("!a", "!a", "!a", "a"),
        ("[1] a", "[1] a", "1] a", "[1] a"),
        ("[link](https://x.y) a", "[link](https://x.y) a", "[link](https://x.y) a", None),
        ("\u2026a", "\u2026a", "\u2026a", "a"),
        ("\u3010a\u3011", "\u3010a\u3011", "\u3010a\u3011", "a\u3011"),
        ("-a", "-a", "-a", "-a"),
        ("|a {b \\c", "|a {b \\c", "|a {b \\c", "|a {b \\c"),
    ],
)
def test_leading_symbols_are_stripped_by_version(
    text: str, newest: str, of_1_12_1: str, of_1_4_3: str | None
) -> None:
    """A chunk that one version made can be cut by another (measured on all three)."""
    versions = (SplitterVersion(), OF_1_12_1, OF_1_4_3)

    stripped = [version.strip(text) for version in versions]
    assert stripped == [newest, of_1_12_1, newest if of_1_4_3 is None else of_1_4_3]


@pytest.mark.parametrize(
    ("separator", "newest", "of_1_4_3"),
    [
        ("%%S%%", 2, 2),
        ("\\n", 2, 2),
        ("\u5206\u9694", 1, 2),
        ("\u00e9", 1, 2),
        ("\\t", 1, 2),
        ("\\x41", 1, 2),
    ],
)
@pytest.mark.filterwarnings("ignore:separator")
def test_separator_is_decoded_by_version(separator: str, newest: int, of_1_4_3: int) -> None:
    """Newer versions decode it by `unicode_escape`, so some separators split nothing (measured)."""
    rule = ProcessRule.custom(separator=separator, max_tokens=100, chunk_overlap=0)
    text = "one" + ("\n" if separator == "\\n" else separator) + "two"

    assert len(chunk([text], rule)) == newest
    assert len(chunk([text], rule, OF_1_4_3)) == of_1_4_3


def test_backslash_at_the_end_of_a_separator_fails_on_newer_versions() -> None:
    rule = ProcessRule.custom(separator="a\\", max_tokens=100, chunk_overlap=0)

    with pytest.raises(ChunkError, match="unicodeescape"):
        chunk(["one"], rule)
    assert chunk(["one a\\two"], rule, OF_1_4_3) == ["one", "two"]
