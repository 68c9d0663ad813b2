"""Extract one text per page from pdf files."""

from __future__ import annotations

import threading
from typing import Any

from .extract_errors import import_parser, translate_parser_errors
from .extract_limits import check_pdf_streams, collect_texts

_pdfium_lock = threading.Lock()
"""Serializes all calls: PDFium is not thread-safe (its documentation), not even when closing."""


def extract_pdf(content: bytes) -> list[str]:
    """Return the text of each page; a page without text, for example a scanned one, is empty.

    Dify also uses PDFium, so text, line ends and errors are identical. Unlike newer servers, no
    image links are added, because no images are stored.

    Raises:
        ExtractError: not a pdf file, password-protected (message as in recording 206), or larger
            than a size limit.
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
