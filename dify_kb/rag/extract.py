"""Extract texts from documents by file extension; parsers of plain text, Markdown and HTML."""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from html.parser import HTMLParser
from importlib import import_module
from typing import TYPE_CHECKING

from .extract_docx import extract_docx
from .extract_errors import ExtractError
from .extract_limits import collect_texts
from .extract_pdf import extract_pdf
from .extract_spreadsheets import extract_csv, extract_xls, extract_xlsx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


_BINARY_BYTES = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_HIDDEN_ELEMENTS = frozenset({"script", "style", "template"})


def extract(content: bytes, extension: str) -> list[str]:
    """Return the texts of a document; each text is chunked separately.

    Most formats give one text; Markdown gives one per section, pdf one per page, and csv, xlsx and
    xls one per row. Only the extension determines the format, as on the server; its case and
    leading dot are ignored.

    Raises:
        ExtractError: the content is undecodable, damaged or password-protected, or exceeds a size
            limit; the format is unsupported, or its parser is not installed.
    """
    kind = extension.lower().removeprefix(".")
    if (extract_binary := _BINARY_FORMATS.get(kind)) is not None:
        return extract_binary(content)
    extract_text = _TEXT_FORMATS.get(kind)
    if extract_text is None:
        raise ExtractError(f"The embedded server does not support .{kind} files.")
    text = _decode_text(
        content,
        declared=_find_declared_encoding(content) if extract_text is _extract_html else None,
    )
    if text is None:
        raise ExtractError(f"Could not detect encoding for upload.{kind}")
    return collect_texts(extract_text(text))


def can_extract(extension: str) -> bool:
    """Return whether `extract` supports an extension; its case and leading dot are ignored."""
    kind = extension.lower().removeprefix(".")
    return kind in _TEXT_FORMATS or kind in _BINARY_FORMATS


def _decode_text(content: bytes, *, declared: str | None = None) -> str | None:
    """Decode `content`, or return None if it is not text.

    Tries UTF-8 (a byte order mark is kept as U+FEFF, as on the server), then the declared encoding.
    Otherwise the encoding is detected with charset_normalizer, as on the server, if that is
    installed; without it, UTF-16 with a byte order mark, or Windows-1252.
    """
    for encoding in filter(None, ("utf-8", declared)):
        try:
            return content.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return _decode_by_detection(content)


def _decode_by_detection(content: bytes) -> str | None:
    try:
        detector = import_module("charset_normalizer")
    except ModuleNotFoundError:
        return _decode_without_detector(content)
    best = detector.from_bytes(content).best()
    return None if best is None else str(best)


def _decode_without_detector(content: bytes) -> str | None:
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    if _BINARY_BYTES.search(content):
        return None
    try:
        return content.decode("cp1252")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _extract_plain_text(text: str) -> list[str]:
    return [_normalize_newlines(text)]


def _normalize_newlines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _extract_html(text: str) -> list[str]:
    return [_html_to_text(text)]


def _find_declared_encoding(content: bytes) -> str | None:
    """Return the encoding that an HTML page declares in its first 1024 bytes (HTML standard)."""
    match = _CHARSET.search(content[:1024])
    return match[1].decode("ascii", errors="replace") if match else None


def _html_to_text(page: str) -> str:
    """Return the text of an HTML page, without scripts, styles, templates and comments.

    Elements are joined without a separator, as on the server: `<h1>Hi</h1><p>you` gives "Hiyou".
    """
    parser = _TextCollector()
    parser.feed(page)
    parser.close()
    return "".join(parser.texts).strip()


class _TextCollector(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._open_hidden_elements: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in _HIDDEN_ELEMENTS:
            self._open_hidden_elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._open_hidden_elements and self._open_hidden_elements[-1] == tag:
            self._open_hidden_elements.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Ignore self-closing tags such as `<script/>`: they contain no text to hide."""

    def handle_data(self, data: str) -> None:
        if not self._open_hidden_elements:
            self.texts.append(data)


def _extract_markdown(text: str) -> list[str]:
    """Split at headings; remove their `#` and the tags of a section, but no `#` in code blocks."""
    sections: list[tuple[str, list[str]]] = [("", [])]
    fenced = False
    for line in _normalize_newlines(text).split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        if not fenced and re.match(r"#+\s", line):
            sections.append((f"\n\n{line.replace('#', '').strip()}\n", []))
        else:
            sections[-1][1].append(_strip_tags(line))
    return [heading + "\n".join(lines).strip() for heading, lines in sections]


def _strip_tags(line: str) -> str:
    # Every "<" before the last ">" is closed; this keeps the time linear for a line of only "<".
    end = line.rfind(">") + 1
    return re.sub("<[^>]*>", "", line[:end]) + line[end:]


_TEXT_FORMATS: dict[str, Callable[[str], Iterable[str]]] = {
    **dict.fromkeys(("txt", "vtt", "properties"), _extract_plain_text),
    **dict.fromkeys(("md", "markdown", "mdx"), _extract_markdown),
    **dict.fromkeys(("html", "htm"), _extract_html),
    "csv": extract_csv,
}

_BINARY_FORMATS: dict[str, Callable[[bytes], list[str]]] = {
    "docx": extract_docx,
    "pdf": extract_pdf,
    "xls": extract_xls,
    "xlsx": extract_xlsx,
}
