from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from importlib.metadata import EntryPoint

import pytest
from attrs import define, evolve, field
from load_examples import count_outcomes, create_dataset

from dify_kb import AsyncClient, Dataset, FileSource, OpenedEntry, SourceEntry
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError, SourceChangedError, SourceError
from dify_kb.ingest.sources import file_source
from dify_kb.ingest.sources.file_content import MAX_SMALL_FILE

LARGE = 3 * MAX_SMALL_FILE


@define(eq=False)
class MemorySource(FileSource):
    """Files in memory, with version numbers as tokens."""

    files: dict[str, tuple[bytes, int]]
    url: str = "memory://docs"
    opened: list[str] = field(factory=list)
    streams: list[io.BytesIO] = field(factory=list)
    is_closed: bool = False
    _lock: threading.Lock = field(factory=threading.Lock)

    @property
    def identity(self) -> str:
        return self.url

    def scan(self) -> Iterator[SourceEntry]:
        for key, (content, version) in self.files.items():
            yield SourceEntry(key=key, size=len(content), token=str(version))

    def open(self, entry: SourceEntry) -> OpenedEntry:
        content, version = self.files[entry.key]
        stream = io.BytesIO(content)
        with self._lock:
            self.opened.append(entry.key)
            self.streams.append(stream)
        return OpenedEntry(stream, str(version))

    def close(self) -> None:
        self.is_closed = True


async def read_texts(client: AsyncClient, dataset: Dataset) -> dict[str, int]:
    """Return the size of the file of each document, by name."""
    return {
        row.name: row.upload_file.size if row.upload_file and row.upload_file.size else 0
        async for row in client.documents.iter(dataset)
    }


async def test_files_of_any_size_are_loaded_under_their_keys(client: AsyncClient) -> None:
    source = MemorySource(
        {"a.md": (b"small", 1), "b/c.txt": (b"x " * LARGE, 1), "b/d.xyz": (b"unknown", 1)}
    )
    dataset = await create_dataset(client)

    report = await client.load(dataset, source)

    assert count_outcomes(report) == {"added": 2, "skipped": 1}
    assert await read_texts(client, dataset) == {"a.md": 5, "b__c.txt": 2 * LARGE}
    assert source.is_closed
    assert all(stream.closed for stream in source.streams)


async def test_second_run_opens_only_changed_files(client: AsyncClient) -> None:
    source = MemorySource({f"{number}.md": (b"text", 1) for number in range(5)})
    dataset = await create_dataset(client)
    await client.load(dataset, source)
    source.files["3.md"] = (b"other", 2)
    source.files["4.md"] = (b"text", 2)
    source.opened.clear()

    report = await client.load(dataset, source)
    again = await client.load(dataset, source)

    assert count_outcomes(report) == {"updated": 1, "unchanged": 4}
    assert sorted(source.opened) == ["3.md", "4.md"]
    assert count_outcomes(again) == {"unchanged": 5}


async def test_download_is_not_repeated_when_the_upload_is(
    client: AsyncClient, emulator: Emulator
) -> None:
    emulator.faults.plan("documents.create_by_file", ["500", "500"])
    source = MemorySource({"a.txt": (b"y" * LARGE, 1)})
    dataset = await create_dataset(client)

    report = await client.load(dataset, source)

    assert count_outcomes(report) == {"added": 1}
    assert await read_texts(client, dataset) == {"a.txt": LARGE}
    assert all(stream.closed for stream in source.streams)


