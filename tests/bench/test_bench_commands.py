from __future__ import annotations

import io
import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_server import ForkedProgram
from rich.console import Console
from sample_reports import INSTANCE, QUALITY
from tiny_plan import TINY

from dify_kb import Client
from dify_kb.bench.benchmark_plan import BenchmarkPlan
from dify_kb.bench.benchmark_progress import ProgressStep
from dify_kb.bench.quality.evaluation_queries import read_queries
from dify_kb.bench.results import dump_report
from dify_kb.bench.temporary_dataset import PREFIX
from dify_kb.cli import bench, benchmark_output, output
from dify_kb.emulator import Emulator

Cli = Callable[..., tuple[int, str, str]]
Program = Callable[..., ForkedProgram]

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
    assert re.search(
        r"^d +keyword +too few to tell +1\.00 +1\.00 +1\.00 +0\.00 +0 ", out, re.MULTILINE
    )
    assert "at most 21 searches, " in err


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
    assert "Cannot ask to confirm a measurement with up to 16,250 documents" in what
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


MANUAL = """# Care of the device

## Cleaning

Wipe the blue cover with a damp cloth every week. Never pour water on the vents.

## How do I reset it?

Hold the red button for nine seconds. The lamp turns green afterwards.
"""


@pytest.fixture
def twelve_queries(tmp_path: Path) -> Path:
    """Queries of which each is about a file of its own."""
    folder = tmp_path / "manuals"
    folder.mkdir()
    lines: list[str] = []
    for number in range(12):
        word = f"topic{chr(97 + number) * 3}"
        (folder / f"{word}.md").write_text(f"All about {word} and nothing else.\n")
        lines.append(json.dumps({"query": word, "relevant": [f"{word}.md"]}))
    file = tmp_path / "twelve.jsonl"
    file.write_text("\n".join(lines))
    return file


def load_manuals(cli: Cli, file: Path, *names: str) -> None:
    folder = file.parent / "manuals"
    for name in names:
        assert cli("load", str(folder), "-d", name, "--create", "--technique", "economy")[0] == 0


def test_eval_gates_exit_with_3(cli: Cli, twelve_queries: Path, tmp_path: Path) -> None:
    load_manuals(cli, twelve_queries, "good", "bad")
    saved = tmp_path / "before.json"
    words = ("eval", str(twelve_queries), "--top-k", "1")
    assert cli("documents", "delete", "-d", "bad", "--all", "--yes")[0] == 0

    assert cli(*words, "-d", "good", "--save", str(saved), "--min", "recall@1=0.9")[0] == 0
    assert cli(*words, "-d", "good", "--against", str(saved), "--no-worse")[0] == 0
    code, _, err = cli(*words, "-d", "bad", "--min", "recall@1=0.9", "--min", "mrr=0.1")
    assert code == 3
    assert "failed  recall@1 of bad, keyword: 0.000 is below 0.9" in err
    assert "failed  mrr of bad" in err
    code, out, err = cli(*words, "-d", "bad", "--against", str(saved), "--no-worse")
    assert code == 3
    assert "failed  keyword: recall@1: 0.000 is worse than 1.000" in err
    assert re.search(r"^ +before\.json +now +unit +ratio *$", out, re.MULTILINE), out
    assert cli(*words, "-d", "bad", "--against", str(saved))[0] == 0


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--min", "map=1"], "Invalid minimum"),
        (["--no-worse"], "--no-worse requires --against"),
        (["--against", "{missing}"], "Cannot read"),
        (["--against", "{bench}"], "is a report of `bench`"),
        (["--against", "{other}", "--no-worse"], "Only 0 queries in common"),
    ],
)
def test_invalid_gates_are_refused_before_the_evaluation(
    cli: Cli, emulator: Emulator, twelve_queries: Path, words: list[str], what: str
) -> None:
    folder = twelve_queries.parent
    files = {name: folder / f"{name}.json" for name in ("missing", "bench", "other")}
    files["bench"].write_text(dump_report(INSTANCE))
    files["other"].write_text(dump_report(QUALITY))
    words = [word.format(**files) for word in words]

    code, _, err = cli("eval", str(twelve_queries), "-d", "d", *words)

    assert code == 2
    assert what in split_error_lines(err)[0]
    assert emulator.history == []


def test_eval_of_one_method_writes_trec_files(cli: Cli, twelve_queries: Path) -> None:
    load_manuals(cli, twelve_queries, "good")
    folder = twelve_queries.parent / "trec"
    words = ("eval", str(twelve_queries), "-d", "good")

    code, out, _ = cli("--json", *words, "--method", "keyword", "--trec", str(folder))

    assert code == 0
    assert [row["method"] for row in json.loads(out)["rows"]] == ["keyword"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "good-keyword.run",
        "qrels.txt",
        "queries.tsv",
    ]
    assert (folder / "qrels.txt").read_text().startswith("q1 0 topicaaa.md 1\n")
    assert (folder / "good-keyword.run").read_text().startswith("q1 Q0 topicaaa.md 1 ")
    code, _, err = cli(*words, "--method", "hybrid")
    assert code == 2
    assert "Pass one of: keyword." in split_error_lines(err)[1]


def test_eval_draft_proposes_queries_of_a_folder(
    cli: Cli, tmp_path: Path, emulator: Emulator
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "care.md").write_text(MANUAL)
    target = tmp_path / "queries.jsonl"

    code, _, err = cli("eval", "draft", str(tmp_path / "docs"), "-o", str(target))

    assert code == 0
    assert "Review them, then:\n  dify-kb eval" in err
    assert {query.draft for query in read_queries(target)} >= {"question", "heading", "sentence"}
    assert cli("eval", "draft", str(tmp_path / "docs"), "-o", str(target))[0] == 2
    assert emulator.history == []
    code, out, err = cli("eval", str(target), "--corpus", str(tmp_path / "docs"))
    assert code == 0
    assert "queries are drafts that nobody has reviewed" in " ".join(err.split())
    assert "(stub model)" in out


def test_eval_draft_proposes_queries_of_a_dataset(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "care.txt").write_text(MANUAL)
    folder = str(tmp_path / "docs")
    assert cli("load", folder, "-d", "d", "--create", "--technique", "economy")[0] == 0

    code, out, _ = cli("eval", "draft", "-d", "d", "--queries", "2")

    assert code == 0
    drafts = [json.loads(line) for line in out.splitlines()]
    assert len(drafts) == 2
    assert all(draft["draft"] for draft in drafts)


@pytest.mark.parametrize("words", [[], ["docs", "-d", "d"]])
def test_eval_draft_needs_one_kind_of_documents(cli: Cli, words: list[str]) -> None:
    code, _, err = cli("eval", "draft", *words)

    assert code == 2
    assert "either DIR or --dataset" in split_error_lines(err)[0]


def test_eval_of_a_large_folder_asks_first(
    cli: Cli, emulator: Emulator, twelve_queries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "MAX_UNCONFIRMED", 40)

    words = ("eval", str(twelve_queries), "--corpus", str(twelve_queries.parent / "manuals"))
    code, _, err = cli(*words)

    assert code == 2
    assert "a measurement with up to 48 documents" in split_error_lines(err)[0]
    assert emulator.history == []
