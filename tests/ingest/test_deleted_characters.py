"""Characters that the server deletes from texts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kb.ingest import ScanRules, resolve_roots
from dify_kb.ingest.sources.file_content import (
    MAX_SMALL_FILE,
    DeletedCounter,
    count_deleted,
    read_content,
)
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.sources.scan import scan


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("naïve ¿Qué? ¾", 3),
        ("<|im_start|>", 2),
        ("| a | b |", 0),
        ("<b>a|b</b>", 0),
        ("Größe, élève, Î, ÿ, «», ½, 重置", 0),
        ("", 0),
    ],
)
def test_deleted_characters_are_counted(text: str, count: int) -> None:
    assert count_deleted(text.encode()) == count


TEXTS = st.text(st.sampled_from("aï¿¾<|>éÿ«重"), max_size=40)


@given(TEXTS)
def test_count_equals_the_characters_the_server_deletes(text: str) -> None:
    expected = sum(text.count(deleted) for deleted in ("ï", "¿", "¾", "<|", "|>"))

    assert count_deleted(text.encode()) == expected


@given(TEXTS, st.integers(1, 7))
def test_block_borders_do_not_change_the_count(text: str, size: int) -> None:
    """A large file is read in blocks, which may end within a character."""
    data = text.encode()
    counter = DeletedCounter()

    for start in range(0, len(data), size):
        counter.add(data[start : start + size])

    assert counter.count == count_deleted(data)


def count_deleted_in_file(
    folder: Path, name: str, data: bytes, rules: ScanRules | None = None
) -> int:
    (folder / name).write_bytes(data)
    (found,) = scan(resolve_roots(folder / name), rules or ScanRules())
    assert isinstance(found, FoundFile)
    return read_content(found).deleted_characters


@pytest.mark.parametrize(
    "length", [10, MAX_SMALL_FILE - 1, 4 * MAX_SMALL_FILE - 1, 5 * MAX_SMALL_FILE]
)
def test_small_and_streamed_files_have_the_same_count(folder: Path, length: int) -> None:
    assert count_deleted_in_file(folder, "a.txt", b"x" * length + "ï".encode()) == 1


def test_deleted_characters_are_counted_in_text_files_only(folder: Path) -> None:
    """The server deletes characters from extracted text only."""
    data = "ï".encode()

    assert count_deleted_in_file(folder, "a.pdf", data) == 0
    assert count_deleted_in_file(folder, "b.PDF", data + os.urandom(3 * MAX_SMALL_FILE)) == 0
    assert count_deleted_in_file(folder, "a.MD", data) == 1
    assert count_deleted_in_file(folder, "a.rst", data, ScanRules(as_text=["*.rst"])) == 1


def test_deleted_characters_of_items_are_counted() -> None:
    found = FoundFile(key="page", size=2, data="ï".encode(), as_text=True)

    assert read_content(found).deleted_characters == 1
