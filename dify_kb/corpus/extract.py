from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .bounds import bounded
from .decode import decode
from .extract_csv import csv_rows
from .extract_pdf import pdf_pages
from .extract_word import word_text
from .extract_xls import xls_rows
from .extract_xlsx import xlsx_rows
from .page import declared_encoding, page_text
from .unread import ExtractError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def extract(content: bytes, extension: str) -> list[str]:
    """Return the texts of a document; chunks never reach from one into the next.

    One text for most formats, one per section for Markdown, per page for pdf, and per row for
    csv, xlsx and xls. The extension alone decides (with or without its dot, in any case), as on
    the server.

    Raises:
        ExtractError: content that is undecodable, damaged or locked, or that unpacks to more
            than a server should hold; a format that this server does not read, or whose parser
            is not installed.
    """
    kind = extension.lower().removeprefix(".")
    if (unpack := _PARSERS.get(kind)) is not None:
        return unpack(content)
    read = _READERS.get(kind)
    if read is None:
        raise ExtractError(f"This embedded server does not read .{kind} files.")
    text = decode(content, declared=declared_encoding(content) if read is _html else None)
    if text is None:
        raise ExtractError(f"Could not detect encoding for upload.{kind}")
    return bounded(read(text))


def reads(extension: str) -> bool:
    """Tell whether `extract` knows an extension, with or without its dot, in any case."""
    kind = extension.lower().removeprefix(".")
    return kind in _READERS or kind in _PARSERS


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


def _unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


_READERS: dict[str, Callable[[str], Iterable[str]]] = {
    **dict.fromkeys(("txt", "vtt", "properties"), _plain),
    **dict.fromkeys(("md", "markdown", "mdx"), _markdown),
    **dict.fromkeys(("html", "htm"), _html),
    "csv": csv_rows,
}

_PARSERS: dict[str, Callable[[bytes], list[str]]] = {
    "docx": word_text,
    "pdf": pdf_pages,
    "xls": xls_rows,
    "xlsx": xlsx_rows,
}
