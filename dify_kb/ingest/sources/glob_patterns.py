"""Patterns for relative paths."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Make a test that tells whether any pattern matches a relative path with `/`.

    `*` and `?` stay within a folder, `**` does not. A pattern without `/` is tried on the name of
    the file and of each folder above it; one with `/` on the path from its root. A pattern that
    matches a folder takes all that is in it.
    """
    if isinstance(patterns, str):
        patterns = (patterns,)
    tests = [_tested(pattern) for pattern in patterns]
    if not tests:
        return lambda _: False
    matches = re.compile("|".join(tests), re.DOTALL).match
    return lambda path: matches(path) is not None


def _tested(pattern: str) -> str:
    """Write a pattern as a regular expression."""
    if not pattern.strip("/"):
        raise ConfigError(f"{pattern!r} is no pattern.", hint="Pass a glob such as *.md.")
    text = pattern.strip("/")
    head = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    test = f"(?:{head}{''.join(map(_translated, _TOKEN.findall(text)))}(?:/.*)?\\Z)"
    try:
        re.compile(test)
    except re.error as error:
        raise ConfigError(
            f"{pattern!r} is no pattern ({error}).", hint="See the README."
        ) from error
    return test


def _translated(token: str) -> str:
    match token:
        case "**/":
            return "(?:.*/)?"
        case "**":
            return ".*"
        case "*":
            return "[^/]*"
        case "?":
            return "[^/]"
        case _ if len(token) > 1:
            return f"[^{re.escape(token[2:-1])}]" if token[1] == "!" else token
        case _:
            return re.escape(token)
