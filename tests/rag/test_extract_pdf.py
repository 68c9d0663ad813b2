"""Texts of pdf files."""

from __future__ import annotations

import threading

import pytest
from sample_documents import (
    extract_sample,
)

from dify_kb.rag import ExtractError


def test_pdf_gives_one_text_per_page() -> None:
    pages = extract_sample("handbook.pdf")

    assert len(pages) == 50
    assert pages[36].startswith("Maintenance handbook, page 37 of 50\r\nStep 1: check")
    assert pages[36].endswith("The purple heron nests behind the third turbine hall.")


def test_scanned_pdf_has_no_text() -> None:
    assert extract_sample("scanned.pdf") == [""]


def test_pdf_with_a_password_is_an_error() -> None:
    """The message has the form of case 206, a broken pdf."""
    with pytest.raises(ExtractError) as caught:
        extract_sample("locked.pdf")

    assert str(caught.value) == "Failed to load document (PDFium: Incorrect password error)."


def test_threads_read_pdfs_one_at_a_time() -> None:
    """PDFium may crash the process if two threads use it."""
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(extract_sample("handbook.pdf"))))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts == [50] * 6
