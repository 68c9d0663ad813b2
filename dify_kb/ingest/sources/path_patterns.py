"""Compile patterns for relative paths, with the semantics of `.gitignore`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, AnyStr, cast
from unicodedata import normalize

import pathspec
from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_LITERAL_EXTENSION = re.compile(r"\.([A-Za-z0-9]+)\Z")
_CHARACTER_CLASS = re.compile(r"(?<!\\)(\[(?!\^/\])\^?\]?[^\]]*\])")
_EVERYTHING = frozenset({"*", "**"})


class IgnorePattern(GitIgnoreSpecPattern):
    """A pattern of `.gitignore`, whose character classes do not match `/`, as in git."""

    @classmethod
    def pattern_to_regex(cls, pattern: AnyStr) -> tuple[AnyStr | None, bool | None]:
        """Return the regular expression of a pattern, and whether it includes paths."""
        regex, include = super().pattern_to_regex(pattern)
        if isinstance(regex, str):
            return cast("Any", _CHARACTER_CLASS.sub(r"(?!/)\1", regex)), include
        return regex, include


def compile_patterns(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Compile patterns to a function that returns whether they match a relative path with `/`.

    The patterns are those of `.gitignore`: `*` and `?` do not match `/`, `**` does; a pattern
    without `/` is matched against the names of the file and of each folder above it, a pattern
    with `/` against the path from the root; `!` makes an exception from the patterns before it. A
    pattern that matches a folder matches everything in it. Patterns and paths are compared in NFC.

    Raises:
        ConfigError: a pattern is invalid.
    """
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        return lambda _: False
    if _EVERYTHING.issuperset(patterns):
        return lambda _: True
    for pattern in patterns:
        if not pattern.strip("/! ") or not _is_valid(pattern):
            raise ConfigError(
                f"Invalid glob pattern: {pattern!r}.", hint="Pass a pattern such as *.md."
            )
    lines = [normalize("NFC", pattern) for pattern in patterns]
    matches = pathspec.GitIgnoreSpec.from_lines(lines, IgnorePattern).match_file
    return lambda path: matches(path if path.isascii() else normalize("NFC", path))


def compile_lines(lines: Iterable[str]) -> Sequence[IgnorePattern]:
    """Compile the lines of an ignore file. Comments and invalid lines are omitted, as in git."""
    return [IgnorePattern(normalize("NFC", line)) for line in lines if _is_valid(line)]


def find_match(patterns: Sequence[IgnorePattern], path: str) -> bool | None:
    """Return whether the last pattern that matches ignores a path; None if no pattern matches.

    Unlike `compile_patterns`, a pattern that matches a folder does not match the paths in it.

    Args:
        path: a relative path; that of a folder ends with `/`.
    """
    return next((one.include for one in reversed(patterns) if _matches_whole(one, path)), None)


def _matches_whole(pattern: IgnorePattern, path: str) -> bool:
    """Return whether a pattern matches a path up to its end."""
    text = str(pattern.pattern).strip()
    if pattern.regex is None:
        return False
    if text.endswith("/**"):  # what is in a folder, not the folder
        found = pattern.regex.search(path)
        return found is not None and found.end() < len(path)
    return any(found.end() == len(path) for found in pattern.regex.finditer(path))


def parse_extension(pattern: str) -> str | None:
    """Return the literal extension of a pattern in lower case; None for `*`, `*.*` or `*.p*`."""
    found = _LITERAL_EXTENSION.search(pattern)
    return found[1].lower() if found else None


def _is_valid(pattern: str) -> bool:
    """Return whether a pattern can be compiled to something that matches."""
    try:
        return IgnorePattern(pattern).include is not None
    except (re.error, GitIgnorePatternError):
        return False
