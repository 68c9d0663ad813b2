from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from tiny_plan import TINY

from dify_kb import Client
from dify_kb.bench.benchmark_plan import BenchmarkPlan
from dify_kb.bench.benchmark_progress import ProgressStep
from dify_kb.bench.temporary_dataset import PREFIX
from dify_kb.cli import benchmark_output, output
from dify_kb.emulator import Emulator

Cli = Callable[..., tuple[int, str, str]]
Program = Callable[..., subprocess.Popen[str]]

CREATE = "documents.create_by_file"
LIMIT = 25  # seconds, for a busy machine; it usually takes one

QUERIES = """\
{"query": "reset the device", "relevant": ["reset.md"]}
{"query": "when do wombats dig", "relevant": [{"text": "dig at night"}]}
"""


@pytest.fixture
def tiny_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the plan of `--quick` by a small one."""
    monkeypatch.setattr(BenchmarkPlan, "quick", lambda: TINY)


def list_dataset_names(emulator: Emulator) -> list[str]:
    with Client(emulator.url, emulator.api_key) as client:
        return [row.name for row in client.datasets.iter()]


def split_error_lines(err: str) -> tuple[str, str]:
    what, following = err.strip().splitlines()[-2:]
    assert what.startswith("error: ")
    assert following.startswith("next:  ")
    return what, following


@pytest.mark.usefixtures("tiny_plan")
def test_bench_prints_its_load_and_results(cli: Cli, emulator: Emulator, tmp_path: Path) -> None:
    html, save = tmp_path / "a.html", tmp_path / "a.json"

    code, out, err = cli("bench", "--quick", "--html", str(html), "--save", str(save))

    assert code == 0
    assert "at most 80 documents (1.57 MiB), 60 searches, 4 concurrent requests" in err
    assert "deleting the datasets" in err
    for heading in ("Uploads of 4 KiB.", "Uploads of 97.7 KiB.", "Indexing", "Retrieval"):
        assert f"\n{heading}" in out
    assert re.search(r"^concurrency +files/s +spread +MiB/s +p50 ms", out, re.MULTILINE)
    assert "Traceback" not in err
    assert "</html>" in html.read_text()
    assert json.loads(save.read_text())["type"] == "bench"
    assert list_dataset_names(emulator) == []
    assert "dataset-" not in out + err + html.read_text() + save.read_text()


@pytest.mark.usefixtures("tiny_plan")
def test_bench_json_is_one_line(cli: Cli, docs: Path) -> None:
    arguments = ("--json", "-q", "bench", "--quick", "--concurrency", "2")
    code, out, _ = cli(*arguments, "--technique", "economy", "--corpus", str(docs))

    assert code == 0
    report = json.loads(out)
    assert (report["type"], report["format"]) == ("bench", 1)
    assert report["indexed"]["documents"] == 2
    assert max(level["at_once"] for row in report["uploads"] for level in row["levels"]) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["bench", "--quick", "--yes", "--api-key", "wrong"], 4, "401"),
        (["bench", "--corpus", "{missing}"], 2, "Not a directory"),
        (["bench", "--html", "{missing}/a.html"], 2, "Cannot write"),
        (["bench", "compare", "{missing}", "{missing}"], 2, "Cannot read"),
        (["eval", "--api-key", "wrong"], 4, "401"),
        (["eval", "--dataset", "none"], 2, "Missing argument QUERIES"),
        (["eval", "{queries}"], 2, "No documents for the queries"),
        (["eval", "{queries}", "--dataset", "none"], 1, "Dataset not found: 'none'"),
        (["eval", "{queries}", "--dataset", "d", "--corpus", "/"], 2, "cannot be combined"),
        (["eval", "{queries}", "--corpus", "{missing}"], 2, "Not a directory"),
        (["eval", "{missing}.jsonl", "--dataset", "d"], 2, "Cannot read"),
    ],
)
def test_expected_errors_print_two_lines_and_an_exit_code(
    cli: Cli, tmp_path: Path, arguments: list[str], code: int, what: str
) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(QUERIES)

    exit_code, _, err = cli(
        *(argument.format(queries=file, missing=tmp_path / "missing") for argument in arguments)
    )

    assert re.search(what, split_error_lines(err)[0])
    assert exit_code == code
    assert "Traceback" not in err


@pytest.mark.usefixtures("tiny_plan")
@pytest.mark.parametrize(
    ("endpoint", "fault", "code"),
    [("datasets.create", "403", 4), (CREATE, "rate-limit x200", 5), (CREATE, "document-limit", 4)],
)
def test_refusing_server_is_reported_and_no_dataset_left(
    cli: Cli, emulator: Emulator, endpoint: str, fault: str, code: int
) -> None:
    emulator.faults.plan(endpoint, [fault])

    exit_code, _, err = cli("bench", "--quick")

    split_error_lines(err)
    assert exit_code == code
    emulator.faults.clear()
    assert list_dataset_names(emulator) == []


def test_eval_searches_an_existing_dataset(cli: Cli, docs: Path, tmp_path: Path) -> None:
    file = tmp_path / "queries.jsonl"
    file.write_text(QUERIES)
    assert cli("load", str(docs), "--dataset", "d", "--create", "--technique", "economy")[0] == 0

    code, out, err = cli("eval", str(file), "--dataset", "d", "--top-k", "2")

    assert code == 0
    assert re.search(r"^d +keyword +1\.00 +1\.00 +1\.00 +0\.00 +0 .* best *$", out, re.MULTILINE)
    assert "at most 21 searches." in err


def test_eval_compares_chunk_sizes_of_a_folder(
    cli: Cli, docs: Path, tmp_path: Path, emulator: Emulator
) -> None:
    file, html = tmp_path / "queries.jsonl", tmp_path / "e.html"
    file.write_text(QUERIES)

    code, out, _ = cli(
        *("eval", str(file), "--corpus", str(docs), "--technique", "economy", "--json"),
        *("--chunk-size", "100", "--chunk-size", "300", "--html", str(html)),
    )

    assert code == 0
    report = json.loads(out)
    assert report["type"] == "eval"
    assert {row["base"] for row in report["rows"]} == {"100 characters", "300 characters"}
    assert "</html>" in html.read_text()
    assert list_dataset_names(emulator) == []


def test_clean_deletes_leftover_datasets_only(cli: Cli, emulator: Emulator) -> None:
    with Client(emulator.url, emulator.api_key) as client:
        for name in (f"{PREFIX}1", f"{PREFIX}2", "mine"):
            client.datasets.create(name)

    assert cli("bench", "clean")[0] == 2
    assert len(list_dataset_names(emulator)) == 3
    code, _, err = cli("bench", "clean", "--yes")

    assert code == 0
    assert "2 datasets deleted" in err
    assert list_dataset_names(emulator) == ["mine"]
    assert "No datasets of killed runs found" in cli("bench", "clean", "--yes")[2]


def wait_until_uploading(emulator: Emulator) -> None:
    """Wait until a run has created its first dataset."""
    limit = time.monotonic() + LIMIT
    while sum(exchange.endpoint == "datasets.create" for exchange in emulator.history) < 1:
        assert time.monotonic() < limit
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt_deletes_datasets(
    program: Program, emulator: Emulator, number: signal.Signals, code: int
) -> None:
    running = program("bench", "--quick", "--yes")
    wait_until_uploading(emulator)
    time.sleep(0.2)

    running.send_signal(number)
    _, err = running.communicate(timeout=LIMIT)

    assert running.returncode == code
    assert "press Ctrl-C again" in err
    assert err.strip().endswith("Interrupted.")
    assert list_dataset_names(emulator) == []


def test_terminal_shows_a_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(output, "err", Console(file=shown, force_terminal=True, width=90))

    with benchmark_output.show_progress(quiet=False, plain=False) as tell:
        tell(ProgressStep(phase="upload", description="concurrency 4", completed_part=0.5))
        tell(ProgressStep(phase="asking", description="\x1b[2Jhybrid", completed_part=0.0))

    assert "━" in shown.getvalue()
    assert r"\x1b[2Jhybrid" in shown.getvalue()


def test_without_a_terminal_each_phase_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with benchmark_output.show_progress(quiet=False, plain=True) as tell:
        for part in (0.1, 0.2):
            tell(ProgressStep(phase="upload", description=f"{part}", completed_part=part))
        tell(ProgressStep(phase="cleanup", description="deleting", completed_part=1.0))
    with benchmark_output.show_progress(quiet=True, plain=True) as tell:
        tell(ProgressStep(phase="never", description="shown", completed_part=1.0))

    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2:] for line in lines] == [["upload", "0.1"], ["cleanup", "deleting"]]


def test_a_benchmark_of_thousands_of_documents_asks_first(cli: Cli, emulator: Emulator) -> None:
    code, _, err = cli("bench")

    what, following = split_error_lines(err)
    assert code == 2
    assert "Cannot ask to confirm a benchmark with up to 16,250 documents" in what
    assert "--yes" in following
    assert emulator.history == []


@pytest.mark.usefixtures("tiny_plan")
def test_failed_documents_are_not_counted_as_available(cli: Cli, emulator: Emulator) -> None:
    """They have ended early, which made a failing server look fast."""
    emulator.faults.indexing(["error no such model"] * 8)

    code, out, _ = cli("--json", "bench", "--quick")

    indexed = json.loads(out)["indexed"]
    assert code == 0
    assert (indexed["completed"], indexed["failed"], indexed["rate"]) == (0, 8, 0)
    assert (indexed["course"], indexed["available"]) == ([], None)
    ((reason, count),) = indexed["reasons"].items()
    assert (count, "no such model" in reason) == (8, True)
