"""`monitor` follows queues over time, through outages, as table, lines, JSON and metrics."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from io import StringIO
from pathlib import Path

import anyio
import pytest
from attrs import define, field
from cli_runner import Cli, called_endpoints, create_dataset_with_documents, parse_json_lines
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console, Group

from dify_kb import AsyncClient
from dify_kb.cli import monitor, output
from dify_kb.cli.benchmark_output import MetricsFile
from dify_kb.cli.stats import DatasetQueue, QueueSample
from dify_kb.emulator import Emulator, ManualClock, Settings

LIMIT = 25  # seconds, for a busy machine


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def slow(clock: ManualClock) -> Iterator[Emulator]:
    """Start a server that indexes one document a second, by the clock."""
    with Emulator(settings=Settings(workers=1, parsing=1.0), clock=clock) as emulator:
        yield emulator


@pytest.fixture
async def slow_client(slow: Emulator) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(slow.url, slow.api_key) as client:
        yield client


@define
class Watched:
    """A monitor of one dataset whose sleep advances the clock."""

    client: AsyncClient
    emulator: Emulator
    clock: ManualClock
    queue: DatasetQueue
    watch: monitor.QueueMonitor = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.watch = monitor.QueueMonitor(
            client=self.client,
            queues=[self.queue],
            interval=10.0,
            now=self.clock.now,
            sleep=self.advance,
        )

    async def advance(self, seconds: float) -> None:
        """Advance the clock, and wait until the documents of that time are indexed."""
        before = self.count_ended()
        expected = min(before + int(seconds), len(self.emulator.documents(self.queue.id)))
        self.clock.advance(seconds)
        deadline = time.monotonic() + LIMIT
        while self.count_ended() < expected:
            assert time.monotonic() < deadline
            await anyio.sleep(0.01)

    def count_ended(self) -> int:
        documents = self.emulator.documents(self.queue.id)
        return sum(document.status in {"completed", "error"} for document in documents)

    async def create(self, count: int) -> None:
        for number in range(count):
            name = f"{number}-{self.clock.now()}.txt"
            await self.client.documents.create_by_text(
                self.queue.id, name, "Wombats dig.", indexing_technique="economy"
            )


@pytest.fixture
async def watched(slow: Emulator, slow_client: AsyncClient, clock: ManualClock) -> Watched:
    dataset = await slow_client.datasets.create("Handbook", indexing_technique="economy")
    queue = DatasetQueue(id=dataset.id, name=dataset.name)
    return Watched(slow_client, slow, clock, queue)


async def test_queue_speed_and_oldest_document_are_followed(watched: Watched) -> None:
    await watched.create(35)
    seen: list[tuple[int, float | None, float | None]] = []

    def report() -> None:
        sample = watched.queue.latest
        assert sample is not None
        age = sample.oldest_waiting and sample.time - sample.oldest_waiting
        seen.append((sample.documents - sample.ended, watched.queue.per_minute, age))

    await watched.watch.run(report, 5)

    assert [open_ for open_, _, _ in seen] == [35, 25, 15, 5, 0]
    assert [rate for _, rate, _ in seen] == [None, 60.0, 60.0, 60.0, 52.5]
    assert [age is None or round(age) for _, _, age in seen] == [0, 10, 20, 30, True]


async def test_errors_are_counted_by_kind_and_read_only_when_their_number_changes(
    watched: Watched,
) -> None:
    watched.emulator.faults.indexing(["error file 17 is broken", "error file 18 is broken"])
    await watched.create(3)
    await watched.advance(3)
    await watched.watch.sample()
    first = len(called_endpoints(watched.emulator))
    await watched.watch.sample()

    sample = watched.queue.latest
    assert sample is not None
    assert (sample.failed, dict(sample.errors)) == (2, {"file N is broken": 2})
    assert called_endpoints(watched.emulator)[first:] == ["documents.list"] * 4


@pytest.mark.parametrize("fault", ["503", "reset", "429 retry-after=300"])
async def test_an_outage_is_told_and_survived(watched: Watched, fault: str) -> None:
    lines: list[str] = []
    await watched.watch.sample()
    watched.emulator.faults.plan("documents.list", [fault] * 2)

    def report() -> None:
        lines.append(monitor.describe_silence(watched.watch) if watched.watch.silence else "fine")

    await watched.advance(10)
    await watched.watch.run(report, 3)

    assert lines[0].startswith("no answer for 10 s: ")
    assert lines[1].startswith("no answer for 20 s: ")
    assert lines[2] == "fine"
    assert watched.emulator.faults.left() == {}


async def test_one_deleted_dataset_does_not_hide_the_others(watched: Watched) -> None:
    gone = DatasetQueue(id="00000000-0000-4000-8000-000000000000", name="gone")
    watched.watch.queues = [gone, watched.queue]

    await watched.watch.sample()

    assert "404" in monitor.describe_queue(gone)
    assert "0 documents" in monitor.describe_queue(watched.queue)
    assert watched.watch.silence == 0


async def test_servers_that_ignore_the_status_filter_are_counted_by_rows() -> None:
    with Emulator(version="1.8.1", settings=Settings(parsing=30.0)) as emulator:
        async with AsyncClient(emulator.url, emulator.api_key) as client:
            dataset = await client.datasets.create("old", indexing_technique="economy")
            for name in ("a.txt", "b.txt"):
                await client.documents.create_by_text(dataset, name, "Wombats dig.")
            queue = DatasetQueue(id=dataset.id, name=dataset.name)
            watch = monitor.QueueMonitor(client=client, queues=[queue], interval=10.0)
            await watch.sample()

    assert queue.latest is not None
    assert (queue.latest.documents, queue.latest.waiting + queue.latest.indexing) == (2, 2)


def sample_at(moment: float, ended: int) -> QueueSample:
    return QueueSample(
        time=moment,
        documents=ended,
        waiting=0,
        indexing=0,
        failed=0,
        oldest_waiting=None,
        errors={},
    )


def test_speed_is_that_of_the_last_five_minutes() -> None:
    queue = DatasetQueue(id="x", name="x")
    for minute in range(20):
        queue.add(sample_at(60.0 * minute, 1000 * min(minute, 10)))

    assert queue.per_minute == 0
    queue.add(sample_at(60.0 * 20, 10_500))
    assert queue.per_minute == 100
    queue.add(sample_at(60.0 * 21, 9_000))
    assert queue.per_minute == 0, "documents were deleted or queued again"


# --- the command


def test_lines_json_and_metrics_of_a_command(cli: Cli, emulator: Emulator, tmp_path: Path) -> None:
    create_dataset_with_documents(emulator, "a.txt", "b.txt")
    file = tmp_path / "dify.prom"
    options = ("--dataset", "base", "--samples", "2", "--interval", "1s")

    code, out, _ = cli("monitor", *options, "--metrics-file", str(file))

    assert code == 0
    first, second = out.splitlines()
    counts = "base: 2 documents, 0 waiting, 0 indexing, 0 failed"
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {counts}", first)
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  {counts}, 0\.0/min", second)
    assert {family.name for family in text_string_to_metric_families(file.read_text())} >= {
        "dify_kb_up", "dify_kb_documents"
    }  # fmt: skip
    assert [path.name for path in tmp_path.glob("*.prom*")] == [file.name]

    code, out, _ = cli("--json", "monitor", "--samples", "1")
    (row,) = parse_json_lines(out)
    assert code == 0
    assert row | {"id": "", "time": 0} == {
        "type": "sample", "id": "", "name": "base", "time": 0, "documents": 2, "waiting": 0,
        "indexing": 0, "failed": 0, "oldest_waiting": None, "errors": {}, "per_minute": None,
        "no_answer": 0.0, "error": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        (["--dataset", "none"], 1, "Dataset not found: 'none'"),
        (["--interval", "0.1"], 2, "Invalid --interval: '0.1'"),
        (["--interval", "often"], 2, "Invalid duration 'often' for --interval"),
        (["--metrics-file", "/nowhere/x.prom"], 2, "Cannot write to /nowhere/x.prom"),
        (["--api-key", "wrong"], 4, "401"),
    ],
)
def test_expected_errors_end_the_command(
    cli: Cli, arguments: list[str], code: int, what: str
) -> None:
    exit_code, _, err = cli("monitor", "--samples", "1", *arguments)

    assert exit_code == code
    assert what in err


def test_a_server_that_does_not_respond_at_the_end_is_an_error(
    cli: Cli, emulator: Emulator
) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    emulator.faults.plan("documents.list", ["500"])

    code, out, _ = cli("monitor", "--dataset", "base", "--samples", "1")

    assert code == 1
    assert "no answer for 0 s: documents.list: the server returned 500" in out


# --- the table


@pytest.mark.parametrize("width", [100, 40, 20])
async def test_table_fits_the_terminal(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=width, soft_wrap=True)
    monkeypatch.setattr(output, "out", console)
    watched.emulator.faults.indexing(["error no space left on the device"])
    await watched.create(12)
    await watched.advance(1)
    await watched.watch.sample()
    watched.emulator.faults.plan("documents.list", ["503"])
    await watched.advance(1)
    await watched.watch.sample()
    shown = StringIO()

    Console(file=shown, width=width).print(Group(*monitor.draw_table(watched.watch)))

    lines = shown.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert lines[-1].startswith("no answer for 1 s")
    assert any(line.startswith("Handbook: 1 x no") for line in lines)


def test_the_table_is_redrawn_while_a_request_hangs(
    watched_silence: monitor.QueueMonitor, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refresh thread computes the silence, as the event loop waits for a response."""
    shown = StringIO()
    console = Console(file=shown, force_terminal=True, width=80, soft_wrap=True)
    monkeypatch.setattr(output, "out", console)

    with monitor.open_display(watched_silence, json=False):
        clock.advance(17)
        deadline = time.monotonic() + LIMIT
        while "no answer for 17 s" not in shown.getvalue():
            assert time.monotonic() < deadline
            threading.Event().wait(0.05)


