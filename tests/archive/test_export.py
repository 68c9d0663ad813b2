"""Export a knowledge base, again, selected, to a zip; verify what was written."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from archive_examples import RULE, create_handbook, create_texts, read_members

from dify_kb import (
    ArchiveError,
    ArchiveProgress,
    AsyncClient,
    Client,
    ConfigError,
    Dataset,
    Field,
    verify_archive,
)
from dify_kb.archive.archive_format import Manifest
from dify_kb.archive.export_state import ExportState
from dify_kb.archive.read_archive import ArchiveReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dify_kb.emulator import Emulator


def list_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def list_names(archive: Path) -> list[str]:
    with ArchiveReader.open(archive) as reader:
        return [document.name for document in reader.iter_documents()]


@pytest.fixture
async def handbook(client: AsyncClient) -> Dataset:
    return await create_handbook(client, "1.16")


async def test_an_archive_contains_neither_key_nor_address(
    client: AsyncClient, emulator: Emulator, handbook: Dataset, tmp_path: Path
) -> None:
    await client.export(handbook, tmp_path / "a")

    host = emulator.url.removeprefix("http://").removesuffix("/v1")
    everything = b"".join(path.read_bytes() for path in list_files(tmp_path / "a"))
    with ArchiveReader.open(tmp_path / "a") as reader:
        everything += repr([*reader.iter_documents()]).encode()
    assert emulator.api_key.encode() not in everything
    assert host.encode() not in everything


async def test_a_second_export_of_an_unchanged_base_asks_for_the_list_only(
    client: AsyncClient, emulator: Emulator, handbook: Dataset, tmp_path: Path
) -> None:
    await client.export(handbook, tmp_path / "a")
    first, known = read_members(tmp_path / "a"), len(emulator.history)

    report = await client.export(handbook, tmp_path / "a")

    endpoints = [exchange.endpoint for exchange in emulator.history[known:]]
    assert endpoints == ["datasets.get", "documents.list"]
    assert (report.exported, report.unchanged) == (0, 8)
    assert read_members(tmp_path / "a") == first


async def test_a_new_export_has_the_same_bytes(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    await client.export(handbook, tmp_path / "a")
    await client.export(handbook, tmp_path / "b")
    await client.export(handbook, tmp_path / "a.zip")
    await client.export(handbook, tmp_path / "b.zip")

    assert read_members(tmp_path / "a") == read_members(tmp_path / "b")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert not (tmp_path / "a.zip.parts").exists()


async def test_changes_are_read_and_deleted_documents_removed(
    client: AsyncClient, tmp_path: Path
) -> None:
    dataset = await client.datasets.create("a", indexing_technique="economy")
    ids = await create_texts(client, dataset, {name: f"text of {name}" for name in "abc"})
    await client.export(dataset, tmp_path / "a")
    await client.documents.delete(dataset, ids["a"])
    await create_texts(client, dataset, {"b": "longer text of b", "d": "new"})

    report = await client.export(dataset, tmp_path / "a")

    assert (report.exported, report.removed, report.documents) == (2, 1, 3)
    assert list_names(tmp_path / "a") == ["b", "c", "d"]
    assert verify_archive(tmp_path / "a")


async def test_documents_deleted_while_the_list_is_read_hide_no_others(
    client: AsyncClient, emulator: Emulator, tmp_path: Path
) -> None:
    """Each delete moves a row of the next page to one that was read already."""
    dataset = await client.datasets.create("a", indexing_technique="economy")
    names = [f"{number:03}" for number in range(130)]
    ids = await create_texts(client, dataset, dict.fromkeys(names, "text"))
    deleted = [ids[name] for name in names[-20:]]

    def delete(event: ArchiveProgress) -> None:
        with Client(emulator.url, emulator.api_key) as other:
            while event.stage == "list" and deleted:
                other.documents.delete(dataset, deleted.pop())

    report = await client.export(dataset, tmp_path / "a", files=False, on_event=delete)

    assert report.documents == 110
    assert list_names(tmp_path / "a") == names[:110]


async def test_an_export_that_ends_between_reading_and_writing_loses_nothing(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    """The rule of the dataset comes with the documents, which are not read again."""
    await client.export(handbook, tmp_path / "whole")

    def stop(event: ArchiveProgress) -> None:
        if event.stage == "read" and event.done == event.total:
            raise KeyError

    with pytest.raises(KeyError):
        await client.export(handbook, tmp_path / "a", on_event=stop)
    report = await client.export(handbook, tmp_path / "a")

    assert report.exported == 0
    assert read_members(tmp_path / "a") == read_members(tmp_path / "whole")


async def test_an_edit_of_the_same_length_needs_a_full_export(
    client: AsyncClient, tmp_path: Path
) -> None:
    """Nothing in the list changes with it (measured)."""
    dataset = await client.datasets.create("a", indexing_technique="economy")
    ids = await create_texts(client, dataset, {"a": "one"})
    await client.export(dataset, tmp_path / "a")
    (row,) = (await client.segments.list(dataset, ids["a"])).data
    await client.segments.update(dataset, ids["a"], row.id, content="two")

    unchanged = await client.export(dataset, tmp_path / "a")
    full = await client.export(dataset, tmp_path / "a", full=True)

    assert (unchanged.exported, full.exported) == (0, 1)
    with ArchiveReader.open(tmp_path / "a") as reader:
        assert [chunk.content for row in reader.iter_documents() for chunk in row.chunks] == ["two"]


async def test_documents_are_selected_by_name_and_metadata(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    await client.export(handbook, tmp_path / "a", only="*.md")
    await client.export(handbook, tmp_path / "b", filter=Field("year") >= 2024, files=False)

    assert sorted(list_names(tmp_path / "a")) == [
        "archived.md",
        "both.md",
        "disabled.md",
        "file.md",
    ]
    assert list_names(tmp_path / "b") == ["long.txt"]
    assert Manifest.from_bytes((tmp_path / "b/manifest.json").read_bytes()).files == 0


async def test_requests_are_told_beforehand_and_progress_has_totals(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    events: list[ArchiveProgress] = []

    report = await client.export(handbook, tmp_path / "a", on_event=events.append)

    first_read = next(event for event in events if event.stage == "read")
    assert (first_read.done, first_read.total) == (0, 8)
    # A page of the chunks of long.txt, and the dataset, are not estimated.
    assert abs((first_read.planned_requests or 0) - report.requests) <= 2
    assert max(event.done for event in events if event.stage == "read") == 8


async def test_a_dry_run_writes_nothing(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    report = await client.export(handbook, tmp_path / "new" / "a", dry_run=True)

    assert (report.exported, report.planned_requests) == (8, 26)
    assert not (tmp_path / "new").exists()


async def test_a_folder_with_other_files_is_refused(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    """A mistyped path must not fill the folder of somebody's documents."""
    (tmp_path / "thesis.txt").write_text("mine")

    with pytest.raises(ArchiveError, match=r"thesis\.txt"):
        await client.export(handbook, tmp_path)

    assert [path.name for path in list_files(tmp_path)] == ["thesis.txt"]


