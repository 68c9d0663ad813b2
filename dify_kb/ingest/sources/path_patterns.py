"""Compile patterns for relative paths, with the semantics of `.gitignore`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal
from unicodedata import normalize

import pathspec
from attrs import frozen
from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from dify_kb.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_LITERAL_EXTENSION = re.compile(r"\.([A-Za-z0-9]+)\Z")
_EVERYTHING = frozenset({"*", "**"})
_NAMED_CLASS = re.compile(r"\[:([^\]]*):\]")
_LITERAL = re.compile(r"[^*?\[\\]*")
_NOTHING = "(?!)"
"""A regular expression that matches nothing."""


_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t\n\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
"""The characters of `[:alpha:]` and others, as in git independent of the locale."""


class _Glob(GitIgnoreSpecPattern):
    """A pattern of `pathspec` whose character classes are those of git."""

    @staticmethod
    def _translate_segment_glob(pattern: str, range_error: Literal["literal", "raise"]) -> str:
        del range_error
        return _translate(pattern)


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
    matches = pathspec.GitIgnoreSpec.from_lines(lines, _Glob).match_file
    return lambda path: matches(path if path.isascii() else normalize("NFC", path))


@frozen
class IgnorePattern:
    """A line of an ignore file, compared byte by byte as by git: `?` matches a part of `é`."""

    regex: re.Pattern[str]
    ignores: bool
    """False for a line that begins with `!`."""

    is_for_folders: bool
    is_for_names: bool
    """Whether it is compared with the last part of a path, instead of the whole."""

    @classmethod
    def compile(cls, line: str) -> IgnorePattern | None:
        """Compile a line; None for a comment, and for a line that matches nothing."""
        if line.startswith("#"):
            return None
        text = _strip_spaces(_encode(line))
        negated, text = text.startswith("!"), text.removeprefix("!")
        is_for_folders, text = text.endswith("/"), text.removesuffix("/")
        is_for_names = "/" not in text
        if not text:
            return None
        # git compares what is before the first wildcard on its own.
        place = 0 if is_for_names else len(_LITERAL.match(text)[0])  # type: ignore[index] # matches always
        literal = text[:place].removeprefix("/")
        rest = text[place:].removeprefix("" if place else "/")
        regex = re.compile(re.escape(literal) + _translate(rest), re.DOTALL)
        return cls(regex, not negated, is_for_folders, is_for_names)

    def matches(self, path: str, *, is_folder: bool) -> bool:
        """Return whether the pattern matches a path, which `_encode` returned."""
        if self.is_for_folders and not is_folder:
            return False
        return bool(self.regex.fullmatch(path.rpartition("/")[2] if self.is_for_names else path))


def compile_lines(lines: Iterable[str]) -> Sequence[IgnorePattern]:
    """Compile the lines of an ignore file. Comments and empty lines are omitted."""
    compiled = (IgnorePattern.compile(normalize("NFC", line)) for line in lines)
    return [pattern for pattern in compiled if pattern is not None]


def find_match(patterns: Sequence[IgnorePattern], path: str) -> bool | None:
    """Return whether the last pattern that matches ignores a path; None if no pattern matches.

    Unlike `compile_patterns`, a pattern that matches a folder does not match the paths in it.

    Args:
        path: a relative path; that of a folder ends with `/`.
    """
    name, is_folder = _encode(path.removesuffix("/")), path.endswith("/")
    matching = (one.ignores for one in reversed(patterns) if one.matches(name, is_folder=is_folder))
    return next(matching, None)


def _encode(text: str) -> str:
    """Return a text with one character per byte of its UTF-8 form."""
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("latin-1")


def _strip_spaces(line: str) -> str:
    """Remove the spaces at the end of a line, except for one after a backslash."""
    stripped = line.rstrip(" ")
    escapes = len(stripped) - len(stripped.rstrip("\\"))
    return line[: len(stripped) + escapes % 2]


def _translate(glob: str) -> str:
    """Return the regular expression of a glob, which matches a path as `wildmatch` of git does."""
    regex, place = list[str](), 0
    while place < len(glob):
        start, char = place, glob[place]
        place += 1
        match char:
            case "*":
                place += len(glob[place:]) - len(glob[place:].lstrip("*"))
                is_whole = place - start > 1 and (start == 0 or glob[start - 1] == "/")
                if is_whole and glob[place : place + 1] == "/":
                    regex.append("(?:.*/)?")
                    place += 1
                elif is_whole and (place == len(glob) or glob.startswith("\\/", place)):
                    regex.append(".*")
                else:
                    regex.append("[^/]*")
            case "?":
                regex.append("[^/]")
            case "[":
                found, place = _translate_class(glob, place)
                regex.append(found)
            case "\\":
                regex.append(re.escape(glob[place]) if place < len(glob) else _NOTHING)
                place += 1
            case _:
                regex.append(re.escape(char))
    return "".join(regex)


def _translate_class(glob: str, place: int) -> tuple[str, int]:
    """Return the regular expression of a character class, and the place after it.

    Args:
        place: that after `[`.
    """
    negated = glob[place : place + 1] in {"!", "^"}
    place += negated
    parts, previous, start = list[str](), "", place
    while place < len(glob) and (glob[place] != "]" or place == start):
        char = glob[place]
        if char == "\\":
            place += 1
            previous = glob[place : place + 1]
            parts.append(re.escape(previous))
        elif char == "-" and previous and glob[place + 1 : place + 2] not in {"", "]"}:
            place += 2 if glob[place + 1] == "\\" else 1
            last = glob[place : place + 1]
            parts += [f"{re.escape(previous)}-{re.escape(last)}"] if previous <= last else []
            previous = ""
        elif named := _NAMED_CLASS.match(glob, place):
            if named[1] not in _CLASSES:
                return _NOTHING, len(glob)
            parts.append(_CLASSES[named[1]])
            previous, place = "", named.end() - 1
        else:
            parts.append(re.escape(char))
            previous = char
        place += 1
    if place >= len(glob):  # without its end
        return _NOTHING, place
    if not parts:
        return "[^/]" if negated else _NOTHING, place + 1
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]", place + 1


def parse_extension(pattern: str) -> str | None:
    """Return the literal extension of a pattern in lower case; None for `*`, `*.*` or `*.p*`."""
    found = _LITERAL_EXTENSION.search(pattern)
    return found[1].lower() if found else None


def _is_valid(pattern: str) -> bool:
    """Return whether a pattern can be compiled to something that matches."""
    try:
        included = GitIgnoreSpecPattern.pattern_to_regex(pattern)[1]
    except GitIgnorePatternError:
        return False
    return included is not None and _NOTHING not in _translate(pattern)
