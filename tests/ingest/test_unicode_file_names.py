"""File names that operating systems return in different Unicode forms."""

from __future__ import annotations

from pathlib import Path
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dify_kb import AsyncClient
from dify_kb.ingest import NamedSource, ScanRules, create_source_reader, resolve_roots
from dify_kb.ingest.sources.document_names import PathNormalizer, normalize_names
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.sources.scan import scan

NFC, NFD = "caf\xe9", "cafe\u0301"


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"the text of {name!r}")


def keys(source: Path | list[Path], rules: ScanRules | None = None) -> list[str]:
    found = list(scan(resolve_roots(source), rules or ScanRules()))
    assert all(isinstance(one, FoundFile) for one in found)
    return [one.key for one in found]


@pytest.mark.parametrize("form", [NFC, NFD])
def test_nfc_and_nfd_names_have_the_same_key(folder: Path, form: str) -> None:
    """Otherwise a folder copied from a Mac or a file server would be loaded twice."""
    write(folder, f"{form}.md", f"{form}/{form}.md")

    assert keys(folder) == [f"{NFC}.md", f"{NFC}/{NFC}.md"]


def test_path_keeps_the_form_on_disk(folder: Path) -> None:
    write(folder, f"{NFD}.md")

    (found,) = scan(resolve_roots(folder), ScanRules())

    assert isinstance(found, FoundFile)
    assert found.path == str(folder / f"{NFD}.md")


def test_names_differing_only_in_form_are_two_files(folder: Path) -> None:
    write(folder, f"{NFC}.md", f"{NFD}.md", f"{NFC}/a.md", f"{NFD}/a.md")

    found = [one for one in scan(resolve_roots(folder), ScanRules()) if isinstance(one, FoundFile)]

    raw = {f"{NFC}.md", f"{NFD}.md", f"{NFC}/a.md", f"{NFD}/a.md"}
    assert {one.key for one in found} == raw
    assert len({one.name for one in found}) == 4


def test_excluded_name_still_prevents_normalization(folder: Path) -> None:
    """Otherwise the key would depend on the patterns."""
    write(folder, f"{NFD}.md")
    (folder / f"{NFC}.md").mkdir()

    assert keys(folder) == [f"{NFD}.md"]


@given(st.permutations([NFC, NFD, "a", "\u1e69", "s\u0323\u0307", "s\u0307\u0323"]))
def test_listing_order_does_not_change_keys(names: list[str]) -> None:
    assert dict(zip(names, normalize_names(names), strict=True)) == {one: one for one in names}


@given(st.sets(st.text(st.sampled_from("ae\xe9\u0301\u0323"), min_size=1, max_size=4)))
def test_normalized_names_of_a_folder_are_distinct(names: set[str]) -> None:
    listed = sorted(names)
    normalized = normalize_names(listed)

    assert len(set(normalized)) == len(names)
    for name, key in zip(listed, normalized, strict=True):
        assert key in {name, normalize("NFC", name)}


@pytest.mark.parametrize("form", [NFC, NFD])
def test_explicit_files_have_normalized_keys(folder: Path, form: str) -> None:
    write(folder, f"{form}/{form}.md", "b.md")

    assert keys([folder / form / f"{form}.md", folder / "b.md"]) == [f"{NFC}/{NFC}.md", "b.md"]
    assert keys(folder / form / f"{form}.md") == [f"{NFC}.md"]


def test_explicit_files_have_distinct_keys(folder: Path) -> None:
    write(folder, f"{NFC}/a.md", f"{NFD}/a.md")

    assert keys([folder / NFC / "a.md", folder / NFD / "a.md"]) == [f"{NFC}/a.md", f"{NFD}/a.md"]


@pytest.mark.parametrize("form", [NFC, NFD])
def test_folder_prefixes_of_keys_are_normalized(folder: Path, form: str) -> None:
    write(folder, f"{form}/a.md", "b/a.md")

    assert keys([folder / form, folder / "b"]) == [f"{NFC}/a.md", "b/a.md"]


def test_folders_with_equal_normalized_names_keep_their_parents(folder: Path) -> None:
    write(folder, f"one/{NFC}/a.md", f"two/{NFD}/a.md")

    assert keys([folder / "one" / NFC, folder / "two" / NFD]) == [
        f"one/{NFC}/a.md",
        f"two/{NFC}/a.md",
    ]


def test_patterns_match_either_form(folder: Path) -> None:
    write(folder, f"{NFD}.md", "b.md")

    assert keys(folder, ScanRules(include=[f"{NFC}*"])) == [f"{NFC}.md"]
    assert keys(folder, ScanRules(exclude=[f"{NFD}*"])) == ["b.md"]


def test_path_in_an_unlisted_form_is_normalized(folder: Path) -> None:
    """macOS opens a file by either form, but lists only one."""
    write(folder, f"{NFC}.md")

    assert PathNormalizer().normalize(f"{NFD}.md", str(folder)) == f"{NFC}.md"
    assert PathNormalizer().normalize(f"nowhere/{NFD}.md", str(folder)) == f"nowhere/{NFC}.md"


async def test_source_identity_is_the_same_in_either_form(tmp_path: Path) -> None:
    """The identity of a source names its journal."""
    write(tmp_path, f"one/{NFC}/a.md", f"two/{NFD}/a.md")
    (tmp_path / "two").rename(tmp_path / "moved")
    seen = set()
    for form, parent in ((NFC, "one"), (NFD, "moved")):
        (tmp_path / parent).rename(tmp_path / "here")
        folder = tmp_path / "here" / form
        seen.add((await create_source_reader(folder)).identity)
        seen.add((await create_source_reader(NamedSource([], str(folder)))).identity)
        (tmp_path / "here").rename(tmp_path / parent)

    assert seen == {str(tmp_path / "here" / NFC)}


async def test_file_renamed_to_another_unicode_form_is_unchanged(
    client: AsyncClient, folder: Path
) -> None:
    write(folder, f"{NFC}.md")
    dataset = await client.datasets.create("docs", indexing_technique="economy")
    await client.load(dataset, folder)
    (folder / f"{NFC}.md").rename(folder / f"{NFD}.md")

    report = await client.load(dataset, folder)

    assert report.unchanged == report.found == 1
