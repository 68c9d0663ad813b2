from __future__ import annotations

import re
from pathlib import Path

import pytest
from cli_load_files import count_creates, write_files
from cli_runner import Cli, parse_error

from dify_kb import ItemResult, LoadReport, Outcome, StopReason
from dify_kb.cli.load_page import LoadPage, load_verdict, render_load_page
from dify_kb.emulator import Emulator
from dify_kb.ingest.load_history import INDEXING, UPLOADING, LoadHistory
from dify_kb.sync.sync_report import SyncAction, SyncChange, SyncReport


def read_verdict(page: str) -> str:
    found = re.search(r'<p class="verdict">(.*?)</p>', page)
    assert found is not None
    return found[1].replace("&nbsp;", " ")


def page_of(**fields: object) -> LoadPage:
    page = LoadPage(title="Dify load", datasets=["Handbook"], facts=[], history=LoadHistory())
    for name, value in fields.items():
        object.__setattr__(page, name, value)
    return page


def test_page_of_a_load_says_what_was_loaded(cli: Cli, tmp_path: Path) -> None:
    folder, html = tmp_path / "docs", tmp_path / "load.html"
    write_files(folder, "a.md", "b.md", "c.md")

    code, _, err = cli("load", str(folder), "--dataset", "d", "--create", "--html", str(html))

    page = html.read_text()
    assert code == 0
    assert f"Wrote {html}." in " ".join(err.split())
    assert read_verdict(page).startswith("All 3 files are in d: 3 added. It took ")
    assert page.count("<svg viewBox") >= 2
    for heading in ("3 files found", "Speed", "What the time was spent on"):
        assert f"<h2>{heading}</h2>" in page
    assert str(folder) in page
    assert "dataset-" not in page


def test_page_lists_failed_files_with_their_reasons(
    cli: Cli, tmp_path: Path, emulator: Emulator
) -> None:
    folder, html = tmp_path / "docs", tmp_path / "load.html"
    write_files(folder, "a.md", "b&<i>.md", "bad.bin")
    emulator.faults.indexing(["error no such model"], names="b*", always=True)

    code, _, _ = cli("load", str(folder), "--dataset", "d", "--create", "--html", str(html))

    page = html.read_text()
    assert code == 3
    assert read_verdict(page).startswith("1 of 3 files are in d; 1 skipped, 1 failed.")
    assert re.search(r"<td[^>]*>b&amp;&lt;i&gt;.md</td><td>failed</td>", page)
    assert page.count("no such model") >= 2
    assert "<h2>Skipped files</h2>" in page


def test_page_of_a_dry_run(cli: Cli, tmp_path: Path, emulator: Emulator) -> None:
    html = tmp_path / "load.html"
    write_files(tmp_path / "docs", "a.md")
    words = ("load", str(tmp_path / "docs"), "-d", "d", "--create", "--dry-run")

    assert cli(*words, "--html", str(html))[0] == 0

    assert read_verdict(html.read_text()) == "Dry run: 1 of 1 file would be sent to d."
    assert count_creates(emulator) == 0


def test_unwritable_page_is_refused_before_the_load(
    cli: Cli, tmp_path: Path, emulator: Emulator
) -> None:
    write_files(tmp_path / "docs", "a.md")

    code, _, err = cli(
        "load", str(tmp_path / "docs"), "-d", "d", "--create", "--html", "/nowhere/a.html"
    )

    assert code == 2
    assert "Cannot write to /nowhere/a.html" in parse_error(err)[0]
    assert emulator.history == []


def test_verdict_of_an_interrupted_and_of_a_stopped_load() -> None:
    report = LoadReport(found=10, added=4, pending=6, seconds=600.0)
    stopped = LoadReport(
        found=10, failed=10, stopped=StopReason.OUTAGE, stop_message="The server is down."
    )

    assert load_verdict(report, page_of(interrupted=True)) == (
        "4 of 10 files are in Handbook; 6 pending. The run was interrupted; the same command"
        " resumes it. It took 10 minutes."
    )
    assert load_verdict(stopped, page_of()) == (
        "0 of 10 files are in Handbook; 10 failed. The run stopped: The server is down."
    )


def test_verdict_names_what_held_a_load_back(monkeypatch: pytest.MonkeyPatch) -> None:
    report = LoadReport(found=12, added=10, skipped=2, seconds=100.0)
    spent = {UPLOADING: 60.0, "waiting: the server is overloaded (503)": 30.0, INDEXING: 10.0}
    monkeypatch.setattr(LoadHistory, "spent", spent)

    assert load_verdict(report, page_of()) == (
        "10 of 12 files are in Handbook; 2 skipped. It took 1.7 minutes; 30 % of the time: the"
        " server is overloaded (503)."
    )
    assert load_verdict(LoadReport(), page_of()) == "No files found."


def test_page_of_a_sync_has_its_counts_and_changes() -> None:
    report = SyncReport(
        found=3,
        added=1,
        unchanged=1,
        renamed=1,
        deleted=2,
        kept_back=1,
        held="more than 50 % of the documents would be deleted",
        kept_back_reasons={"archived": 1},
        changes=[
            SyncChange(action=SyncAction.RENAME, key="b.md", old_key="a.md"),
            SyncChange(action=SyncAction.KEEP, key="c.md", reason="archived"),
        ],
    )

    page = render_load_page(report, page_of(title="Dify sync"))

    assert read_verdict(page) == (
        "3 of 3 files are in Handbook. Deletes were held back: more than 50 % of the documents"
        " would be deleted."
    )
    assert "<td>renamed</td>" in page
    assert "<td>a.md → b.md</td>" in page
    assert "<h2>Documents that were kept back</h2>" in page


def test_long_lists_are_bounded() -> None:
    failures = [
        ItemResult(key=f"{number}.md", outcome=Outcome.FAILED, reason="too large")
        for number in range(3)
    ]

    page = render_load_page(LoadReport(found=2000, failed=2000), page_of(failures=failures))

    assert "The first 3 of 2,000." in page
    assert "failed: too large" in page


def test_sync_writes_a_page(cli: Cli, tmp_path: Path) -> None:
    folder, html = tmp_path / "docs", tmp_path / "sync.html"
    write_files(folder, "a.md", "b.md")
    words = ("sync", str(folder), "--dataset", "d", "--html", str(html))
    assert cli(*words, "--create")[0] == 0
    (folder / "b.md").unlink()

    assert cli(*words)[0] == 0

    page = html.read_text()
    assert "<title>Dify sync</title>" in page
    assert read_verdict(page).startswith("1 file is in d: 1 unchanged.")
    assert re.search(r"<td>deleted</td><td[^>]*>1</td>", page)
    assert "<td>b.md</td>" in page
