"""Compile glob patterns for relative paths."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from unicodedata import normalize

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LITERAL_EXTENSION = re.compile(r"\.([A-Za-z0-9]+)\Z")
_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


def compile_patterns(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Compile patterns to a function that returns whether any matches a relative path with `/`.

    `*` and `?` do not match `/`, `**` does. A pattern without `/` is matched against the names of
    the file and of each folder above it, a pattern with `/` against the whole path. A pattern that
    matches a folder matches everything in it. Patterns and paths are compared in NFC.
    """
    if isinstance(patterns, str):
        patterns = (patterns,)
    expressions = [_expression(pattern) for pattern in patterns]
    if not expressions:
        return lambda _: False
    matches = re.compile("|".join(expressions), re.DOTALL).match
    return lambda path: matches(path if path.isascii() else normalize("NFC", path)) is not None


def parse_extension(pattern: str) -> str | None:
    """Return the literal extension of a pattern in lower case; None for `*`, `*.*` or `*.p*`."""
    found = _LITERAL_EXTENSION.search(pattern)
    return found[1].lower() if found else None


def _expression(pattern: str) -> str:
    """Return a pattern as a regular expression."""
    if not pattern.strip("/"):
        raise ConfigError(
            f"Invalid glob pattern: {pattern!r}.", hint="Pass a pattern such as *.md."
        )
    text = normalize("NFC", pattern.strip("/"))
    head = "" if "/" in pattern.rstrip("/") else "(?:.*/)?"
    expression = f"(?:{head}{''.join(map(_translate, _TOKEN.findall(text)))}(?:/.*)?\\Z)"
    try:
        re.compile(expression)
    except re.error as error:
        raise ConfigError(
            f"Invalid glob pattern: {pattern!r} ({error}).", hint="Pass a pattern such as *.md."
        ) from error
    return expression


def _translate(token: str) -> str:
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
            return _translate_class(token[1:-1])
        case _:
            return re.escape(token)


def _translate_class(characters: str) -> str:
    """Translate a character class, excluding `/` from it."""
    characters = characters.replace("\\", r"\\")
    if characters.startswith("!"):
        characters = f"^{characters[1:]}"
    elif characters.startswith(("^", "[")):
        characters = f"\\{characters}"
    return f"(?!/)[{characters}]"