@pytest.fixture
def watched_silence(emulator: Emulator, clock: ManualClock) -> monitor.QueueMonitor:
    client = AsyncClient(emulator.url, emulator.api_key)
    return monitor.QueueMonitor(client=client, queues=[], interval=10.0, now=clock.now)


# --- metrics


async def test_metrics_are_valid_and_complete(watched: Watched) -> None:
    watched.queue.name = 'Hand"book\\ 手册\nnew'
    watched.emulator.faults.indexing(['error "x\\y" is\nbroken'])
    await watched.create(15)
    await watched.watch.sample()
    await watched.advance(10)
    await watched.watch.sample()

    text = monitor.format_metrics(watched.watch)

    assert text.endswith("\n")
    values = {
        (sample.name, sample.labels.get("status") or sample.labels.get("kind")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    names = {
        sample.labels["dataset"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "dataset" in sample.labels
    }
    assert names == {watched.queue.name}
    by_status = {status: count for (name, status), count in values.items() if "ents" in name}
    assert by_status.pop("failed") == 1
    assert by_status["completed"] == 9
    assert by_status["waiting"] + by_status["indexing"] == 5
    assert values["dify_kb_up", None] == 1
    assert values["dify_kb_ended_documents_per_minute", None] == 60
    assert values["dify_kb_oldest_waiting_seconds", None] == pytest.approx(10, abs=1)
    assert values["dify_kb_last_answer_timestamp_seconds", None] == watched.clock.now()
    (kind,) = (kind for name, kind in values if name == "dify_kb_failed_documents")
    assert kind is not None
    assert kind.endswith("is broken")


def test_readers_never_find_half_of_a_metrics_file(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "dify.prom")
    texts = {letter * 300_000 + "\n" for letter in "ab"}
    file.write(min(texts))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for text in texts:
                file.write(text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {file.path.read_text() for _ in range(50)} <= texts
    finally:
        stop.set()
        writer.join()


def test_a_metrics_file_that_cannot_be_written_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The monitor goes on: a full disk may have space again later."""
    file = MetricsFile(tmp_path / "gone" / "dify.prom")

    file.write("a")
    file.write("b")

    assert capsys.readouterr().err.count("Cannot write to") == 1
    (tmp_path / "gone").mkdir()
    file.write("c")
    assert file.path.read_text() == "c"


def test_json_of_an_outage_keeps_the_last_counts(cli: Cli, emulator: Emulator) -> None:
    create_dataset_with_documents(emulator, "a.txt")
    emulator.faults.plan("documents.list", [*(["ok"] * 4), "503"])

    _, out, _ = cli("--json", "monitor", "--samples", "2", "--interval", "1s")

    before, after = map(json.loads, out.splitlines())
    assert before["error"] is None
    assert (after["documents"], after["error"] is None) == (1, False)
    assert after["no_answer"] > 0
