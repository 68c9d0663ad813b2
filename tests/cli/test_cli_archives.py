"""Export, import, copy, compare and verify in the shell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli_runner import Cli, create_dataset_with_documents, parse_error, parse_json_lines

from dify_kb import ArchiveProgress, Client
from dify_kb.cli.archive_output import ArchiveProgressPrinter
from dify_kb.cli.compare import is_comparison
from dify_kb.cli.operands import parse_operand
from dify_kb.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def base(emulator: Emulator) -> str:
    """Return the name of a dataset with two documents."""
    create_dataset_with_documents(emulator, "a.md", "b.md")
    return "base"


def test_an_archive_is_exported_verified_and_imported(cli: Cli, base: str, tmp_path: Path) -> None:
    archive = str(tmp_path / "base.difykb")

    code, out, err = cli("export", base, archive)
    assert code == 0, err
    assert "2 documents, 2 chunks, 1 file." in out  # both have the same content
    assert "about 8 requests" in err
    assert cli("verify", archive)[0] == 0
    code, out, err = cli("import", archive, "--dataset", "Copy")
    assert code == 0, err
    assert out.startswith("Copy: 2 documents: 2 added.")
    assert cli("diff", base, "Copy")[0] == 0
    assert cli("verify", archive, "--against", "Copy")[0] == 0


def test_differences_have_the_exit_code_1(
    cli: Cli, emulator: Emulator, base: str, tmp_path: Path
) -> None:
    cli("export", base, str(tmp_path / "a.zip"))
    ids = create_dataset_with_documents(emulator, "a.md", "c.md", name="other")

    code, out, _ = cli("diff", str(tmp_path / "a.zip"), "other")

    assert ids
    assert code == 1
    assert out.splitlines()[:2] == ["only_in_a  b.md", "only_in_b  c.md"]
    assert cli("verify", str(tmp_path / "a.zip"), "--against", "other")[0] == 1


def test_a_damaged_archive_is_refused_in_two_lines(cli: Cli, base: str, tmp_path: Path) -> None:
    archive = tmp_path / "a.difykb"
    cli("export", base, str(archive))
    (archive / "documents/000001.jsonl.gz").write_bytes(b"")

    verified, _, told = cli("verify", str(archive))
    code, _, err = cli("import", str(archive), "-d", "Copy")

    assert (verified, code) == (1, 1)
    assert "has 0 bytes" in told
    what, following = parse_error(err)
    assert "is damaged" in what
    assert following.startswith("Restore it from a copy")


def test_reports_are_json_lines(cli: Cli, base: str, tmp_path: Path) -> None:
    archive = str(tmp_path / "a.difykb")
    reports = [
        parse_json_lines(cli(*command, "--json")[1])[-1]
        for command in (
            ("export", base, archive),
            ("import", archive, "-d", "Copy"),
            ("copy", base, "Second"),
            ("diff", base, "Second"),
            ("verify", archive),
        )
    ]

    assert [report["type"] for report in reports] == ["report"] * 5
    assert reports[0]["documents"] == reports[1]["added"] == 2
    assert reports[2]["imported"]["added"] == 2
    assert reports[3]["counts"] == {}


@pytest.fixture
def profiles(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Emulator]:
    """Configure the profiles `dev` and `prod`; return the server of `prod`."""
    with Emulator(version="1.12.1") as prod:
        file = tmp_path / "config/dify-kb/config.toml"
        file.parent.mkdir(parents=True)
        lines = [
            line
            for name, server in (("dev", emulator), ("prod", prod))
            for line in (
                f"[{name}]",
                f'url = "{server.url}"',
                'key_command = "echo dataset-emulator"',
            )
        ]
        file.write_text("\n".join(lines))
        monkeypatch.delenv("DIFY_BASE_URL", raising=False)
        monkeypatch.delenv("DIFY_API_KEY", raising=False)
        yield prod


def test_profiles_select_the_servers_of_a_copy(
    cli: Cli, base: str, profiles: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DIFY_BASE_URL", raising=False)
    monkeypatch.delenv("DIFY_API_KEY", raising=False)

    code, _, err = cli("copy", f"dev:{base}", "prod:Handbook")

    assert code == 0, err
    with Client(profiles.url, profiles.api_key) as client:
        copy = client.datasets.find("Handbook")
        assert copy
        assert sorted(row.name for row in client.documents.iter(copy)) == ["a.md", "b.md"]
    assert cli("diff", f"dev:{base}", "prod:Handbook")[0] == 0
    assert cli("copy", f"dev:{base}", "prod:Handbook", "--url", "http://127.0.0.1:1")[0] == 2


def test_chosen_ids_and_dry_runs(cli: Cli, base: str, tmp_path: Path) -> None:
    archive = str(tmp_path / "a.difykb")
    cli("export", base, archive)

    dry, told, _ = cli("import", archive, "-d", "Copy", "--dry-run")
    assert (dry, told.splitlines()[0]) == (0, "Copy: 2 documents: 2 pending.")
    assert cli("import", archive, "-d", "Copy", "--ids", str(tmp_path / "ids.json"))[0] == 0
    assert len(json.loads((tmp_path / "ids.json").read_text())["documents"]) == 2
    assert cli("import", archive, "-d", base)[0] == 2
    assert cli("import", archive, "-d", base, "--on-existing", "skip")[0] == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("Handbook", "Second"), True),
        (("dev:Handbook", "prod:Handbook"), True),
        (("a.difykb", "Handbook"), True),
        (("a.zip", "b.zip"), True),
        ((".", "/"), False),
        (("s3://bucket/a", "s3://bucket/b"), False),
        (("Handbook",), False),
        ((), False),
    ],
)
def test_datasets_and_archives_are_told_from_folders(
    words: tuple[str, ...],
    expected: bool,  # noqa: FBT001 -- parametrized
) -> None:
    assert is_comparison(words) is expected


def test_a_colon_may_be_part_of_a_name() -> None:
    operand = parse_operand("a: b")

    assert (operand.profile, operand.dataset) == (None, "a: b")


def test_progress_is_printed_at_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    show = ArchiveProgressPrinter(clock=lambda: now[0])
    event = ArchiveProgress(stage="read", done=0, total=2000, requests=21, planned_requests=6021)

    show(event)
    show(event)
    now[0] = 6.0
    show(ArchiveProgress(stage="read", done=500, total=2000, requests=1521, planned_requests=6021))

    assert capsys.readouterr().err.splitlines() == [
        "Reading 2,000 documents, about 6,021 requests in all.",
        "Reading documents: 500/2,000, requests: 1,521/6,021",
    ]
