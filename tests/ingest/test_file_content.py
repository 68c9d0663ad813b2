"""Read the current content of a file, which may have changed since the scan."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path

import pytest

from dify_kb import SourceChangedError, SourceError
from dify_kb.ingest import ScanRules, resolve_roots
from dify_kb.ingest.sources.file_content import (
    MAX_SMALL_FILE,
    is_small,
    read_content,
    require_unchanged,
)
from dify_kb.ingest.sources.found_file import (
    SETTLE_SECONDS,
    FoundFile,
    make_token,
    settled_token,
)
from dify_kb.ingest.sources.scan import scan

SIZES = [100, 3 * MAX_SMALL_FILE]

os_read = os.read


def make_found_file(
    folder: Path, content: bytes, *, name: str = "a.txt", limit: int = 2**20
) -> FoundFile:
    (folder / name).write_bytes(content)
    (found,) = scan(resolve_roots(folder / name), ScanRules(max_file_size=limit))
    assert isinstance(found, FoundFile)
    return found


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("at_most", [1, 7, 50])
def test_short_reads_are_continued(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: int, at_most: int
) -> None:
    """Network file systems and signals may shorten reads of an unchanged file."""
    content = os.urandom(size)
    found = make_found_file(folder, content)
    least = at_most if size < MAX_SMALL_FILE else at_most * 1000
    monkeypatch.setattr(os, "read", lambda file, wanted: os_read(file, min(wanted, least)))

    assert read_content(found).digest == hashlib.sha256(content).digest()


@pytest.mark.parametrize("size", SIZES)
def test_file_changed_since_the_scan_is_read_in_its_current_state(folder: Path, size: int) -> None:
    found = make_found_file(folder, b"as it was")
    content = os.urandom(size)
    (folder / "a.txt").write_bytes(content)

    read = read_content(found)

    status = (folder / "a.txt").stat()
    assert read.digest == hashlib.sha256(content).digest()
    assert read.data == (content if size < MAX_SMALL_FILE else folder / "a.txt")
    assert (read.file.size, read.file.mtime_ns, read.file.token) == (
        size,
        status.st_mtime_ns,
        make_token(status),
    )
    assert read.file.key == found.key


def test_unchanged_file_is_returned_as_found(folder: Path) -> None:
    found = make_found_file(folder, b"text")

    assert read_content(found).file is found


def test_size_limit_applies_to_the_current_size(folder: Path) -> None:
    """A file that grew beyond the limit would be refused by the server, after its upload."""
    found = make_found_file(folder, b"text", limit=10)

    (folder / "a.txt").write_bytes(b"")
    with pytest.raises(SourceError, match="now empty"):
        read_content(found)
    (folder / "a.txt").write_bytes(b"x" * 11)
    with pytest.raises(SourceError, match=r"too large: .* bytes, more than"):
        read_content(found)


@pytest.mark.parametrize("kind", ["gone", "folder", "pipe"])
def test_path_that_is_no_longer_a_file_fails_with_a_reason(folder: Path, kind: str) -> None:
    """Reasons are grouped and counted; a pipe must not be waited for."""
    found = make_found_file(folder, b"text")
    (folder / "a.txt").unlink()
    if kind == "folder":
        (folder / "a.txt").mkdir()
    if kind == "pipe":
        os.mkfifo(folder / "a.txt")

    with pytest.raises(SourceError) as caught:
        read_content(found)

    assert not isinstance(caught.value, SourceChangedError)
    assert "a.txt" not in caught.value.summary


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
@pytest.mark.parametrize("call", ["open", "fstat", "read"])
def test_failed_system_call_is_a_source_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    found = make_found_file(folder, b"text")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(SourceError, match=f"unreadable: {os.strerror(number).lower()}"):
            read_content(found)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten"])
def test_file_that_changes_while_read_is_detected(
    folder: Path, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    """Reading it again may succeed, unlike a file that cannot be read."""
    path = folder / "a.txt"
    found = make_found_file(folder, b"x" * size)
    os.utime(path, ns=(0, 0))
    pending = [change]

    def read(file: int, wanted: int) -> bytes:
        match pending.pop() if pending else None:
            case "grows":
                with path.open("ab") as growing:
                    growing.write(b"more")
            case "shrinks":
                os.truncate(path, size // 2)
            case "is rewritten":
                path.write_bytes(b"y" * size)
        return os_read(file, wanted)

    monkeypatch.setattr(os, "read", read)

    with pytest.raises(SourceChangedError, match="changed while it was read"):
        read_content(found)


def test_endlessly_growing_file_is_not_read_forever(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make_found_file(folder, b"x" * 2 * MAX_SMALL_FILE)
    monkeypatch.setattr(os, "read", lambda _, wanted: b"x" * wanted)

    with pytest.raises(SourceChangedError):
        read_content(found)


def test_streamed_file_changed_after_its_digest_is_detected(folder: Path) -> None:
    found = make_found_file(folder, b"x" * 2 * MAX_SMALL_FILE)
    content = read_content(found)
    require_unchanged(content)

    os.utime(folder / "a.txt", ns=(0, 0))
    with pytest.raises(SourceChangedError):
        require_unchanged(content)
    (folder / "a.txt").unlink()
    with pytest.raises(SourceChangedError):
        require_unchanged(content)


def test_in_memory_data_is_returned_unchanged() -> None:
    found = FoundFile(key="a.txt", size=4, data=b"text")

    content = read_content(found)
    require_unchanged(content)

    assert (content.data, content.file, content.token) == (b"text", found, None)
    assert not is_small(found)


def make_status(mtime: int = 10**18, ctime: int = 10**18 + 1, inode: int = 7) -> os.stat_result:
    return os.stat_result(
        (0o100644, inode, 0, 1, 0, 0, 4, 0, 0, 0), {"st_mtime_ns": mtime, "st_ctime_ns": ctime}
    )


def test_scan_records_the_token_of_the_file(folder: Path) -> None:
    found = make_found_file(folder, b"text")

    assert found.token == make_token((folder / "a.txt").stat())


@pytest.mark.parametrize("field", ["mtime", "ctime", "inode"])
@pytest.mark.parametrize("other", [1, 2**64 - 1])
def test_different_time_or_inode_is_a_different_token(field: str, other: int) -> None:
    """`cp -p` and `rsync -t` restore the modification time of other contents."""
    assert make_token(make_status()) == make_token(make_status())
    assert make_token(make_status()) != make_token(make_status(**{field: other}))


@pytest.mark.parametrize("seconds", [-3600.0, 0.0, SETTLE_SECONDS / 2])
def test_file_changed_just_before_reading_has_no_settled_token(seconds: float) -> None:
    """It may change again without new times, whose resolution is limited."""
    assert settled_token(make_status(), 1e9 + seconds) is None


def test_file_changed_long_before_reading_has_a_settled_token() -> None:
    status = make_status()

    assert settled_token(status, 1e9 + 2 * SETTLE_SECONDS) == make_token(status)


def test_settled_token_uses_the_time_of_the_read(folder: Path) -> None:
    """Otherwise every later run would miss a change between scan and read."""
    found = make_found_file(folder, b"text")

    assert read_content(found).token is None
    assert settled_token((folder / "a.txt").stat(), time.time() + 60) is not None
