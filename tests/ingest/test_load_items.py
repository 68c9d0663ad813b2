from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path

import anyio
import pytest
from load_examples import count_outcomes, create_dataset, list_document_names

from dify_kb import (
    AsyncClient,
    ConfigError,
    Dataset,
    Item,
    ItemResult,
    Progress,
)
from dify_kb.emulator import Emulator
from dify_kb.ingest import Source


async def texts(client: AsyncClient, dataset: Dataset) -> dict[str, str]:
    """Return the text of each document by name."""
    texts_by_name: dict[str, str] = {}
    async for row in client.documents.iter(dataset):
        segments = client.segments.iter(dataset, row.id)
        texts_by_name[row.name] = "".join([segment.content async for segment in segments])
    return texts_by_name


def items(number: int) -> list[Item]:
    return [Item(f"{one}.md", text=f"the text of {one}") for one in range(number)]


def leftovers() -> tuple[int, int, int]:
    """Count what a load could leak: tasks, journal threads, open files."""
    gc.collect()
    threads = [thread for thread in threading.enumerate() if "journal" in thread.name]
    return len(asyncio.all_tasks()), len(threads), len([*Path("/proc/self/fd").iterdir()])


async def test_paths_bytes_and_texts_become_documents(client: AsyncClient, folder: Path) -> None:
    (folder / "x.bin").write_text("from a path")
    dataset = await create_dataset(client)

    report = await client.load(
        dataset,
        [
            Item("a/b.md", path=folder / "x.bin"),
            Item("bytes.txt", bytes=b"from bytes"),
            Item("text.md", text="from a text: ä"),
        ],
    )

    assert count_outcomes(report) == {"added": 3}
    assert await texts(client, dataset) == {
        "a__b.md": "from a path",
        "bytes.txt": "from bytes",
        "text.md": "from a text: ä",
    }


async def test_single_item_is_a_source(client: AsyncClient) -> None:
    dataset = await create_dataset(client)

    assert count_outcomes(await client.load(dataset, Item("a.md", text="text"))) == {"added": 1}


async def test_items_with_bytes_need_an_extension_and_texts_do_not(client: AsyncClient) -> None:
    """Only the name shows the format of bytes."""
    dataset = await create_dataset(client)
    seen: dict[str, str | None] = {}

    def see(event: object) -> None:
        if isinstance(event, ItemResult):
            seen[event.key] = event.reason

    report = await client.load(
        dataset,
        [
            Item("https://wiki/page", text="a page"),
            Item("ticket 17", text="a ticket"),
            Item("some.exe", text="a text all the same"),
            Item("unknown", bytes=b"bytes"),
            Item("setup.exe", bytes=b"bytes"),
            Item("as/text.rst", bytes=b"a text"),
        ],
        as_text=["*.rst"],
        on_event=see,
    )

    assert count_outcomes(report) == {"added": 4, "skipped": 2}
    assert seen["unknown"] == "unsupported type: no extension"
    assert seen["setup.exe"] == "unsupported type .exe"
    found = await list_document_names(client, dataset)
    assert "ticket 17~c6d680e8.txt" in found
    assert "some.exe.txt" in found
    assert "as__text.rst.txt" in found


async def test_repeated_item_key_fails_and_the_first_is_kept(client: AsyncClient) -> None:
    dataset = await create_dataset(client)

    report = await client.load(
        dataset, [Item("a.md", text="first"), Item("a.md", text="second"), *items(3)]
    )

    assert count_outcomes(report) == {"added": 4, "failed": 1}
    (failure,) = report.failures()
    assert failure.reason == "another file has the same key"
    assert (await texts(client, dataset))["a.md"] == "first"


async def test_empty_large_and_missing_items_end_individually(
    client: AsyncClient, folder: Path
) -> None:
    dataset = await create_dataset(client)

    report = await client.load(
        dataset,
        [
            Item("empty.md", text=""),
            Item("large.md", text="x" * 2000),
            Item("gone.md", path=folder / "gone.md"),
            Item("folder.md", path=folder),
            Item("good.md", text="good"),
        ],
        max_file_size=1000,
    )

    assert count_outcomes(report) == {"added": 1, "skipped": 2, "failed": 2}


async def test_invalid_unicode_text_fails_alone(client: AsyncClient) -> None:
    """Half of a surrogate pair, from a program that truncates UTF-16, cannot be encoded."""
    dataset = await create_dataset(client)

    report = await client.load(dataset, [Item("a.md", text="cut \ud83d"), *items(2)])

    assert count_outcomes(report) == {"added": 2, "failed": 1}
    (failure,) = report.failures()
    assert failure.key == "a.md"
    assert "Unicode" in str(failure.reason)


def one_by_one(sequence: Sequence[Item | Path]) -> Iterator[Item | Path]:
    yield from sequence