async def test_a_folder_of_another_dataset_is_refused(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    other = await client.datasets.create("other", indexing_technique="economy")
    await client.export(handbook, tmp_path / "a")

    with pytest.raises(ConfigError, match="archive of another dataset"):
        await client.export(other, tmp_path / "a")


async def test_a_second_export_into_the_same_folder_is_refused(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    running = ExportState.open(tmp_path / "a/state.sqlite")
    try:
        with pytest.raises(ArchiveError, match="in use"):
            await client.export(handbook, tmp_path / "a")
    finally:
        running.close()
    assert await client.export(handbook, tmp_path / "a")


async def test_equal_files_of_documents_read_at_a_time_are_stored_once(
    client: AsyncClient, tmp_path: Path
) -> None:
    dataset = await client.datasets.create("a", indexing_technique="economy")
    await create_texts(client, dataset, {f"{number}.md": "the same" for number in range(24)})

    report = await client.export(dataset, tmp_path / "a", concurrency=12)

    assert (report.documents, report.files) == (24, 1)
    assert verify_archive(tmp_path / "a")


async def test_links_in_an_archive_are_not_followed(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "a/files").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ArchiveError, match="symbolic link"):
        await client.export(handbook, tmp_path / "a")

    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["../../evil.md", "/etc/passwd.md", "C:\\x.md", "a\nb.md", "..md"])
