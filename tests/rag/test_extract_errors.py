"""Damaged files, and parsers that are not installed."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_documents import (
    DATA,
    extract_error_message,
)

from dify_kb.rag import ExtractError, extract

FILES = sorted(DATA.iterdir())


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (b"%PDF-1.4 broken", "pdf", "Failed to load document (PDFium: Data format error)."),
        (b"", "pdf", "Failed to load document (PDFium: Data format error)."),
        (b"notzip", "xlsx", "File is not a zip file"),
        (b"notzip", "docx", "Package not found at 'upload.docx'"),
        (b"notzip", "xls", "Unsupported format, or corrupt file: Expected BOF record"),
    ],
)
def test_broken_files_fail_with_the_message_of_the_server(
    content: bytes, kind: str, message: str
) -> None:
    """Cases 206, 208 and 218; the second message contained the path of a temporary file."""
    assert extract_error_message(content, kind).startswith(message)


@pytest.mark.parametrize(
    ("kind", "module"),
    [("pdf", "pypdfium2"), ("docx", "docx"), ("xlsx", "openpyxl"), ("xls", "xlrd")],
)
def test_error_for_missing_parser_contains_the_install_command(
    kind: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    assert extract_error_message(b"", kind) == (
        f"Reading .{kind} files needs {module}, which is not installed; install dify-kb[emulator]"
    )


@settings(deadline=None, max_examples=60)
@given(file=st.sampled_from(FILES), data=st.data())
def test_damaged_files_give_texts_or_an_extract_error(file: Path, data: st.DataObject) -> None:
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(0, len(content)))

    with suppress(ExtractError):
        texts = extract(bytes(content[:end] if data.draw(st.booleans()) else content), file.suffix)
        assert all(isinstance(text, str) for text in texts)
