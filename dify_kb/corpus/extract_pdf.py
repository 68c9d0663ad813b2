from __future__ import annotations

import threading
from typing import Any

from .bounds import bounded
from .pdf_streams import check_streams
from .unread import parser, parsing

_turn = threading.Lock()
"""PDFium is not thread-safe (its documentation), and everything it opens is closed in turn too."""


def pdf_pages(content: bytes) -> list[str]:
    """Return the text of each page; a page without text, say a scanned one, is empty.

    Dify reads with PDFium as well, so text, line ends and errors are the same. The
    links to pictures that newer servers add are left out: there are no pictures to link to.

    Raises:
        ExtractError: no pdf, a password (recording 206 has the form of the message), or more
            text than a server should hold.
    """
    pdfium = parser("pypdfium2", "pdf")
    check_streams(content)
    with parsing(), _turn:
        document = pdfium.PdfDocument(content)
        try:
            return _pages(document)
        finally:
            document.close()


def _pages(document: Any) -> list[str]:
    return bounded(_text(document[number]) for number in range(len(document)))


def _text(page: Any) -> str:
    try:
        layer = page.get_textpage()
        try:
            return str(layer.get_text_range())
        finally:
            layer.close()
    finally:
        page.close()
