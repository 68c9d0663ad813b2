from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from load_examples import LONG, count_outcomes, create_dataset, list_document_names

from dify_kb import AsyncClient
from dify_kb.ingest.sources.ignore_files import IgnoreFiles, is_ignored

NAMES = (
    "a", "b", "ab", "a.md", "b.txt", "x-1", "keep.md", "ü.md", "build", "docs", "A", "a b", " a",
    "[a]", "a\\b", "a*", "z", "a|b", "a\tb",
)  # fmt: skip
PATTERNS = (
    "*", "a", "b", "ab", "*.md", "*.txt", "/a", "/docs", "docs/", "build/", "a/b", "a/*", "/*",
    "*/", "**", "**/a", "a/**", "docs/**/b", "**/build/*.md", "?", "?b", "[ab]", "[!a]", "[a-b].md",
    "x-[0-9]", "a[!x]b", "keep.md", "ü.md", "*.m?", "a**", "**/", "docs/*/a", "/docs/*.md", "# a",
    "\\#a", " a", "a ", "", "[z-a]", "[a", "[[:alpha:]]", "[[:digit:]]*", "*[[:space:]]*",
    "[![:upper:]]", "[a[:digit:]]*", "[[:word:]]", "[[:]a]*", "[]a]", "[]-a]*", "[a-]*", "[\\]a]*",
    "[/a]", "a[/b]b", "[a/b]", "\\[a\\]", "\\a", "a\\", "a\\\\b", "a\\*", "a\\ b", "a b  ", "a\\  ",
    "b\t", "?.md", "??.md", "[ü].md", "***", "a**/b", "**b", "/**/a", "**/**", "*/**", "a//b", "//",
    "/", "a|b", "{a,b}", "docs**", "!",
)  # fmt: skip


def make_tree(random_: random.Random, root: Path) -> list[str]:
    """Create folders, files and ignore files at random, and return the paths of all files."""
    files = list[str]()

    def fill(folder: Path, depth: int) -> None:
        if random_.random() < (0.9 if depth == 0 else 0.3):
            lines = [
                random_.choice(("", "", "!")) + random_.choice(PATTERNS)
                for _ in range(random_.randint(1, 5))
            ]
            (folder / ".gitignore").write_text(random_.choice(("\n", "\r\n")).join(lines) + "\n")
        for name in random_.sample(NAMES, random_.randint(1, 5)):
            path = folder / name
            if depth < 3 and random_.random() < 0.5:
                path.mkdir()
                fill(path, depth + 1)
            else:
                path.write_text("text")
                files.append(path.relative_to(root).as_posix())

    fill(root, 0)
    return files


def list_not_ignored(root: Path) -> set[str]:
    """Walk a tree as a scan does, and return the files that are not ignored."""
    ignore = IgnoreFiles(use_gitignore=True)
    found = set[str]()
    pending = [(root, "", ignore.enter(ignore.open_root(root), root, ""))]
    while pending:
        folder, below, levels = pending.pop()
        for entry in os.scandir(folder):
            path = f"{below}{entry.name}"
            if entry.name in {".git", ".gitignore"}:
                continue
            if is_ignored(levels, path, is_folder=entry.is_dir()):
                continue
            if entry.is_dir():
                inner = ignore.enter(levels, entry.path, f"{path}/")
                pending.append((Path(entry.path), f"{path}/", inner))
            else:
                found.add(path)
    return found


def git(root: Path, *arguments: str, given: str = "") -> str:
    done = subprocess.run(  # noqa: S603 -- git
        ["git", "-C", str(root), *arguments],  # noqa: S607 -- wherever it is installed
        input=given, capture_output=True, text=True, check=False,
        env={**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull},
    )  # fmt: skip
    assert done.returncode in {0, 1}, done.stderr
    return done.stdout


