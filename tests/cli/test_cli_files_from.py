"""Loads with --files-from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_load_files import write_files
from cli_runner import Cli, parse_json_lines

from dify_kb.emulator import Emulator
from dify_kb.ingest import state_folder
from dify_kb.ingest.journal import read_journal

ROOT = Path(__file__).parents[2]


def told(out: str) -> dict[str, str]:
    return {
        line["key"]: line["outcome"] for line in parse_json_lines(out) if line["type"] == "item"
    }


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Replaces standard input with a file of this content."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as source, os.fdopen(write, "wb", buffering=0) as sink:
        monkeypatch.setattr(sys, "stdin", source)

        def give(content: bytes) -> None:
            sink.write(content)
            sink.close()

        yield give


def test_listed_files_have_the_keys_of_a_scan(cli: Cli, folder: Path, tmp_path: Path) -> None:
    write_files(folder, "a.md", "sub/b.md", "sub/c.md", ".hidden.md", "d.md")
    listing = tmp_path / "list"
    listing.write_text(f"a.md\n\n./sub//b.md\r\n{folder}/.hidden.md\na.md\n  \nsub/c.md")

    code, out, _ = cli(
        "--json", "load", str(folder), "--dataset", "d", "--create", "--files-from", str(listing)
    )

    assert code == 0
    assert told(out) == dict.fromkeys(("a.md", "sub/b.md", ".hidden.md", "sub/c.md"), "added")
    (journal,) = read_journal.list_journals(state_folder())
    assert read_journal.read_overview(journal).source == str(folder)
    code, out, _ = cli("load", str(folder), "--dataset", "d")
    assert "1 added, 3 unchanged" in out


def test_list_from_a_pipe_separated_by_nul(
    cli: Cli,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    piped: Callable[[bytes], None],
) -> None:
    write_files(folder, "a.md", "new\nline.md", "c.md")
    monkeypatch.chdir(folder)
    piped(b"a.md\0new\nline.md\0")

    code, out, _ = cli("--json", "load", "--dataset", "d", "--create", "--files-from", "-", "-0")

    assert code == 0
    assert told(out) == {"a.md": "added", "new\nline.md": "added"}


def test_lines_that_cannot_be_loaded_fail(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """A list with an invalid path must not exit with 0."""
    write_files(folder, "a.md", "sub/b.md")
    write_files(tmp_path, "secret.md")
    (folder / "link.md").symlink_to(tmp_path / "secret.md")
    listing = tmp_path / "list"
    listing.write_text("a.md\n../secret.md\nlink.md\nbroken.md\nsub\n/etc/passwd\n")
    (folder / "broken.md").symlink_to("nowhere.md")

    arguments = ["load", str(folder), "--dataset", "d", "--create", "--files-from", str(listing)]
    code, out, err = cli(*arguments)

    assert code == 3
    assert "6 files found" in out
    assert "1 added, 5 failed" in out
    assert "failed  ../secret.md: listed path is outside the folder" in err
    assert "failed  link.md: listed path is outside the folder" in err
    assert "failed  /etc/passwd: listed" in err
    assert "failed  broken.md: broken link" in err
    code, out, _ = cli("--json", *arguments)
    assert told(out)["../secret.md"] == "failed"
    assert parse_json_lines(out)[-1]["failed"] == 5


def test_empty_list_exits_0(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """An hourly job may have nothing to load."""
    listing = tmp_path / "list"
    listing.write_text("\n")

    code, out, _ = cli(
        "load", str(folder), "--dataset", "d", "--create", "--files-from", str(listing)
    )

    assert code == 0
    assert "0 files found" in out


def list_files(listing: Path, *names: str | Path, end: str = "\n") -> str:
    listing.write_bytes(b"".join(os.fsencode(f"{name}{end}") for name in names))
    return str(listing)


@pytest.mark.parametrize("place", ["parent", "repository", "folder", "absolute"])
def test_paths_may_be_relative_to_folders_above(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """`find site/docs` prints paths below the current folder, `git diff` below the repository."""
    repository = tmp_path / "repository"
    docs = repository / "site/docs"
    for name in ("a.md", "docs/a.md", "b.md"):
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(name)
    (repository / ".git").mkdir()
    monkeypatch.chdir({"parent": repository / "site", "folder": docs}.get(place, tmp_path))
    prefix = {"parent": "docs/", "repository": "site/docs/", "folder": "", "absolute": f"{docs}/"}
    names = [f"{prefix[place]}{name}" for name in ("a.md", "docs/a.md", "gone.md")]
    listing = list_files(tmp_path / "list", *names)

    code, out, _ = cli("--json", "load", str(docs), "-d", "d", "--create", "--files-from", listing)

    assert told(out) == {"a.md": "added", "docs/a.md": "added", "gone.md": "skipped"}
    assert code == 0


def test_missing_files_are_skipped_with_a_notice(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """A commit may delete files only."""
    write_files(folder, "a.md")
    listing = list_files(tmp_path / "list", "gone.md", "sub/gone.md")
    arguments = ["load", str(folder), "-d", "d", "--create", "--files-from", listing]

    code, out, err = cli(*arguments)
    report = parse_json_lines(cli("--json", *arguments)[1])[-1]

    assert code == 0
    assert "2 files found" in out
    assert "2 skipped: 2 listed file does not exist" in out
    assert "whose documents stay: gone.md, sub/gone.md" in err
    assert report["found"] == report["skipped"] == 2


def test_path_that_cannot_be_inspected_is_not_taken_for_a_deleted_file(
    cli: Cli, folder: Path, tmp_path: Path
) -> None:
    write_files(folder, "a.md")
    listing = list_files(tmp_path / "list", f"{'x' * 300}.md")

    code, _, err = cli("load", str(folder), "-d", "d", "--create", "--files-from", listing)

    assert code == 3
    assert "unreadable" in err


def test_keys_are_normalized_as_in_a_scan(cli: Cli, folder: Path, tmp_path: Path) -> None:
    """macOS decomposes names; another key would be another document."""
    name = unicodedata.normalize("NFD", "Übersicht.md")
    write_files(folder, name, "b.md")
    cli("load", str(folder), "-d", "d", "--create")
    listing = list_files(tmp_path / "list", name)

    _, out, _ = cli("--json", "load", str(folder), "-d", "d", "--files-from", listing)

    assert told(out) == {unicodedata.normalize("NFC", name): "unchanged"}


def test_ignored_files_are_omitted(cli: Cli, folder: Path, tmp_path: Path) -> None:
    write_files(folder, "a.md", "drafts/b.md", "sub/c.md", "sub/d.md")
    (folder / ".difyignore").write_text("drafts/\n")
    (folder / "sub/.difyignore").write_text("c.md\n")
    listing = list_files(tmp_path / "list", "a.md", "drafts/b.md", "sub/c.md", "sub/d.md")

    code, out, _ = cli(
        "--json", "load", str(folder), "-d", "d", "--create", "--files-from", listing
    )

    assert code == 0
    assert told(out) == {"a.md": "added", "sub/d.md": "added"}


def git(repository: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(  # noqa: S603 -- our own arguments
        ["git", *identity, "-C", str(repository), *arguments],  # noqa: S607
        check=True,
        capture_output=True,
    )


def printed_recipes() -> list[str]:
    """Return the commands of README and guides that load what `git diff` lists."""
    documents = [ROOT / "README.md", *sorted((ROOT / "dify_kb/guides").glob("*.md"))]
    text = "\n".join(document.read_text() for document in documents)
    return re.findall(r"^\$ (git diff .*)", text, re.MULTILINE)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository whose second commit adds, changes, renames and deletes files."""
    repository = tmp_path / "repository"
    docs = repository / "dify_kb/guides"
    docs.mkdir(parents=True)
    names = ("kept.md", "changed.md", "old name.md", "deleted.md", "größe.md")
    for name in names:
        (docs / name).write_text(f"The text of {name}, which is long enough to find its rename.\n")
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "one")
    (docs / "changed.md").write_text("Changed.")
    (docs / "größe.md").write_text("Geändert.")
    (docs / "sub").mkdir()
    (docs / "sub/日本 語.md").write_text("新しい")
    (docs / "old name.md").rename(docs / "new\nname.md")
    (docs / "deleted.md").unlink()
    (repository / "program.py").write_text("print()")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "two")
    return repository