@pytest.mark.parametrize("size", [10, LARGE])
async def test_file_that_changes_after_the_scan_is_sent_with_its_new_token(
    client: AsyncClient, size: int
) -> None:
    """The token of a read belongs to the content, so that the next run sends nothing."""

    @define(eq=False)
    class Changing(MemorySource):
        def open(self, entry: SourceEntry) -> OpenedEntry:
            self.files[entry.key] = (b"n" * size, 2)
            return super().open(entry)

    source = Changing({"a.txt": (b"o" * size, 1)})
    dataset = await create_dataset(client)

    report = await client.load(dataset, source)
    again = await client.load(dataset, source)

    assert count_outcomes(report) == {"added": 1}
    assert count_outcomes(again) == {"unchanged": 1}


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("kind", ["cut", "grown", "raises", "refused", "emptied", "huge"])
async def test_broken_file_fails_alone(client: AsyncClient, kind: str, size: int) -> None:
    class Breaking(io.BytesIO):
        def read(self, number: int | None = -1, /) -> bytes:
            if self.tell() >= size - 5:
                raise SourceError("The connection was lost.")
            return super().read(min(number or 0, size - 5))

    @define(eq=False)
    class Broken(MemorySource):
        def open(self, entry: SourceEntry) -> OpenedEntry:
            opened = super().open(entry)
            if entry.key != "bad.txt":
                return opened
            match kind:
                case "refused":
                    raise SourceError("No permission.")
                case "raises":
                    return evolve(opened, stream=Breaking(b"x" * size))
                case _:
                    lengths = {"cut": size - 1, "grown": size + 1, "emptied": 0, "huge": 2**20}
                    return evolve(opened, stream=io.BytesIO(b"x" * lengths[kind]))

    source = Broken({"bad.txt": (b"x" * size, 1), "good.txt": (b"text", 1)})
    dataset = await create_dataset(client)

    report = await client.load(dataset, source, max_file_size=LARGE + 1000)

    assert count_outcomes(report) == {"added": 1, "failed": 1}
    (failure,) = report.failures()
    assert failure.key == "bad.txt"
    assert await read_texts(client, dataset) == {"good.txt": 4}


async def test_file_of_unknown_size_is_loaded_once(client: AsyncClient) -> None:
    @define(eq=False)
    class Unsized(MemorySource):
        def scan(self) -> Iterator[SourceEntry]:
            yield from (evolve(entry, size=None) for entry in super().scan())

    source = Unsized({"a.txt": (b"text", 1), "b.txt": (b"x" * LARGE, 1)})
    dataset = await create_dataset(client)

    report = await client.load(dataset, source)
    again = await client.load(dataset, source)

    assert (count_outcomes(report), report.bytes) == ({"added": 2}, 4 + LARGE)
    assert count_outcomes(again) == {"unchanged": 2}


async def test_error_of_the_scan_ends_the_load(client: AsyncClient) -> None:
    @define(eq=False)
    class Denied(MemorySource):
        def scan(self) -> Iterator[SourceEntry]:
            yield from super().scan()
            raise SourceError("Access denied.", hint="Check the credentials.")

    source = Denied({"a.txt": (b"text", 1)})
    dataset = await create_dataset(client)

    with pytest.raises(SourceError, match="Access denied"):
        await client.load(dataset, source)
    with pytest.raises(SourceError, match="Access denied"):  # also of the scan that counts
        await client.load(dataset, source, on_event=lambda _: None)

    assert source.is_closed


async def test_source_is_prepared_before_anything_is_requested(
    client: AsyncClient, emulator: Emulator
) -> None:
    @define(eq=False)
    class Missing(MemorySource):
        def prepare(self) -> None:
            raise ConfigError("No such source.")

    source = Missing({})

    with pytest.raises(ConfigError, match="No such source"):
        await client.load("an-id", source)

    assert source.is_closed
    assert not emulator.history


async def test_patterns_hidden_files_and_refusals_apply(client: AsyncClient) -> None:
    @define(eq=False)
    class Refusing(MemorySource):
        def scan(self) -> Iterator[SourceEntry]:
            for entry in super().scan():
                refused = "a submodule" if entry.key == "c.md" else None
                unreadable = "encrypted" if entry.key == "f.md" else None
                yield evolve(entry, refused=refused, unreadable=unreadable)

    names = ("a.md", "b.txt", "c.md", ".hidden.md", ".git/d.md", "e/old.md", "f.md")
    source = Refusing(dict.fromkeys(names, (b"text", 1)))
    dataset = await create_dataset(client)

    report = await client.load(dataset, source, include=["*.md"], exclude=["old*"])

    assert count_outcomes(report) == {"added": 1, "skipped": 1, "failed": 1}
    assert report.skipped_reasons == {"a submodule": 1}
    assert [failure.reason for failure in report.failures()] == ["encrypted"]


