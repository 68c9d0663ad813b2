"""Folder entries that the operating system refuses to examine."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dify_kb import AsyncClient, Outcome
from dify_kb.ingest import ItemResult, ScanRules, resolve_roots
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.sources.scan import scan

ERRNOS = [errno.ESTALE, errno.EIO, errno.EACCES, errno.ENAMETOOLONG, errno.ELOOP]

scandir = os.scandir


class Entry:
    """A directory entry with a failing method, as on file systems such as NFS and FUSE."""

    def __init__(self, entry: os.DirEntry[str], method: str, error: Exception) -> None:
        self._entry, self._method, self._error = entry, method, error

    def __getattr__(self, name: str) -> Any:
        return self._fail if name == self._method else getattr(self._entry, name)

    def __fspath__(self) -> str:
        return self._entry.path

    def _fail(self, **_: object) -> bool:
        raise self._error


@pytest.fixture
def three(folder: Path) -> Path:
    for name in ("a", "b", "c"):
        (folder / f"{name}.txt").write_text("some words")
    return folder


def break_entry(monkeypatch: pytest.MonkeyPatch, name: str, method: str, error: Exception) -> None:
    def entries(path: str) -> Iterator[object]:
        return (
            Entry(entry, method, error) if entry.name == name else entry for entry in scandir(path)
        )

    monkeypatch.setattr(os, "scandir", entries)


def results(
    folder: Path, rules: ScanRules | None = None
) -> tuple[list[str], dict[str, ItemResult]]:
    items = list(scan(resolve_roots(folder), rules or ScanRules()))
    return (
        [item.key for item in items if isinstance(item, FoundFile)],
        {item.key: item for item in items if isinstance(item, ItemResult)},
    )


@pytest.mark.parametrize("number", ERRNOS)
@pytest.mark.parametrize("method", ["is_dir", "is_symlink", "stat"])
def test_entry_that_cannot_be_examined_fails_alone(
    three: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: int
) -> None:
    """It used to abort the whole load with an OSError."""
    error = OSError(number, os.strerror(number), str(three / "b.txt"))
    break_entry(monkeypatch, "b.txt", method, error)

    found, failed = results(three)

    assert found == ["a.txt", "c.txt"]
    assert {key: one.outcome for key, one in failed.items()} == {"b.txt": Outcome.FAILED}
    assert failed["b.txt"].reason == f"unreadable: {os.strerror(number).lower()}"


@pytest.mark.parametrize("method", ["is_symlink", "stat"])
def test_name_rejected_by_the_system_fails_alone(
    three: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    break_entry(monkeypatch, "b.txt", method, ValueError("embedded null byte"))

    found, failed = results(three)

    assert found == ["a.txt", "c.txt"]
    assert failed["b.txt"].reason == "unreadable: embedded null byte"


@pytest.mark.parametrize("rules", [ScanRules(exclude=["b.*"]), ScanRules(exclude=["*.txt"])])
def test_excluded_entry_is_not_reported_for_its_type(
    three: Path, monkeypatch: pytest.MonkeyPatch, rules: ScanRules
) -> None:
    break_entry(monkeypatch, "b.txt", "is_dir", OSError(errno.EACCES, "Permission denied"))

    assert results(three, rules)[1] == {}


def test_hidden_mount_without_access_is_not_reported(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Home folders contain such mounts, for example `.gvfs`; hidden folders are not loaded."""
    (three / ".gvfs").mkdir()
    break_entry(monkeypatch, ".gvfs", "is_dir", OSError(errno.EACCES, "Permission denied"))

    found, failed = results(three)

    assert (found, failed) == (["a.txt", "b.txt", "c.txt"], {})


@pytest.mark.parametrize("number", ERRNOS)
def test_folder_that_cannot_be_listed_fails_alone(
    three: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (three / "sub").mkdir()

    def entries(path: str) -> Iterator[os.DirEntry[str]]:
        if Path(path).name == "sub":
            raise OSError(number, os.strerror(number), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", entries)

    found, failed = results(three)

    assert found == ["a.txt", "b.txt", "c.txt"]
    assert failed["sub/"].reason == (
        f"unreadable folder, its files are not counted: {os.strerror(number).lower()}"
    )


@pytest.mark.parametrize("number", ERRNOS)
def test_interrupted_listing_keeps_the_entries_before_the_error(
    three: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The folder itself is reported as failed, because the rest of its files is missing."""

    def entries(path: str) -> Iterator[os.DirEntry[str]]:
        yield from sorted(scandir(path), key=lambda entry: entry.name)[:2]
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "scandir", entries)

    found, failed = results(three)

    assert found == ["a.txt", "b.txt"]
    assert failed[f"{three.name}/"].outcome is Outcome.FAILED


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "Input/output error"), RuntimeError("Symlink loop"), ValueError("null")],
)
def test_link_that_cannot_be_resolved_fails_alone(
    three: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (three / "link.txt").symlink_to("a.txt")

    def resolve(path: Path, **_: object) -> Path:
        if path.name == "link.txt":
            raise error
        return path

    monkeypatch.setattr(Path, "resolve", resolve)

    found, failed = results(three)

    assert found == ["a.txt", "b.txt", "c.txt"]
    assert failed["link.txt"].outcome is Outcome.FAILED


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
def test_link_whose_target_cannot_be_examined_is_not_a_broken_link(
    three: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Skipping it would hide a file that exists."""
    (three / "link.txt").symlink_to("a.txt")
    break_entry(monkeypatch, "link.txt", "stat", OSError(number, os.strerror(number)))

    assert results(three)[1]["link.txt"].outcome is Outcome.FAILED


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("null")])
def test_file_whose_permission_cannot_be_checked_fails_alone(
    three: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (three / "b.txt").chmod(0o600)

    def access(*_: object) -> bool:
        raise error

    monkeypatch.setattr(os, "access", access)

    found, failed = results(three)

    assert found == ["a.txt", "c.txt"]
    assert set(failed) == {"b.txt"}


@pytest.mark.parametrize("change", [Path.rmdir, lambda path: path.chmod(0)])
def test_deleted_or_unreadable_root_is_one_failed_file(
    folder: Path, change: Callable[[Path], None]
) -> None:
    root = folder / "sub"
    root.mkdir()
    roots = resolve_roots(root)
    change(root)
    if os.access(root, os.R_OK):
        pytest.skip("this user may read everything")

    (failed,) = scan(roots, ScanRules())

    assert isinstance(failed, ItemResult)
    assert (failed.key.strip("/"), failed.outcome) == ("sub", Outcome.FAILED)


@pytest.mark.parametrize("number", ERRNOS)
async def test_load_goes_on_after_an_entry_that_cannot_be_examined(
    client: AsyncClient, three: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    dataset = await client.datasets.create("docs", indexing_technique="economy")
    break_entry(monkeypatch, "b.txt", "is_dir", OSError(number, os.strerror(number)))

    report = await client.load(dataset, three)

    assert (report.added, report.failed) == (2, 1)
