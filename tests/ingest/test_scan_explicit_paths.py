"""Sources with explicitly named files, and invalid paths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dify_kb import AsyncClient, ConfigError, Item, Outcome
from dify_kb.ingest import (
    ItemResult,
    NamedSource,
    ScanRules,
    Source,
    create_source_reader,
    resolve_roots,
)
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.sources.scan import Scanner, scan


def refusals(source: Path | list[Path], rules: ScanRules | None = None) -> dict[str, ItemResult]:
    items = scan(resolve_roots(source), rules or ScanRules())
    return {item.key: item for item in items if isinstance(item, ItemResult)}


@pytest.fixture
def strange(tmp_path: Path, folder: Path) -> Path:
    (tmp_path / "outside.md").write_text("text")
    (folder / "tool.exe").write_text("text")
    (folder / "Makefile").write_text("text")
    (folder / "empty.md").touch()
    (folder / "out.md").symlink_to(tmp_path / "outside.md")
    os.mkfifo(folder / "pipe.md")
    return folder


NAMES = ["tool.exe", "Makefile", "empty.md", "out.md", "pipe.md"]


@pytest.mark.parametrize("name", NAMES)
def test_excluded_explicit_file_fails(strange: Path, name: str) -> None:
    """A skipped file would look like a success, although it was named explicitly."""
    alone = refusals(strange / name)[name]
    in_folder = refusals(strange)[name]

    assert alone.outcome is Outcome.FAILED
    assert in_folder.outcome is Outcome.SKIPPED
    assert alone.reason == in_folder.reason


def test_files_of_a_list_are_explicit(strange: Path) -> None:
    outcomes = {one.outcome for one in refusals([strange / name for name in NAMES]).values()}

    assert outcomes == {Outcome.FAILED}


def test_excluded_files_of_a_folder_are_skipped(strange: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.exe").write_text("text")

    found = refusals([strange, other / "x.exe"])

    assert found["docs/tool.exe"].outcome is Outcome.SKIPPED
    assert found["x.exe"].outcome is Outcome.FAILED


def test_patterns_do_not_apply_to_explicit_files(folder: Path) -> None:
    """Patterns select the files of folders; a named file is already selected."""
    (folder / ".a.md").write_text("text")

    (found,) = scan(resolve_roots(folder / ".a.md"), ScanRules(include=["*.txt"], exclude=["*.md"]))

    assert isinstance(found, FoundFile)


async def outcomes_of(source: Source, rules: ScanRules | None = None) -> dict[str, Outcome]:
    reader = await create_source_reader(source)
    judged = [one async for batch in reader.batches(rules or ScanRules()) for one in batch]
    return {one.key: one.outcome for one in judged if isinstance(one, ItemResult)}


async def test_elements_of_a_named_list_are_explicit(strange: Path) -> None:
    items = [Item(name, path=strange / name) for name in ("tool.exe", "empty.md", "pipe.md")]

    assert set((await outcomes_of(NamedSource(items, "name"))).values()) == {Outcome.FAILED}
    assert set((await outcomes_of(items)).values()) == {Outcome.SKIPPED}
    assert await outcomes_of(NamedSource(items, "name"), ScanRules(exclude=["*"])) == {}


async def test_excluded_explicit_file_gives_exit_code_3(client: AsyncClient, strange: Path) -> None:
    dataset = await client.datasets.create("docs", indexing_technique="economy")

    report = await client.load(dataset, [strange / "tool.exe"])

    assert (report.failed, report.exit_code) == (1, 3)
    assert [one.reason for one in report.failures()] == ["unsupported type .exe"]


@pytest.mark.parametrize("source", ["", [""], ["a.md", ""]])
async def test_empty_path_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: Source
) -> None:
    """An unset variable would load the current folder."""
    monkeypatch.chdir(folder)
    (folder / "a.md").write_text("text")

    with pytest.raises(ConfigError, match=r"The path is empty\..*variable"):
        await create_source_reader(source)


def test_item_with_an_empty_path_is_refused() -> None:
    with pytest.raises(ConfigError, match="The path is empty"):
        Item("a.md", path="")


async def test_path_with_nul_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL"):
        await create_source_reader("a\0b")
    with pytest.raises(ConfigError, match="NUL"):
        Item("a.md", path=Path("a\0b"))


@pytest.mark.parametrize(
    ("include", "expected"),
    [
        (["*"], {}),
        (["*.*"], {}),
        (["*.p*"], {}),
        (["*", "*.pptx"], {"a.pptx": True, "sub/b.pptx": True}),
        (["*", "sub/**/*.pptx"], {"sub/b.pptx": True}),
        (["*.pptx", "*.md"], {"a.pptx": True, "sub/b.pptx": True, "c.md": False}),
        ("*.pptx", {"a.pptx": True, "sub/b.pptx": True}),
        (["*.eml", "*.exe"], {}),
    ],
)
def test_pattern_with_the_extension_overrides_the_local_refusal(
    folder: Path, include: list[str] | str, expected: dict[str, bool]
) -> None:
    """Servers with ETL_TYPE=Unstructured accept more types, which no request reveals."""
    for name in ("a.pptx", "sub/b.pptx", "c.md", "d.exe"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("text")
    if "*" in include or "*.*" in include:
        (folder / "c.md").unlink()

    found = scan(resolve_roots(folder), ScanRules(include=include))

    assert {
        one.key: one.unsupported_by_default for one in found if isinstance(one, FoundFile)
    } == expected


def test_as_text_overrides_the_extension(folder: Path) -> None:
    (folder / "a.eml").write_text("text")

    (found,) = scan(resolve_roots(folder), ScanRules(include=["*.eml"], as_text=["*.eml"]))

    assert isinstance(found, FoundFile)
    assert (found.as_text, found.unsupported_by_default) == (True, False)
    assert found.name == "a.eml.txt"


def test_item_key_determines_the_extension(folder: Path) -> None:
    (folder / "a.bin").write_text("text")
    scanner = Scanner.from_rules(ScanRules())

    for item in (
        Item("a.EPUB", bytes=b"x"),
        Item("b.ppt", path=folder / "a.bin"),
        Item("c.md", bytes=b"x"),
        Item("d.eml", text="x"),
    ):
        found = scanner.check_item(item)
        assert isinstance(found, FoundFile)
        assert found.unsupported_by_default is (item.key in {"a.EPUB", "b.ppt"})
        assert found.as_text is (item.key == "d.eml")
    assert isinstance(scanner.check_item(Item("e.exe", bytes=b"x")), ItemResult)
