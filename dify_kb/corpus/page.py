from __future__ import annotations

import re
from html.parser import HTMLParser

_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*=\s*[\"']?\s*([\w-]+)", re.IGNORECASE)
_UNSEEN = frozenset({"script", "style", "template"})


def declared_encoding(content: bytes) -> str | None:
    """Return the encoding that a page names in the first 1024 bytes, where HTML wants it."""
    found = _CHARSET.search(content[:1024])
    return found[1].decode("ascii", errors="replace") if found else None


def page_text(page: str) -> str:
    """Return the texts of a page in one, without scripts, styles, templates and comments.

    Nothing is put between elements: `<h1>Hi</h1><p>you` gives `Hiyou`, as on the server.
    """
    parser = _Texts()
    parser.feed(page)
    parser.close()
    return "".join(parser.texts).strip()


class _Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._unseen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        if tag in _UNSEEN:
            self._unseen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen and self._unseen[-1] == tag:
            self._unseen.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag closed in itself, `<script/>`, has no text to hide."""

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.texts.append(data)
