from __future__ import annotations

import threading
from typing import Any

from .extract_errors import import_parser, translate_parser_errors
from .size_limits import check_pdf_streams, collect_texts

_pdfium_lock = threading.Lock()
"""PDFium is not thread-safe (its documentation), and everything it opens is closed in turn too."""


def extract_pdf(content: bytes) -> list[str]:
    """Return the text of each page; a page without text, say a scanned one, is empty.

    Dify reads with PDFium as well, so text, line ends and errors are the same. The
    links to pictures that newer servers add are left out: there are no pictures to link to.

    Raises:
        ExtractError: no pdf, a password (recording 206 has the form of the message), or more
            text than a server should hold.
    """
    pdfium = import_parser("pypdfium2", "pdf")
    check_pdf_streams(content)
    with translate_parser_errors(), _pdfium_lock:
        document = pdfium.PdfDocument(content)
        try:
            return _extract_pages(document)
        finally:
            document.close()


def _extract_pages(document: Any) -> list[str]:
    return collect_texts(_extract_page(document[number]) for number in range(len(document)))


def _extract_page(page: Any) -> str:
    try:
        text_page = page.get_textpage()
        try:
            return str(text_page.get_text_range())
        finally:
            text_page.close()
    finally:
        page.close()
