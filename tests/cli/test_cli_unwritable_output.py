"""Standard output that is full, closed, cut or of another encoding never ends in a traceback."""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cli_load_files import count_creates, write_files
from cli_runner import Cli, create_dataset_with_documents

from dify_kb import Client, Policy, ProcessRule
from dify_kb.cli import run
from dify_kb.cli.app import COMMANDS, _load_command
from dify_kb.emulator import Emulator

BASE = "Handbuch 📚"
DOCUMENT = "Prüfung 日本 📚.txt"
ENDLESS = {"emulator", "external serve", "monitor", "bench", "eval"}
"""Commands that serve until Ctrl-C, or that measure for minutes."""


class BrokenStream(io.StringIO):
    """A stream whose writes fail, as on a full disk or to a closed pipe."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, _: str) -> int:
        raise OSError(self.number, "No space left on device")


def make_stdout(kind: str) -> io.TextIOBase | None:
    match kind:
        case "closed":
            return None
        case "full":
            return BrokenStream(errno.ENOSPC)
        case "pipe":
            return BrokenStream(errno.EPIPE)
        case "terminal":
            return BrokenStream(errno.EIO)
        case _:
            return io.TextIOWrapper(io.BytesIO(), encoding=kind, errors="strict")


def list_commands() -> Iterator[str]:
    for name in COMMANDS:
        command = _load_command(name)
        for subcommand in getattr(command, "commands", {}):
            yield f"{name} {subcommand}"
        if not hasattr(command, "commands") or name == "bench":
            yield name


def make_commands(emulator: Emulator, folder: Path) -> Sequence[Sequence[str]]:
    """Create a dataset with a document, and return commands that use each other's results."""
    write_files(folder, "a 📚.md", "b.md")
    (folder / "report.json").write_text("{}")
    with Client(emulator.url, emulator.api_key, policy=Policy().scaled(0.01)) as client:
        made = client.datasets.create(BASE, indexing_technique="economy")
        created = client.documents.create_by_text(made, DOCUMENT, "Wombats dig 📚.")
        rule = ProcessRule.parent_child()
        parents = client.datasets.create("parents", indexing_technique="economy")
        with_children = client.documents.create_by_text(
            parents, "p.txt", "Parents 📚.", process_rule=rule, doc_form="hierarchical_model"
        )
        client.documents.wait(made, [created], timeout=30)
        client.documents.wait(parents, [with_children], timeout=30)
        (segment,) = client.segments.iter(made, created.document.id)
        (parent,) = client.segments.iter(parents, with_children.document.id)
        child = client.child_chunks.create(
            parents, with_children.document.id, parent.id, "child 📚"
        )
    of, doc = ["-d", BASE], ["-d", BASE, "--document", DOCUMENT]
    below = ["-d", "parents", "--document", "p.txt", "--segment", parent.id]
    archive = str(folder.parent / "archive.zip")
    key = ["--api-key", "k", "--knowledge-id", "x"]
    return [
        ["doctor"],
        ["load", str(folder), *of],
        ["search", *of, "Wombats"],
        ["stats"],
        ["guide"],
        ["models", "list"],
        ["models", "show", "hashed-n-grams"],
        ["datasets", "list"],
        ["datasets", "show", BASE],
        ["datasets", "create", "new 📚", "--technique", "economy"],
        ["datasets", "update", "new 📚", "--description", "📚"],
        ["documents", "list", *of],
        ["documents", "show", *of, DOCUMENT],
        ["documents", "create", *of, "--name", "n📚.txt", "--text", "x", "--wait"],
        ["documents", "update", *of, "n📚.txt", "--text", "y", "--wait"],
        ["documents", "rename", *of, "n📚.txt", "m📚.txt", "--wait"],
        ["documents", "disable", *of, DOCUMENT],
        ["documents", "enable", *of, DOCUMENT],
        ["documents", "archive", *of, DOCUMENT],
        ["documents", "unarchive", *of, DOCUMENT],
        ["segments", "list", *doc],
        ["segments", "show", *doc, segment.id],
        ["segments", "create", *doc, "more 📚"],
        ["segments", "update", *doc, segment.id, "--content", "other 📚"],
        ["segments", "disable", *doc, segment.id],
        ["segments", "enable", *doc, segment.id],
        ["segments", "delete", *doc, segment.id],
        ["child-chunks", "list", *below],
        ["child-chunks", "show", *below, child.id],
        ["child-chunks", "create", *below, "second 📚"],
        ["child-chunks", "update", *below, child.id, "new 📚"],
        ["child-chunks", "delete", *below, child.id],
        ["metadata", "create", *of, "jahr📚"],
        ["metadata", "list", *of],
        ["metadata", "show", *of, "jahr📚"],
        ["metadata", "assign", *of, "--all", "--metadata", "jahr📚=📚"],
        ["metadata", "built-in", *of, "enable"],
        ["metadata", "update", *of, "jahr📚", "year📚"],
        ["metadata", "delete", *of, "year📚"],
        ["tags", "create", "tag 📚"],
        ["tags", "list"],
        ["tags", "show", "tag 📚"],
        ["tags", "bind", *of, "tag 📚"],
        ["tags", "unbind", *of, "tag 📚"],
        ["tags", "update", "tag 📚", "new 📚"],
        ["tags", "delete", "new 📚"],
        ["journal", "show"],
        ["journal", "export", "docs"],
        ["journal", "prune", "--older-than", "1d"],
        ["external", "check", emulator.url, *key],
        ["bench", "compare", str(folder / "report.json"), str(folder / "report.json")],
        ["bench", "clean"],
        ["bench", "corpus", str(folder / "corpus")],
        ["eval", "draft", str(folder), "--output", str(folder / "queries.jsonl")],
        ["sync", str(folder / "b.md"), "-d", "synced 📚", "--create", "--technique", "economy"],
        ["diff", str(folder / "b.md"), "-d", "synced 📚"],
        ["export", BASE, archive],
        ["verify", archive],
        ["import", archive, "-d", "imported 📚"],
        ["copy", BASE, "copy 📚"],
        ["segments", "export", BASE, str(folder / "chunks.csv")],
        ["segments", "import", str(folder / "chunks.csv"), *of],
        ["documents", "delete", *of, "--all", "--yes"],
        ["datasets", "delete", "new 📚", "parents", "--yes"],
    ]


