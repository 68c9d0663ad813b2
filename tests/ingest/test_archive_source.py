from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import tarfile
import tempfile
import threading
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from load_examples import count_outcomes, create_dataset, list_document_names

from dify_kb import AsyncClient, Item, SourceEntry
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, KnowledgeError, SourceChangedError, SourceError
from dify_kb.ingest.sources import archive_formats
from dify_kb.ingest.sources.archive_source import ArchiveSource
from dify_kb.ingest.sources.file_content import MAX_SMALL_FILE
from dify_kb.ingest.sources.file_source import OpenedEntry

Files = Mapping[str, bytes]
COMPRESSIONS: Mapping[str, Callable[[bytes], bytes]] = {
    ".tar": lambda data: data,
    ".tar.gz": gzip.compress,
    ".tgz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}
KINDS = [".zip", *COMPRESSIONS]
OLD = 1_700_000_000


def make_zip(path: Path, files: Files, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def make_tar(path: Path, members: Files | list[tarfile.TarInfo]) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        if isinstance(members, list):
            for info in members:
                archive.addfile(info, io.BytesIO(b"x" * info.size))
        else:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    compress = COMPRESSIONS[next(suffix for suffix in COMPRESSIONS if path.name.endswith(suffix))]
    path.write_bytes(compress(buffer.getvalue()))
    return path


def make(path: Path, files: Files) -> Path:
    made = make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files)
    os.utime(made, (OLD, OLD))
    return made


def scan(source: ArchiveSource) -> dict[str, SourceEntry]:
    source.prepare()
    return {entry.key: entry for entry in source.scan()}


def read(source: ArchiveSource, entry: SourceEntry) -> bytes:
    stream = source.open(entry).stream
    data = b"".join(iter(lambda: stream.read(50_000), b""))
    stream.close()
    return data


def problems(path: Path) -> dict[str, str]:
    """Return why members of an archive are refused or unreadable."""
    source = ArchiveSource(path)
    try:
        return {key: entry.refused or entry.unreadable or "" for key, entry in scan(source).items()}
    finally:
        source.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the keys of the members that are opened from now on."""
    keys: list[str] = []
    original = ArchiveSource.open

    def record(source: ArchiveSource, entry: SourceEntry) -> OpenedEntry:
        keys.append(entry.key)
        return original(source, entry)

    monkeypatch.setattr(ArchiveSource, "open", record)
    return keys


@pytest.mark.parametrize("kind", KINDS)
async def test_only_changed_members_are_sent_again(
    client: AsyncClient, tmp_path: Path, opened: list[str], kind: str
) -> None:
    files = {f"docs/{number}.md": f"text {number}".encode() for number in range(5)}
    files["docs/large.txt"] = os.urandom(50_000).hex().encode()
    files["docs/sub.zip"] = b"an archive in an archive"
    path = make(tmp_path / f"archive{kind}", files)
    dataset = await create_dataset(client)

    first = await client.load(dataset, path)
    again = await client.load(dataset, path)
    changed = make(tmp_path / f"new{kind}", {**files, "docs/3.md": b"text x", "docs/new.md": b"n"})
    changed.replace(path)
    opened.clear()
    third = await client.load(dataset, str(path))

    assert count_outcomes(first) == {"added": 6, "skipped": 1}
    assert first.skipped_reasons == {"unsupported type .zip": 1}
    assert count_outcomes(again) == {"unchanged": 6, "skipped": 1}
    assert count_outcomes(third) == {"updated": 1, "added": 1, "unchanged": 5, "skipped": 1}
    if kind == ".zip":
        assert set(opened) == {"docs/3.md", "docs/new.md"}
    assert "docs__large.txt" in await list_document_names(client, dataset)


@pytest.mark.parametrize("kind", [".tar", ".tar.xz"])
async def test_members_of_an_unchanged_tar_are_not_read(
    client: AsyncClient,
    tmp_path: Path,
    opened: list[str],
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dify_kb.ingest.sources.found_file.SETTLE_SECONDS", -1)
    path = make(tmp_path / f"archive{kind}", {f"{number}.md": b"text" for number in range(5)})
    dataset = await create_dataset(client)
    await client.load(dataset, path)
    opened.clear()

    report = await client.load(dataset, path)

    assert count_outcomes(report) == {"unchanged": 5}
    assert opened == []


@pytest.mark.parametrize("kind", KINDS)
def test_members_are_read_in_any_order_by_many_threads(tmp_path: Path, kind: str) -> None:
    files = {f"{size}.txt": os.urandom(size) for size in (1, 10, MAX_SMALL_FILE, 300_000)}
    source = ArchiveSource(make(tmp_path / f"archive{kind}", files))
    entries, wrong = scan(source), list[str]()
    assert list(entries) == list(files)

    def check() -> None:
        for name in [*files, *reversed(files)]:
            if read(source, entries[name]) != files[name]:
                wrong.append(name)

    threads = [threading.Thread(target=check) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
    source.close()
    with pytest.raises(SourceError, match="not open"):
        source.open(entries["1.txt"])
    assert set(scan(source)) == set(files)  # opened anew
    source.close()


HOSTILE = {
    "../up.md": "name that leaves the archive",
    "a/../../up.md": "name that leaves the archive",
    "..\\up.md": "name that leaves the archive",
    "/etc/passwd.md": "absolute name",
    "C:/windows.md": "name with a drive letter",
    "c:\\windows.md": "name with a drive letter",
    "\\\\server\\share.md": "absolute name",
}


@pytest.mark.parametrize("kind", [".zip", ".tar.gz"])
async def test_hostile_names_fail(client: AsyncClient, tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / f"archive{kind}", {"good.md": b"text", **dict.fromkeys(HOSTILE, b"x")})
    dataset = await create_dataset(client)

    report = await client.load(dataset, path)

    assert count_outcomes(report) == {"added": 1, "failed": len(HOSTILE)}
    reasons = {failure.key: failure.reason for failure in report.failures()}
    assert set(reasons.values()) == set(HOSTILE.values())
    assert await list_document_names(client, dataset) == ["good.md"]


NAMES = st.text(alphabet="ab./\\:é\0 ", min_size=1, max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(names=st.lists(NAMES, max_size=5), kind=st.sampled_from([".zip", ".tar"]))
def test_key_never_leaves_the_archive(tmp_path: Path, names: list[str], kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # duplicate names
        path = make(tmp_path / f"archive{kind}", dict.fromkeys(names, b"text"))
    source = ArchiveSource(path)
    for key, entry in scan(source).items():
        if entry.unreadable is None:
            parts = key.split("/")
            assert "" not in parts
            assert not {".", ".."}.intersection(parts)
            assert read(source, entry) == b"text"
    source.close()


def test_links_and_devices_are_skipped(tmp_path: Path) -> None:
    kinds = {
        "file.md": tarfile.REGTYPE,
        "link.md": tarfile.SYMTYPE,
        "hard.md": tarfile.LNKTYPE,
        "device.md": tarfile.CHRTYPE,
        "pipe.md": tarfile.FIFOTYPE,
        "folder": tarfile.DIRTYPE,
    }
    members = []
    for name, kind in kinds.items():
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "file.md"
        members.append(info)
    tar = make_tar(tmp_path / "archive.tar", members)
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        for name, mode in {"file.md": 0o100644, "link.md": 0o120777, "pipe.md": 0o010644}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            archive.writestr(entry, "file.md")
        archive.mkdir("folder")

    assert problems(tar) == {
        "file.md": "",
        "link.md": "link to another member",
        "hard.md": "link to another member",
        "device.md": "not a regular file",
        "pipe.md": "not a regular file",
    }
    assert problems(tmp_path / "archive.zip") == {
        "file.md": "",
        "link.md": "symbolic link",
        "pipe.md": "not a regular file",
    }


async def test_encrypted_and_unsupported_members_fail_alone(
    client: AsyncClient, tmp_path: Path
) -> None:
    path = make_zip(tmp_path / "a.zip", dict.fromkeys(("a.md", "b.md", "c.md"), b"text"), 0)
    data = bytearray(path.read_bytes())
    central = data.index(b"PK\x01\x02")
    data[central + 8] |= 1
    central = data.index(b"PK\x01\x02", central + 1)
    data[central + 10] = 97
    path.write_bytes(data)
    dataset = await create_dataset(client)

    report = await client.load(dataset, path)

    assert count_outcomes(report) == {"added": 1, "failed": 2}
    assert {failure.reason for failure in report.failures()} == {
        "encrypted",
        "unsupported compression method 97",
    }


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"bomb.md": bytes(2 * archive_formats.MIN_BOMB), "good.md": b"text" * 10_000}
    path = make(tmp_path / "archive.zip", files)
    assert problems(path)["bomb.md"].startswith("zip bomb: 2,097,152 bytes in ")
    assert problems(path)["good.md"] == ""

    files = {f"{number}.md": bytes(archive_formats.MIN_BOMB) for number in range(2)}
    monkeypatch.setattr(archive_formats, "MIN_UNPACKED", 1000)
    for kind in (".zip", ".tar.gz"):
        path = make(tmp_path / f"archive{kind}", files)
        with pytest.raises(SourceError, match="may be a zip bomb"):
            scan(ArchiveSource(path))
        source = ArchiveSource(path, max_unpacked=10**8)
        assert len(scan(source)) == 2
        source.close()


def test_huge_header_of_a_tar_uses_no_memory(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "archive.tar", {"n" * (2 * archive_formats.MAX_HEADER): b"text"})

    with pytest.raises(SourceError, match="header of more than 1,048,576 bytes"):
        scan(ArchiveSource(path))


def make_pax(kind: bytes, fields: Mapping[str, str]) -> bytes:
    """Return a block of extended headers: of the next member (x) or of all (g)."""
    records = b""
    for name, value in fields.items():
        record = f" {name}={value}\n".encode()
        length = len(record) + len(str(len(record)))
        length = len(record) + len(str(length))
        records += f"{length}".encode() + record
    return make_block(kind, len(records)) + records + bytes(-len(records) % 512)


def make_block(kind: bytes, size: int, name: str = "a.md") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def make_sparse(blocks: int) -> bytes:
    """Return a sparse member whose map has this many blocks more."""
    header = bytearray(make_block(b"S", 5))
    header[386:482] = b"00000000001\0" * 8
    header[482] = 1
    header[483:495] = b"00000000005\0"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    block = b"00000000001\0" * 42 + b"\1" + bytes(7)
    return bytes(header) + block * blocks + bytes(512) + b"hello".ljust(512, b"\0")


MEMBER = make_block(b"0", 5) + b"hello".ljust(512, b"\0")
END = bytes(1024)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (make_sparse(3000), "header of more than"),
        (make_pax(b"g", {"a": "x" * 600_000}) * 2, "header of more than"),
        (
            make_pax(b"g", {"a": "x" * 600_000}) + MEMBER + make_pax(b"g", {"b": "x" * 600_000}),
            "global headers of 1,200,002 bytes",
        ),
        (make_pax(b"x", {"size": "-1024"}), "member of -1,024 bytes"),
    ],
)
def test_headers_of_a_tar_need_bounded_memory_and_time(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(gzip.compress(content + MEMBER + END, 1))

    with pytest.raises(SourceError, match=problem):
        scan(ArchiveSource(path))


@pytest.mark.parametrize("time", ["inf", "-inf", "nan", "1e300", "99999999999999999999"])
def test_impossible_time_of_a_member_is_ignored(tmp_path: Path, time: str) -> None:
    path = tmp_path / "archive.tar"
    path.write_bytes(make_pax(b"x", {"mtime": time}) + MEMBER + END)
    source = ArchiveSource(path)

    assert scan(source)["a.md"].mtime_ns is None
    source.close()


def test_member_that_is_not_read_does_not_count_as_a_bomb(tmp_path: Path) -> None:
    sparse = {"GNU.sparse.map": "0,5", "GNU.sparse.size": str(10**12)}
    path = tmp_path / "archive.tar"
    member = make_pax(b"x", sparse) + make_block(b"0", 5, "s.md") + bytes(512)
    path.write_bytes(member + MEMBER + END)

    assert problems(path) == {"s.md": "sparse file", "a.md": ""}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_member_with_a_wrong_size_uses_no_memory(tmp_path: Path, method: int) -> None:
    """`zipfile` unpacks a block of bzip2 at once, however large it becomes."""
    size = 16 * 1024**2
    path = make_zip(tmp_path / "archive.zip", {"a.md": bytes(size)}, method)
    path.write_bytes(path.read_bytes().replace(size.to_bytes(4, "little"), b"\xe8\3\0\0"))
    source = ArchiveSource(path)
    entry = scan(source)["a.md"]

    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="Bad CRC-32"):
            read(source, entry)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        source.close()

    assert entry.size == 1000
    assert peak < 4 * 1024**2


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_member_of_any_compression_is_read_or_damaged(tmp_path: Path, method: int) -> None:
    content = os.urandom(100_000) + bytes(100_000)
    path = make_zip(tmp_path / "archive.zip", {"empty.md": b"", "a.md": content}, method)
    source = ArchiveSource(path)
    entries = scan(source)
    assert read(source, entries["a.md"]) == content
    assert read(source, entries["empty.md"]) == b""
    source.close()

    data = path.read_bytes()
    place = data.index(b"a.md") + 50_000
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    source = ArchiveSource(path)
    with pytest.raises(SourceError, match=r"member 'a\.md' is damaged"):
        read(source, scan(source)["a.md"])
    source.close()


def test_xz_of_several_streams_is_read(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "archive.tar", {"a.md": b"text" * 1000})
    data = path.read_bytes()
    path = tmp_path / "archive.tar.xz"
    path.write_bytes(b"".join(map(lzma.compress, (data[:700], b"", data[700:]))) + bytes(8))
    source = ArchiveSource(path)

    assert read(source, scan(source)["a.md"]) == b"text" * 1000
    source.close()


def test_xz_with_a_huge_dictionary_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**29}]
    path = tmp_path / "archive.tar.xz"
    path.write_bytes(lzma.compress(MEMBER + END, filters=filters))

    with pytest.raises(SourceError, match="more than 128 MiB of memory") as raised:
        scan(ArchiveSource(path))
    assert "xz -d" in raised.value.hint


def test_last_one_of_equal_names_counts(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("a.md", "old")
        archive.writestr("b.md", "b")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.md", "new")
        archive.writestr("./b.md", "new")
    source = ArchiveSource(tmp_path / "archive.zip")

    entries = scan(source)

    assert {key: read(source, entry) for key, entry in entries.items()} == {
        "a.md": b"new",
        "b.md": b"new",
    }
    source.close()


def test_names_in_other_encodings(tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    names = {
        "cp437": "K\u00e4se.md".encode("cp437"),
        "utf-8": "日本.md".encode(),
        "nfd": b"e\xcc\x81.md",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names.values()):
            archive.writestr(zipfile.ZipInfo(f"{number}" * len(name)), "text")
    data = path.read_bytes()
    for number, name in enumerate(names.values()):
        data = data.replace(f"{number}".encode() * len(name), name)
    path.write_bytes(data)
    raw = make_tar(tmp_path / "archive.tar", {os.fsdecode(b"latin-\xe9.md"): b"text"})

    assert set(problems(path)) == {"Käse.md", "日本.md", "é.md"}
    assert set(problems(raw)) == {os.fsdecode(b"latin-\xe9.md")}


def test_names_of_windows_programs_have_folders(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename, info.create_system = "docs\\a.md", 0
        archive.writestr(info, "text")

    assert set(problems(tmp_path / "archive.zip")) == {"docs/a.md"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, 0.99])
async def test_truncated_archive_sends_nothing(
    client: AsyncClient, emulator: Emulator, tmp_path: Path, kind: str, place: float
) -> None:
    files = {f"{number}.md": os.urandom(700) for number in range(20)}
    path = make(tmp_path / f"archive{kind}", files)
    data = path.read_bytes()
    last = data.rstrip(b"\0") if kind == ".tar" else data
    path.write_bytes(data[: int(len(last) * place)])

    with pytest.raises(SourceError, match="is damaged or truncated") as raised:
        await client.load("an-id", path)

    assert "download it again" in raised.value.hint
    assert not emulator.history


@pytest.mark.parametrize("kind", [".tar", ".tar.gz"])
def test_tar_with_a_damaged_header_is_refused(tmp_path: Path, kind: str) -> None:
    """`tarfile` would end there, as if the archive did."""
    files = {f"{number}.md": b"x" * 600 for number in range(3)}
    path = make_tar(tmp_path / "plain.tar", files)
    data = bytearray(path.read_bytes())
    data[1536 + 10] ^= 0xFF
    damaged = tmp_path / f"archive{kind}"
    damaged.write_bytes(COMPRESSIONS[kind](bytes(data)))

    with pytest.raises(SourceError, match="invalid header at byte 1536"):
        scan(ArchiveSource(damaged))


async def test_damaged_member_fails_alone(client: AsyncClient, tmp_path: Path) -> None:
    path = make_zip(tmp_path / "a.zip", {"a.md": b"the first", "b.md": b"the second"}, 0)
    path.write_bytes(path.read_bytes().replace(b"the first", b"the worst", 1))
    dataset = await create_dataset(client)

    report = await client.load(dataset, path)

    assert count_outcomes(report) == {"added": 1, "failed": 1}
    (failure,) = report.failures()
    assert "Bad CRC-32" in (failure.reason or "")


@given(data=st.binary(max_size=600), start=st.sampled_from([b"", b"PK\x05\x06", b"\x1f\x8b\x08"]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
def test_any_bytes_are_an_archive_or_an_error(tmp_path: Path, data: bytes, start: bytes) -> None:
    for kind in (".zip", ".tar"):
        path = tmp_path / f"archive{kind}"
        path.write_bytes(start + data)
        source = ArchiveSource(path)
        try:
            for entry in scan(source).values():
                read(source, entry)
        except KnowledgeError:
            pass
        finally:
            source.close()


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_archive_written_after_the_scan_is_an_error(tmp_path: Path, kind: str) -> None:
    path = make(tmp_path / f"archive{kind}", {"a.txt": b"x" * 100, "b.txt": b"y" * 100})
    source = ArchiveSource(path)
    entries = scan(source)
    stream = source.open(entries["a.txt"]).stream
    with path.open("r+b") as file:
        file.write(b"\0" * 10)

    with pytest.raises(SourceChangedError):
        source.open(entries["b.txt"])
    with pytest.raises(SourceChangedError):
        list(iter(lambda: stream.read(1000), b""))
    stream.close()
    source.close()


def test_missing_archive_and_unsupported_compression(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        ArchiveSource(tmp_path / "a.zip").prepare()
    path = tmp_path / "a.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    if sys.version_info < (3, 14):
        with pytest.raises(ConfigError, match="cannot read zstd"):
            ArchiveSource(path).prepare()


def test_full_disk_is_an_error_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "a.tar.gz", {"a.md": b"text"})
    full = Path("/dev/full")
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: full.open("wb", buffering=0))

    with pytest.raises(SourceError, match="no space left") as raised:
        ArchiveSource(path).prepare()
    assert "TMPDIR" in raised.value.hint


async def test_archives_beside_folders_are_files(client: AsyncClient, tmp_path: Path) -> None:
    """Whatever comes first, as `docs/*` may contain an archive."""
    archive = make(tmp_path / "a.zip", {"a.md": b"text"})
    file = tmp_path / "b.md"
    file.write_text("text")
    dataset = await create_dataset(client)

    for source in ([archive, file], [file, archive]):
        report = await client.load(dataset, source)
        assert (report.found, report.failed) == (2, 1)
        assert [each.reason for each in report.failures()] == ["unsupported type .zip"]
    report = await client.load(dataset, Item("a.zip", path=archive))
    assert report.skipped_reasons == {"unsupported type .zip": 1}
    other = make(tmp_path / "c.tar", {"a.md": b"text"})
    report = await client.load(dataset, [archive, other])
    assert await list_document_names(client, dataset) == ["a__a.md", "b.md", "c__a.md"]


def test_identity_and_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = ArchiveSource("sub/../docs-1.2.tar.gz")

    assert (source.identity, source.label) == (str(tmp_path / "docs-1.2.tar.gz"), "docs-1.2")
    assert ArchiveSource("docs.v1.zip").label == "docs.v1"