async def slowly(
    sequence: Sequence[Item | Path], seconds: float = 0.01
) -> AsyncIterator[Item | Path]:
    for one in sequence:
        await anyio.sleep(seconds)
        yield one


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_item_generators_are_iterated_once(client: AsyncClient, kind: str) -> None:
    dataset = await create_dataset(client)
    expected = items(30)

    source = one_by_one(expected) if kind == "sync" else slowly(expected)
    report = await client.load(dataset, source)

    assert count_outcomes(report) == {"added": 30}
    assert len(await list_document_names(client, dataset)) == 30


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_paths_of_a_generator_have_keys_relative_to_their_common_folder(
    client: AsyncClient, folder: Path, kind: str
) -> None:
    paths = [folder / name for name in ("a.md", "sub/a.md")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{path}")
    dataset = await create_dataset(client)

    report = await client.load(dataset, one_by_one(paths) if kind == "sync" else slowly(paths))

    assert count_outcomes(report) == {"added": 2}
    assert await list_document_names(client, dataset) == ["a.md", "sub__a.md"]


async def test_first_items_are_sent_before_the_generator_ends(client: AsyncClient) -> None:
    """A source may take hours, such as a crawl or a paginated query."""
    dataset = await create_dataset(client)
    first_is_there = anyio.Event()

    async def crawl() -> AsyncIterator[Item]:
        yield Item("first.md", text="first")
        with anyio.fail_after(5):
            await first_is_there.wait()
        yield Item("second.md", text="second")

    report = await client.load(
        dataset,
        crawl(),
        on_event=lambda event: first_is_there.set() if isinstance(event, ItemResult) else None,
    )

    assert count_outcomes(report) == {"added": 2}


@pytest.mark.parametrize("kind", ["list", "sync", "async"])
async def test_empty_source_gives_an_empty_report(
    client: AsyncClient, emulator: Emulator, kind: str
) -> None:
    """Such as that of an hourly job that finds nothing new."""
    dataset = await create_dataset(client)
    sources: dict[str, Source] = {"list": [], "sync": one_by_one([]), "async": slowly([])}

    report = await client.load(dataset, sources[kind])

    assert count_outcomes(report) == {}
    assert report
    assert report.exit_code == 0
    assert report.journal is None
    assert "documents.create_by_file" not in {one.endpoint for one in emulator.history}


@pytest.mark.parametrize("kind", ["list", "sync", "async"])
@pytest.mark.parametrize("first", ["item", "path"])
async def test_paths_and_items_do_not_mix(
    client: AsyncClient, folder: Path, kind: str, first: str
) -> None:
    (folder / "a.md").write_text("text")
    mixed: list[Item | Path] = [*items(3), folder / "a.md"]
    if first == "path":
        mixed.reverse()
    dataset = await create_dataset(client)
    source = mixed if kind == "list" else one_by_one(mixed) if kind == "sync" else slowly(mixed)

    with pytest.raises(ConfigError, match="mixes paths and items"):
        await client.load(dataset, source)


class SourceBrokeError(Exception):
    """An exception of the caller."""


def break_after(number: int) -> Iterator[Item]:
    yield from items(number)
    raise SourceBrokeError


async def break_after_slowly(number: int) -> AsyncIterator[Item]:
    async for one in slowly(items(number), 0.005):
        assert isinstance(one, Item)
        yield one
    raise SourceBrokeError


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_generator_error_is_raised_unchanged(
    client: AsyncClient, emulator: Emulator, tmp_path: Path, kind: str
) -> None:
    dataset = await create_dataset(client)
    journal = tmp_path / "journal.db"
    await client.load(dataset, items(1), journal=journal)
    before = leftovers()

    with pytest.raises(SourceBrokeError):
        await client.load(
            dataset,
            break_after(120) if kind == "sync" else break_after_slowly(50),
            journal=journal,
        )

    tasks, threads, files = leftovers()
    assert (tasks, threads) == before[:2]
    assert files <= before[2] + 10  # connections that are kept alive
    report = await client.load(dataset, items(120), journal=journal)
    assert report.added + report.unchanged == 120
    creates = [one for one in emulator.history if one.endpoint == "documents.create_by_file"]
    assert len(creates) == len(await list_document_names(client, dataset)) == 120


async def test_items_are_remembered_under_their_keys(client: AsyncClient, tmp_path: Path) -> None:
    dataset = await create_dataset(client)
    journal = tmp_path / "journal.db"
    await client.load(dataset, items(3), journal=journal)

    report = await client.load(
        dataset,
        [*items(2), Item("2.md", text="changed"), Item("3.md", text="new")],
        journal=journal,
    )

    assert count_outcomes(report) == {"unchanged": 2, "updated": 1, "added": 1}


async def test_without_a_journal_items_are_sent_every_time(
    client: AsyncClient, tmp_path: Path
) -> None:
    """Generators cannot be distinguished, so nothing is recorded."""
    dataset = await create_dataset(client)
    for outcome in ("added", "updated"):
        report = await client.load(dataset, items(2))
        assert count_outcomes(report) == {outcome: 2}
        assert report.journal is None

    assert not (tmp_path / "state").exists()


async def test_memory_of_large_items_is_bounded(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are created faster than sent; accepted items are released."""
    size, room = 5_000, 50_000
    monkeypatch.setattr("dify_kb.ingest.engine.file_queues.MAX_BYTES", room)
    monkeypatch.setattr("dify_kb.ingest.sources.iter_in_thread.MAX_WEIGHT", size)
    made = accepted = most = 0

    def make() -> Iterator[Item]:
        nonlocal made, most
        for number in range(80):
            made += 1
            most = max(most, made - accepted)
            yield Item(f"{number}.txt", text=f"{number} " + "word " * (size // 5))

    def see(event: object) -> None:
        nonlocal accepted
        accepted = event.accepted if isinstance(event, Progress) else accepted

    report = await client.load(await create_dataset(client), make(), on_event=see)

    assert count_outcomes(report) == {"added": 80}
    assert most <= room // size + 4


async def test_patterns_apply_to_item_keys(client: AsyncClient) -> None:
    dataset = await create_dataset(client)

    report = await client.load(
        dataset,
        [Item(key, text=key) for key in ("a/x.md", "a/y.txt", "b/x.md", "b/draft.md")],
        include=["*.md"],
        exclude=["draft*", "a/**"],
    )

    assert count_outcomes(report) == {"added": 1}
    assert await list_document_names(client, dataset) == ["b__x.md"]


async def test_metadata_of_the_item_and_of_a_function_are_merged(client: AsyncClient) -> None:
    dataset = await create_dataset(client)

    def describe(item: Item) -> Mapping[str, object]:
        return {"origin": "function", "length": len(item.bytes or b"")}

    report = await client.load(
        dataset,
        [
            Item("a.md", text="four", metadata={"origin": "item"}),
            Item("b.md", text="three"),
        ],
        metadata=describe,
    )

    assert count_outcomes(report) == {"added": 2}
    values: dict[str, dict[str, object]] = {}
    async for row in client.documents.iter(dataset):
        values[row.name] = {str(one["name"]): one["value"] for one in row.doc_metadata or ()}
    assert values["a.md"]["origin"] == "item"
    assert values["b.md"]["origin"] == "function"
    assert str(values["b.md"]["length"]) == "5"


async def test_a_value_that_cannot_be_set_is_a_warning_of_its_item(client: AsyncClient) -> None:
    dataset = await create_dataset(client)
    results = dict[str, ItemResult]()

    report = await client.load(
        dataset,
        [Item("a.md", text="a", metadata={"field": object(), "year": 2024}), *items(2)],
        on_event=lambda event: (
            results.update({event.key: event}) if isinstance(event, ItemResult) else None
        ),
    )

    assert count_outcomes(report) == {"added": 3}
    assert report.metadata_set == 1
    assert "Unsupported value for metadata field 'field'" in results["a.md"].warnings[0]
    assert report.warnings == [f"{results['a.md'].warnings[0]} (in 'a.md')."]


@pytest.mark.parametrize(
    ("key", "content"),
    [("", {"text": "a"}), ("/ /", {"text": "a"}), ("a", {}), ("a", {"text": "a", "bytes": b"a"})],
)
def test_item_has_a_key_and_one_content(key: str, content: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Item(key, **content)  # type: ignore[arg-type]  # a row of the table


async def test_file_whose_name_is_not_utf_8_is_loaded_and_remembered(
    client: AsyncClient, folder: Path
) -> None:
    """Linux allows any bytes in names; archives of old systems contain many."""
    path = os.fsencode(folder) + b"/caf\xe9.txt"
    with open(path, "wb") as file:  # noqa: ASYNC230, PTH123 -- a name that no Path can spell
        file.write(b"coffee")
    dataset = await create_dataset(client)
    seen: Counter[str] = Counter()

    for outcome in ("added", "unchanged"):
        report = await client.load(
            dataset,
            folder,
            on_event=lambda event: seen.update(
                [event.outcome.value] if isinstance(event, ItemResult) else []
            ),
        )
        assert count_outcomes(report) == {outcome: 1}

    assert seen == {"added": 1, "unchanged": 1}


async def test_file_from_a_far_future_is_loaded_and_remembered(
    client: AsyncClient, folder: Path
) -> None:
    """File systems allow times that, in nanoseconds, exceed 64 bits."""
    (folder / "a.txt").write_text("text")
    (folder / "b.txt").write_text("text")
    os.utime(folder / "a.txt", (2**34, 2**34))
    if (folder / "a.txt").stat().st_mtime_ns < 2**63:
        pytest.skip("no such times here")
    dataset = await create_dataset(client)

    for outcome in ("added", "unchanged"):
        report = await client.load(dataset, folder)
        assert count_outcomes(report) == {outcome: 2}


async def test_each_item_costs_one_create(client: AsyncClient, emulator: Emulator) -> None:
    dataset = await create_dataset(client)

    await client.load(dataset, items(40))

    requests = Counter(exchange.endpoint for exchange in emulator.history)
    assert requests["documents.create_by_file"] == 40
