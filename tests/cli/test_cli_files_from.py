"""Loads with --files-from."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_load_files import write_files
from cli_runner import Cli, parse_json_lines

from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import read_journal


def told(out: str) -> dict[str, str]:
    return {
        line["key"]: line["outcome"] for line in parse_json_lines(out) if line["type"] == "item"
    }


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Replaces standard input with a file of this content."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb", buffering=0) as sink:
        monkeypatch.setattr(sys, "stdin", source)

        def give(content: bytes) -> None:
            sink.write(content)
            sink.close()

        yield give


def test_listed_files_have_the_keys_of_a_scan(cli: Cli, folder: Path, tmp_path: Path) -> None:
    write_files(folder, "a.md", "sub/b.md", "sub/c.md", ".hidden.md", "d.md")
    listing = tmp_path / "list"
    listing.write_text(f"a.md\n\n./sub//b.md\r\n{folder}/.hidden.md\na.md\n  \nsub/c.md")

    code, out, _ = cli(
        "--json", "load", str(folder), "--dataset", "d", "--create", "--files-from", str(listing)
    )

    assert code == 0
    assert told(out) == dict.fromkeys(("a.md", "sub/b.md", ".hidden.md", "sub/c.md"), "added")
    (journal,) = read_journal.list_journals(state_folder())
    assert read_journal.read_overview(journal).source == str(folder)
    code, out, _ = cli("load", str(folder), "--dataset", "d")
    assert "1 added, 3 unchanged" in out


def test_list_from_a_pipe_separated_by_nul(
    cli: Cli,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    piped: Callable[[bytes], None],
) -> None:
    write_files(folder, "a.md", "new\nline.md", "c.md")
    monkeypatch.chdir(folder)
    piped(b"a.md\0new\nline.md\0")

    code, out, _ = cli("--json", "load", "--dataset", "d", "--create", "--files-from", "-", "-0")

    assert code == 0
    assert told(out) == {"a.md": "added", "new\nline.md": "added"}


def test_lines_that_cannot_be_loaded_fail(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """A list with an invalid path must not exit with 0."""
    write_files(folder, "a.md", "sub/b.md")
    write_files(tmp_path, "secret.md")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    listing = tmp_path / "list"
    listing.write_text("a.md\n../secret.md\nlink.md\nmissing.md\nsub\n/etc/passwd\n")

    arguments = ["load", str(folder), "--dataset", "d", "--create", "--files-from", str(listing)]
    code, out, err = cli(*arguments)

    assert code == 3
    assert "6 files found" in out
    assert "1 added, 5 failed" in out
    assert "failed  ../secret.md: listed path is outside the folder" in err
    assert "failed  link.md: listed path is outside the folder" in err
    assert "failed  /etc/passwd: listed" in err
    assert "failed  missing.md: unreadable: no such file or directory" in err
    code, out, _ = cli("--json", *arguments)
    assert told(out)["../secret.md"] == "failed"
    assert parse_json_lines(out)[-1]["failed"] == 5


def test_empty_list_exits_0(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """An hourly job may have nothing to load."""
    listing = tmp_path / "list"
    listing.write_text("\n")

    code, out, _ = cli(
        "load", str(folder), "--dataset", "d", "--create", "--files-from", str(listing)
    )

    assert code == 0
    assert "0 files found" in out