async def test_names_of_documents_never_become_paths(
    client: AsyncClient, tmp_path: Path, name: str
) -> None:
    dataset = await client.datasets.create("../../up", indexing_technique="economy")
    await create_texts(client, dataset, {name: "text"})

    await client.export(dataset, tmp_path / "in" / "a")

    written = {path.relative_to(tmp_path / "in/a").as_posix() for path in list_files(tmp_path)}
    assert {place.split("/")[0] for place in written} <= {
        "manifest.json", "documents", "files", "state.sqlite", "state.sqlite-wal",
    }  # fmt: skip
    assert list_names(tmp_path / "in/a") == [name]


async def test_a_deleted_original_is_read_again(
    client: AsyncClient, handbook: Dataset, tmp_path: Path
) -> None:
    await client.export(handbook, tmp_path / "a")
    before = read_members(tmp_path / "a")
    list_files(tmp_path / "a/files")[0].unlink()

    report = await client.export(handbook, tmp_path / "a")

    assert report.exported == 1
    assert read_members(tmp_path / "a") == before


@pytest.fixture
async def archive(client: AsyncClient, tmp_path: Path) -> Path:
    """Return a small archive."""
    dataset = await client.datasets.create("small", indexing_technique="economy")
    upload = await client.documents.create_by_file(
        dataset, b"original", name="a.md", process_rule=RULE
    )
    await client.documents.wait(dataset, [upload])
    await client.export(dataset, tmp_path / "small")
    await client.export(dataset, tmp_path / "small.zip")
    return tmp_path / "small"


def iter_damages(content: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield the content with a flipped bit, cut, extended, and empty."""
    for place in sorted(
        {0, len(content) - 1, *(chance.randrange(len(content)) for _ in range(12))}
    ):
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        yield bytes(flipped)
    yield content[: len(content) // 2]
    yield content[:-1]
    yield content + b"x"
    yield b""


async def test_any_flipped_byte_and_missing_member_is_found(archive: Path, tmp_path: Path) -> None:
    chance = random.Random(7)
    members = read_members(archive)
    assert verify_archive(archive)
    assert len(members) == 3

    for name, content in members.items():
        copy = tmp_path / "copy"
        shutil.copytree(archive, copy)
        for damaged in iter_damages(content, chance):
            (copy / name).write_bytes(damaged)
            assert not verify_archive(copy), name
        (copy / name).unlink()
        assert not verify_archive(copy), name
        shutil.rmtree(copy)


async def test_any_flipped_byte_of_a_zip_is_found(archive: Path) -> None:
    chance = random.Random(8)
    packed = archive.with_suffix(".zip")
    content = packed.read_bytes()
    assert verify_archive(packed)

    for damaged in iter_damages(content, chance):
        packed.write_bytes(damaged)
        assert not verify_archive(packed)
    for place in range(0, len(content), max(1, len(content) // 150)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << chance.randrange(8)
        packed.write_bytes(bytes(flipped))
        assert not verify_archive(packed), place


async def test_a_newer_format_is_refused_with_the_remedy(archive: Path) -> None:
    manifest = archive / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"format":1', b'"format":2'))

    report = verify_archive(archive)

    assert "format 2" in report.problems[0]


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "files/aa/../../x", "documents/1.jsonl.gz"]
)
async def test_a_manifest_with_another_path_is_refused(
    client: AsyncClient, archive: Path, name: str
) -> None:
    """With a correct checksum: by somebody hostile, not by accident."""
    manifest = Manifest.from_bytes((archive / "manifest.json").read_bytes())
    member = next(iter(manifest.members.values()))
    from attrs import evolve

    hostile = evolve(manifest, members={**manifest.members, name: member})
    (archive / "manifest.json").write_bytes(hostile.to_bytes())

    with pytest.raises(ArchiveError, match="invalid member"):
        await client.import_(archive, name="copy")

    assert await client.datasets.find("copy") is None
