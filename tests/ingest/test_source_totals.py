"""The total number and size of files, counted ahead of the scan."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from dify_kb import ConfigError, Item
from dify_kb.ingest import NamedSource, ScanRules, Source, create_source_reader, resolve_roots
from dify_kb.ingest.sources.source_reader import SourceTotals, count_source


def never() -> bool:
    return False


@pytest.fixture
def tree(folder: Path) -> Path:
    for name in ("a.md", "sub/b.md", "sub/c.txt", "tool.exe", ".hidden.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("12345")
    (folder / "empty.md").touch()
    return folder


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        (ScanRules(), SourceTotals(files=3, bytes=15, refused=2)),
        (ScanRules(include=["*.md"]), SourceTotals(files=2, bytes=10, refused=1)),
        (ScanRules(exclude=["sub"]), SourceTotals(files=1, bytes=5, refused=2)),
        (ScanRules(max_file_size=4), SourceTotals(files=0, bytes=0, refused=5)),
    ],
)
def test_totals_match_the_files_of_a_load(
    tree: Path, rules: ScanRules, expected: SourceTotals
) -> None:
    assert count_source(resolve_roots(tree), rules, never) == expected


@pytest.mark.parametrize("calls", [0, 1, 3])
def test_count_that_is_stopped_has_no_totals(tree: Path, calls: int) -> None:
    """A partial sum would look like the total."""
    left = iter([False] * calls)

    assert count_source(resolve_roots(tree), ScanRules(), lambda: next(left, True)) is None


def test_count_without_matches_can_be_stopped(tree: Path) -> None:
    """Scanning a million files takes as long if none of them matches."""
    calls = iter([False, True])

    rules = ScanRules(include=["*.pdf"])
    assert count_source(resolve_roots(tree), rules, lambda: next(calls, True)) is None


async def totals(source: Source, rules: ScanRules | None = None) -> SourceTotals | None:
    reader = await create_source_reader(source)
    assert reader.totals is not None
    return reader.totals(rules or ScanRules(), never)


async def test_paths_have_totals_however_they_are_given(tree: Path) -> None:
    paths = [tree / "a.md", tree / "sub" / "b.md"]

    assert await totals(tree) == SourceTotals(3, 15, 2)
    assert await totals(paths) == SourceTotals(2, 10)
    assert await totals(path for path in paths) == SourceTotals(2, 10)


async def test_list_of_items_has_totals(tree: Path) -> None:
    items = [
        Item("a.md", text="123"),
        Item("a.md", text="again"),
        Item("b.md", path=tree / "a.md"),
        Item("c.exe", bytes=b"1"),
    ]

    assert await totals(items) == await totals(tuple(items)) == SourceTotals(2, 8, 2)
    assert await totals(items[0]) == SourceTotals(1, 3)
    assert await totals(NamedSource(items, "name")) == SourceTotals(2, 8, 2)
    assert await totals(items, ScanRules(include=["b*"])) == SourceTotals(1, 5)


async def test_counting_consumes_no_items() -> None:
    reader = await create_source_reader([Item("a.md", text="a"), Item("b.md", text="b")])
    assert reader.totals is not None

    counted = reader.totals(ScanRules(), never)
    batches = [batch async for batch in reader.batches(ScanRules())]

    assert counted == SourceTotals(2, 2)
    assert sum(map(len, batches)) == 2


async def test_mixed_items_and_paths_are_refused_while_counting(tree: Path) -> None:
    reader = await create_source_reader([Item("a.md", text="a"), tree / "a.md"])
    assert reader.totals is not None

    with pytest.raises(ConfigError, match="mixes paths and items"):
        reader.totals(ScanRules(), never)


async def test_source_of_unknown_length_has_no_totals() -> None:
    def generate() -> Iterator[Item]:
        yield Item("a.md", text="a")

    async def crawl() -> AsyncIterator[Item]:
        yield Item("a.md", text="a")

    for source in (generate(), crawl(), NamedSource(generate(), "name")):
        assert (await create_source_reader(source)).totals is None
