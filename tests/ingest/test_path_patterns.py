from __future__ import annotations

import pytest

from dify_kb import ConfigError
from dify_kb.ingest.sources.path_patterns import compile_patterns, parse_extension


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*", "a/b/c.md", True),
        ("*.md", "a/b/c.md", True),
        ("*.md", "c.mdx", False),
        ("docs/*.md", "docs/a.md", True),
        ("docs/*.md", "docs/a/b.md", False),
        ("docs/*.md", "old/docs/a.md", False),
        ("docs/**/*.md", "docs/a.md", True),
        ("docs/**/*.md", "docs/a/b/c.md", True),
        ("**/drafts", "a/drafts/b.md", True),
        ("node_modules", "a/node_modules/b/c.md", True),
        ("node_modules/", "node_modules/c.md", True),
        ("READ??.md", "README.md", True),
        ("[abc].txt", "b.txt", True),
        ("[!abc].txt", "b.txt", False),
        ("[]].txt", "].txt", True),
        ("[!0-9].md", "5.md", False),
        ("[!0-9].md", "a.md", True),
        ("[0-9].md", "5.md", True),
        ("a[!x]b", "a/b", False),
        ("[^a].txt", "^.txt", True),
        ("[[:digit:]x]*.md", "5.md", True),
        ("[[:digit:]x]*.md", "y.md", False),
        ("[!\\]].md", "].md", False),
        ("a+b.txt", "a+b.txt", True),
        ("*.md", "a/b.md/c.txt", True),
        ("资料/*", "资料/说明.md", True),
        ("caf\xe9*", "cafe\u0301.md", True),
        ("cafe\u0301*", "caf\xe9.md", True),
    ],
)
def test_path_patterns_match(pattern: str, path: str, matches: bool) -> None:  # noqa: FBT001 -- a column of the table
    assert compile_patterns([pattern])(path) is matches


def test_empty_pattern_list_matches_nothing() -> None:
    assert not compile_patterns([])("a")


def test_single_string_is_one_pattern() -> None:
    """`include="*.md"` is an easy mistake; read as four patterns it would match everything."""
    assert not compile_patterns("*.md")("a.txt")


@pytest.mark.parametrize("pattern", ["", "/", "!", "[[:word:]]", "[x", "# *.md"])
def test_invalid_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="Invalid glob pattern"):
        compile_patterns([pattern])


@pytest.mark.parametrize(
    ("pattern", "extension"),
    [
        ("*.pptx", "pptx"),
        ("docs/**/*.EML", "eml"),
        ("report.msg", "msg"),
        ("*", None),
        ("*.*", None),
        ("*.p*", None),
        ("*.[pd]oc", None),
        ("mails.msg/", None),
        ("Makefile", None),
    ],
)
def test_only_literal_patterns_name_an_extension(pattern: str, extension: str | None) -> None:
    """A broad pattern must not send files that most servers reject."""
    assert parse_extension(pattern) == extension