async def test_ignore_file_at_the_root_applies_and_is_read_once(client: AsyncClient) -> None:
    """As in folders, even if it is the last file of an archive."""
    files = ("a.md", "~$lock.md", "drafts/b.md", "drafts/keep.md", "c/d.md", "c/keep.tmp.md")
    source = MemorySource(dict.fromkeys(files, (b"text", 1)))
    source.files[".difyignore"] = (b"drafts/\r\n*.tmp.md\n!keep.tmp.md\n!drafts/keep.md\n", 1)
    source.files["c/.difyignore"] = (b"d.md\n", 1)
    dataset = await create_dataset(client)

    report = await client.load(dataset, source, on_event=lambda _: None)

    assert sorted(await read_texts(client, dataset)) == ["a.md", "c__d.md", "c__keep.tmp.md"]
    assert count_outcomes(report) == {"added": 3}
    assert source.opened.count(".difyignore") == 1


async def test_ignore_file_of_each_source_applies_to_its_files(client: AsyncClient) -> None:
    files = {"a.md": (b"text", 1)}
    one = MemorySource({**files, ".difyignore": (b"a.md", 1)}, "memory://one")
    dataset = await create_dataset(client)

    await client.load(dataset, [one, MemorySource(files, "memory://two")])

    assert list(await read_texts(client, dataset)) == ["two__a.md"]


async def test_ignore_file_that_cannot_be_read_ends_the_load(client: AsyncClient) -> None:
    """What it ignores must not be sent."""
    source = BrokenSource({".difyignore": (b"a.md", 1), "a.md": (b"text", 1)})
    dataset = await create_dataset(client)

    with pytest.raises(SourceError, match="unreadable"):
        await client.load(dataset, source)

    assert not await read_texts(client, dataset)


class BrokenSource(MemorySource):
    """No file can be opened."""

    def open(self, entry: SourceEntry) -> OpenedEntry:
        raise SourceError(f"{entry.key} is unreadable.")


async def test_several_sources_have_keys_with_their_names(client: AsyncClient) -> None:
    sources = [
        MemorySource({"a.md": (b"text", 1)}, url="memory://one"),
        MemorySource({"a.md": (b"text", 1)}, url="memory://two"),
    ]
    dataset = await create_dataset(client)

    report = await client.load(dataset, sources)
    again = await client.load(dataset, sources)

    assert count_outcomes(report) == {"added": 2}
    assert count_outcomes(again) == {"unchanged": 2}
    assert set(await read_texts(client, dataset)) == {"one__a.md", "two__a.md"}


async def test_sources_of_the_same_name_have_different_keys(client: AsyncClient) -> None:
    sources = [MemorySource({"a.md": (b"text", 1)}, url=f"memory://{name}/docs") for name in "abc"]
    dataset = await create_dataset(client)

    report = await client.load(dataset, sources)

    assert count_outcomes(report) == {"added": 3}
    assert all(name.startswith("docs-") for name in await read_texts(client, dataset))


async def test_source_cannot_be_mixed_with_folders(client: AsyncClient, folder: object) -> None:
    dataset = await create_dataset(client)

    for mixed in ([MemorySource({}), folder], [folder, MemorySource({})]):
        with pytest.raises(ConfigError, match="together with"):
            await client.load(dataset, mixed)  # type: ignore[arg-type] # a path


async def test_connector_of_another_package_is_found_by_its_scheme(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("memory", f"{__name__}:open_memory", file_source.ENTRY_POINTS)
    monkeypatch.setattr(file_source, "_list_connectors", lambda: {"memory": entry})
    dataset = await create_dataset(client)

    report = await client.load(dataset, "memory://docs")

    assert count_outcomes(report) == {"added": 1}
    with pytest.raises(ConfigError, match="Unknown scheme of a source: ftp://"):
        await client.load(dataset, "ftp://docs")


def open_memory(url: str) -> MemorySource:
    return MemorySource({"a.md": (url.encode(), 1)}, url=url)


async def test_dry_run_opens_nothing(client: AsyncClient) -> None:
    source = MemorySource({"a.md": (b"text", 1)})
    dataset = await create_dataset(client)

    report = await client.load(dataset, source, dry_run=True)

    assert count_outcomes(report) == {"pending": 1}
    assert source.opened == []


def test_changed_error_is_a_source_error() -> None:
    """Connectors may raise either from `open`."""
    assert issubclass(SourceChangedError, SourceError)