@pytest.mark.parametrize("seed", range(500 if LONG else 40))
def test_ignored_files_are_those_that_git_ignores(tmp_path: Path, seed: int) -> None:
    files = make_tree(random.Random(seed), tmp_path)
    git(tmp_path, "init", "-q")

    ignored = git(tmp_path, "check-ignore", "--no-index", "-z", "--stdin", given="\0".join(files))

    expected = set(files) - set(ignored.split("\0"))
    assert list_not_ignored(tmp_path) == expected


@pytest.mark.parametrize("seed", range(10 if not LONG else 100))
def test_files_of_a_subfolder_are_ignored_by_the_repository(tmp_path: Path, seed: int) -> None:
    files = make_tree(random.Random(1000 + seed), tmp_path)
    git(tmp_path, "init", "-q")
    ignored = git(tmp_path, "check-ignore", "--no-index", "-z", "--stdin", given="\0".join(files))
    kept = set(files) - set(ignored.split("\0"))

    for folder in [path for path in tmp_path.iterdir() if path.is_dir() and path.name != ".git"]:
        prefix = f"{folder.name}/"
        if is_ignored_by_git(tmp_path, folder.name):
            continue  # a folder that is named explicitly is loaded
        inside = {path.removeprefix(prefix) for path in kept if path.startswith(prefix)}
        assert list_not_ignored(folder) == inside


def is_ignored_by_git(root: Path, path: str) -> bool:
    return bool(git(root, "check-ignore", "--no-index", path))


def write_files(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")


async def test_ignored_files_are_not_loaded(client: AsyncClient, folder: Path) -> None:
    write_files(
        folder, "a.md", "drafts/b.md", "drafts/keep.md", "c/secret.md", "c/d.md", "~$a.docx",
        "Thumbs.db", "e/old.md",
    )  # fmt: skip
    (folder / ".difyignore").write_text("drafts/*\n!drafts/keep.md\nsecret.md\n")
    (folder / ".gitignore").write_text("e/\n")
    dataset = await create_dataset(client)

    report = await client.load(dataset, folder)
    names = await list_document_names(client, dataset)

    assert count_outcomes(report) == {"added": 4}
    assert names == ["a.md", "c__d.md", "drafts__keep.md", "e__old.md"]


async def test_gitignore_applies_on_request(client: AsyncClient, folder: Path) -> None:
    write_files(folder, "a.md", "b.md", "docs/c.md", "docs/d.md")
    (folder / ".git").mkdir()
    (folder / ".gitignore").write_text("b.md\nc.md\nd.md\n")
    (folder / "docs" / ".difyignore").write_text("!d.md\n")
    dataset = await create_dataset(client)

    await client.load(dataset, folder, gitignore=True)
    of_folder = await list_document_names(client, dataset)
    other = await create_dataset(client, "other")
    await client.load(other, folder / "docs", gitignore=True)

    assert of_folder == ["a.md", "docs__d.md"]
    assert await list_document_names(client, other) == ["d.md"]


async def test_explicitly_named_file_is_loaded_although_ignored(
    client: AsyncClient, folder: Path
) -> None:
    write_files(folder, "a.md")
    (folder / ".difyignore").write_text("*\n")
    dataset = await create_dataset(client)

    report = await client.load(dataset, folder / "a.md")

    assert count_outcomes(report) == {"added": 1}


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "mkfifo"), reason="needs a loop of links")
async def test_folder_whose_ignore_file_cannot_be_read_is_not_loaded(
    client: AsyncClient, folder: Path
) -> None:
    """It may keep secrets from being loaded."""
    write_files(folder, "a.md", "secrets/b.md")
    (folder / "secrets" / ".difyignore").symlink_to(".difyignore")
    dataset = await create_dataset(client)

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"added": 1, "failed": 1}
    (failure,) = report.failures()
    assert failure.key == "secrets/.difyignore"
    assert "unreadable" in str(failure.reason)


def test_fingerprint_changes_with_the_ignore_files(folder: Path) -> None:
    (folder / ".difyignore").write_text("a\n")
    first, second = IgnoreFiles(), IgnoreFiles()
    first.enter([], folder, "")
    (folder / ".difyignore").write_text("b\n")
    second.enter([], folder, "")

    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() != IgnoreFiles().fingerprint()
