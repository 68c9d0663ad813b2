from __future__ import annotations

import csv
import re
from io import StringIO
from typing import TYPE_CHECKING

from .decode import decode
from .page import declared_encoding, page_text

if TYPE_CHECKING:
    from collections.abc import Callable


class ExtractError(Exception):
    """The bytes of a document cannot be read; the text becomes the document's error."""


def extract(content: bytes, extension: str) -> list[str]:
    """Return the texts of a document; chunks never reach from one into the next.

    One text for most formats, one per section for Markdown, one per row for CSV. The extension
    alone decides (with or without its dot, in any case), as on the server.

    Raises:
        ExtractError: undecodable content, or a format this server does not read.
    """
    kind = extension.lower().removeprefix(".")
    read = _READERS.get(kind)
    if read is None:
        raise ExtractError(f"This embedded server does not read .{kind} files yet.")
    text = decode(content, declared=declared_encoding(content) if read is _html else None)
    if text is None:
        raise ExtractError(f"Could not detect encoding for upload.{kind}")
    return read(text)


def _plain(text: str) -> list[str]:
    return [_unix_lines(text)]


def _html(text: str) -> list[str]:
    return [page_text(text)]


def _markdown(text: str) -> list[str]:
    """Cut at headings; the heading's `#` and the tags of the section go, code keeps its `#`."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    fenced = False
    for line in _unix_lines(text).split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        if not fenced and re.match(r"#+\s", line):
            sections.append((f"\n\n{line.replace('#', '').strip()}\n", []))
        else:
            sections[-1][1].append(_without_tags(line))
    return [heading + "\n".join(lines).strip() for heading, lines in sections]


def _without_tags(line: str) -> str:
    # Up to the last ">" every "<" has its end, which keeps a line of nothing but "<" linear.
    end = line.rfind(">") + 1
    return re.sub("<[^>]*>", "", line[:end]) + line[end:]


def _csv(text: str) -> list[str]:
    """One text per row, `column: value` joined by `;`. Rows longer than the header are skipped."""
    rows = csv.reader(StringIO(text, newline=""))
    try:
        filled = [row for row in rows if row]
    except csv.Error as error:
        raise ExtractError(f"Error tokenizing data: {error}") from error
    if not filled:
        raise ExtractError("No columns to parse from file")
    header = _columns(filled[0])
    return [
        ";".join(f"{column}: {value.strip()}" for column, value in zip(header, padded, strict=True))
        for row in filled[1:]
        if len(padded := [*row, *[""] * (len(header) - len(row))]) == len(header)
    ]


def _columns(header: list[str]) -> list[str]:
    return [name.strip() or f"Unnamed: {at}" for at, name in enumerate(header)]


def _unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


_READERS: dict[str, Callable[[str], list[str]]] = {
    **dict.fromkeys(("txt", "vtt", "properties"), _plain),
    **dict.fromkeys(("md", "markdown", "mdx"), _markdown),
    **dict.fromkeys(("html", "htm"), _html),
    "csv": _csv,
}