@pytest.mark.parametrize(
    ("kind", "json_option"),
    [
        *((kind, ()) for kind in ("full", "pipe", "terminal", "closed", "ascii", "latin-1")),
        *((kind, ("--json",)) for kind in ("full", "pipe")),
    ],
)
@pytest.mark.usefixtures("cli")
def test_every_command_survives_output_that_cannot_be_written(
    emulator: Emulator,
    folder: Path,
    kind: str,
    json_option: Sequence[str],
    quick: Policy,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    commands = make_commands(emulator, folder)
    names = {" ".join(command[:2]) for command in commands} | {command[0] for command in commands}
    assert not [name for name in list_commands() if name not in names | ENDLESS]

    for command in commands:
        monkeypatch.setattr(sys, "stdout", make_stdout(kind))
        code = run([*json_option, *command], policy=quick)
        if command[0] == "load" and not json_option:
            assert count_creates(emulator) == 2, "without results to print, it does not stop"
        err = capsys.readouterr().err

        assert "Traceback" not in err, command
        if command[:2] in (["bench", "compare"], ["external", "check"]):
            continue  # a report and a server that are not valid
        assert err.count("No space left") == (code == 1), (command, err)
        allowed = {"full": {0, 1}, "pipe": {0, 141}, "terminal": {0, 141}}
        assert code in allowed.get(kind, {0}), (command, err)
        if {"list", "show", "export"} & {*command[1:2]}:
            assert code == max(allowed.get(kind, {0})), command

    assert list_document_names_of(emulator, BASE) == set(), "deleted, although nobody reads of it"


def list_document_names_of(emulator: Emulator, name: str) -> set[str]:
    with Client(emulator.url, emulator.api_key) as client:
        found = client.datasets.find(name)
        assert found is not None
        return {row.name for row in client.documents.iter(found)}


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_finished_load_exits_0_although_the_terminal_is_gone(
    cli: Cli,
    docs: Path,
    quick: Policy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: Sequence[str],
) -> None:
    cli("datasets", "create", "d", "--technique", "economy")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, BrokenStream(errno.EIO))

    code = run([*options, "load", str(docs), "--dataset", "d", "--exclude", "*.exe"], policy=quick)

    assert code in ({141, 0} if options else {0})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("redirection", "code"), [(">/dev/full", 1), (">&-", 0), ("| true", 141), ("2>/dev/full", 0)]
)
def test_a_process_ends_with_one_line_at_most(
    emulator: Emulator, redirection: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFY_BASE_URL", emulator.url)
    monkeypatch.setenv("DIFY_API_KEY", emulator.api_key)
    command = f"{sys.executable} -m dify_kb models list {redirection}; exit ${{PIPESTATUS[0]}}"

    done = subprocess.run(  # noqa: S603 -- our own program
        ["/bin/bash", "-c", command], capture_output=True, text=True, check=False
    )

    assert done.returncode == code
    expected = "error: Cannot write to standard output: No space left on device.\n"
    assert done.stderr == (expected if code == 1 else "")


def test_names_are_escaped_where_the_encoding_lacks_them(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_dataset_with_documents(emulator, "📚.txt", "é.txt")
    monkeypatch.setenv("DIFY_BASE_URL", emulator.url)
    monkeypatch.setenv("DIFY_API_KEY", emulator.api_key)
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")

    done = subprocess.run(
        [sys.executable, "-m", "dify_kb", "documents", "list", "-d", "base"],
        capture_output=True,
        check=True,
    )

    rows = done.stdout.decode("latin-1").splitlines()
    assert {row.split()[0] for row in rows} == {"name", "\\U0001f4da.txt", "é.txt"}
    assert len({row.rindex("  ") for row in rows}) == 1, "columns are aligned"
