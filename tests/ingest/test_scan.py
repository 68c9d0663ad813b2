from __future__ import annotations

import os
from pathlib import Path

import pytest

from dify_kb import ConfigError, Outcome
from dify_kb.ingest import ItemResult, ScanRules, resolve_roots
from dify_kb.ingest.sources.found_file import FoundFile
from dify_kb.ingest.sources.scan import scan


def write(root: Path, *names: str, content: str = "text") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def keys(source: Path | list[Path], rules: ScanRules | None = None) -> list[str]:
    items = scan(resolve_roots(source), rules or ScanRules())
    return [item.key for item in items if isinstance(item, FoundFile)]


def refusals(source: Path | list[Path], rules: ScanRules | None = None) -> dict[str, ItemResult]:
    items = scan(resolve_roots(source), rules or ScanRules())
    return {item.key: item for item in items if isinstance(item, ItemResult)}


def test_keys_are_paths_below_the_folder_in_order(folder: Path) -> None:
    write(folder, "b.md", "a/z.md", "a/c/d.txt")

    assert keys(folder) == ["b.md", "a/z.md", "a/c/d.txt"]


def test_key_of_a_single_file_is_its_name(folder: Path) -> None:
    write(folder, "a/b.md")

    assert keys(folder / "a" / "b.md") == ["b.md"]


def test_keys_of_several_folders_start_with_their_names(tmp_path: Path) -> None:
    write(tmp_path, "one/docs/a.md", "two/notes/a.md")

    assert keys([tmp_path / "one/docs", tmp_path / "two/notes"]) == ["docs/a.md", "notes/a.md"]


def test_keys_of_equally_named_folders_include_their_parents(tmp_path: Path) -> None:
    """Otherwise the files of the second would overwrite those of the first."""
    write(tmp_path, "one/docs/a.md", "two/docs/a.md")

    assert keys([tmp_path / "one/docs", tmp_path / "two/docs"]) == [
        "one/docs/a.md",
        "two/docs/a.md",
    ]


def test_single_files_have_distinct_keys(tmp_path: Path) -> None:
    write(tmp_path, "a/x/readme.md", "b/x/readme.md")

    assert keys(sorted(tmp_path.rglob("*.md"))) == ["a/x/readme.md", "b/x/readme.md"]


def test_nested_roots_are_scanned_once(folder: Path) -> None:
    write(folder, "a/b.md", "c.md")

    assert keys([folder, folder / "a", folder / "c.md", folder]) == ["c.md", "a/b.md"]


def test_repeated_key_fails(tmp_path: Path) -> None:
    write(tmp_path, "one/docs/a.md", "docs/a.md")

    found = refusals([tmp_path / "one/docs", tmp_path / "docs/a.md", tmp_path / "one/docs/a.md"])

    assert found == {}
    write(tmp_path, "p/docs/x.md", "q/docs/y.md", "q/z.md")
    both = [tmp_path / "p/docs", tmp_path / "q/docs/y.md", tmp_path / "q/z.md"]
    assert keys(both) == ["docs/x.md", "docs/y.md", "z.md"]
    write(tmp_path, "q/docs/x.md")
    clash = [tmp_path / "p/docs", tmp_path / "q/docs/x.md", tmp_path / "q/z.md"]
    assert refusals(clash)["docs/x.md"].outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("name", "outcome", "reason"),
    [
        ("a.exe", Outcome.SKIPPED, "unsupported type .exe"),
        ("Makefile", Outcome.SKIPPED, "unsupported type: no extension"),
        ("empty.txt", Outcome.SKIPPED, "empty"),
        ("big.txt", Outcome.FAILED, "too large: 21 bytes, more than 20 bytes"),
    ],
)
def test_unloadable_files_are_reported_with_a_reason(
    folder: Path, name: str, outcome: Outcome, reason: str
) -> None:
    write(folder, name, content={"empty.txt": "", "big.txt": "x" * 21}.get(name, "text"))

    result = refusals(folder, ScanRules(max_file_size=20))[name]

    assert (result.outcome, result.reason) == (outcome, reason)


def test_unsupported_files_are_sent_as_text_on_request(folder: Path) -> None:
    write(folder, "a.rst", "b.py", "c.md")

    found = list(scan(resolve_roots(folder), ScanRules(as_text=["*.rst"])))

    assert [(item.key, item.as_text) for item in found if isinstance(item, FoundFile)] == [
        ("a.rst", True),
        ("c.md", False),
    ]


def test_hidden_files_are_excluded_unless_named(folder: Path) -> None:
    write(folder, ".git/a.md", ".hidden.md", "b.md")

    assert keys(folder) == ["b.md"]
    assert keys(folder, ScanRules(include=["*", ".hidden.md"])) == ["b.md", ".hidden.md"][::-1]
    assert keys(folder, ScanRules(include=[".git/**"])) == [".git/a.md"]


def test_include_and_exclude_filter_files(folder: Path) -> None:
    write(folder, "a.md", "drafts/b.md", "c.txt")

    assert keys(folder, ScanRules(include=["*.md"], exclude=["drafts"])) == ["a.md"]
    assert refusals(folder, ScanRules(include=["*.md"], exclude=["drafts"])) == {}


def test_links_within_the_folder_are_followed(tmp_path: Path, folder: Path) -> None:
    write(tmp_path, "outside.md")
    write(folder, "real.md", "sub/x.md")
    (folder / "inside.md").symlink_to("real.md")
    (folder / "out.md").symlink_to(tmp_path / "outside.md")
    (folder / "broken.md").symlink_to("nowhere.md")
    (folder / "loop.md").symlink_to("loop.md")
    (folder / "folder").symlink_to("sub")

    assert keys(folder) == ["inside.md", "real.md", "sub/x.md"]
    refused = refusals(folder)
    assert set(refused) == {"out.md", "broken.md", "loop.md", "folder"}
    assert {result.outcome for result in refused.values()} == {Outcome.SKIPPED}
    assert refused["out.md"].reason == "link to a target outside the folder"


def test_pipe_is_skipped_and_never_opened(folder: Path) -> None:
    """Opening it would wait for a writer forever."""
    os.mkfifo(folder / "pipe.txt")

    assert refusals(folder)["pipe.txt"].reason == "not a regular file"


def test_non_utf8_names_are_found(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.txt")).write_text("text")

    assert keys(folder) == ["bad\udcff.txt"]


def test_missing_path_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or directory"):
        resolve_roots(tmp_path / "nowhere")


def test_empty_list_has_no_roots() -> None:
    assert resolve_roots([]) == []