def test_recipe_is_printed_in_the_readme_and_the_shell_guide() -> None:
    assert len(printed_recipes()) >= 2


@pytest.mark.parametrize("recipe", sorted({*printed_recipes()}))
def test_printed_recipe_loads_what_a_commit_changed(
    recipe: str, emulator: Emulator, repository: Path, programs: Path
) -> None:
    """Under the names of a load of the whole folder, and without failing on deleted files."""
    folder = next(word for word in recipe.split() if word.startswith("dify_kb/"))
    environment = {
        **os.environ,
        "DIFY_BASE_URL": emulator.url,
        "DIFY_API_KEY": emulator.api_key,
    }

    def run(command: str) -> str:
        done = subprocess.run(  # noqa: S602 -- a command of our own documents
            f"set -o pipefail; {command}",
            shell=True,
            executable="/bin/bash",
            cwd=repository,
            env={**environment, "PATH": f"{programs}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    git(repository, "checkout", "-q", "HEAD~1")
    run(f"dify-kb load {folder} --dataset Handbook --create")
    git(repository, "checkout", "-q", "-")

    out = run(f"{recipe} --json")

    outcomes = told(out)
    assert outcomes.pop("deleted.md") == "skipped"
    assert outcomes.pop("old name.md", "skipped") == "skipped"
    assert outcomes == {
        "changed.md": "updated",
        "größe.md": "updated",
        "new\nname.md": "added",
        "sub/日本 語.md": "added",
    }
    assert "5 unchanged" in run(f"dify-kb load {folder} --dataset Handbook")


def test_names_that_git_quotes_are_found(cli: Cli, repository: Path, tmp_path: Path) -> None:
    """Without -z; else the files with such names would be taken for deleted ones."""
    listing = tmp_path / "list"
    with listing.open("wb") as file:
        subprocess.run(  # noqa: S603 -- our own arguments
            ["git", "-C", str(repository), "ls-files", "dify_kb"],  # noqa: S607
            check=True,
            stdout=file,
        )
    assert b"gr\\303\\266" in listing.read_bytes()

    code, out, _ = cli(
        "load", str(repository / "dify_kb"), "-d", "d", "--create", "--files-from", str(listing)
    )

    assert code == 0
    assert "5 added" in out


def test_find_lists_the_names_of_a_load_of_the_folder(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The example of the shell guide."""
    (line,) = re.findall(
        r"^\$ find (\S+) .* \| dify-kb (load .*) --files-from -$",
        (ROOT / "dify_kb/guides/shell.md").read_text(),
        re.MULTILINE,
    )
    guides = tmp_path / line[0]
    guides.mkdir(parents=True)
    (guides / "python.md").write_text("Python.")
    listing = list_files(tmp_path / "list", f"{line[0]}/python.md")
    monkeypatch.chdir(tmp_path)

    _, out, _ = cli("--json", *line[1].split(), "--create", "--files-from", listing)

    assert told(out) == {"python.md": "added"}
