from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest
from load_examples import count_creates, count_outcomes, create_dataset, list_document_names

from dify_kb import (
    AsyncClient,
    AttemptEvent,
    ConfigError,
    ItemResult,
    LoadError,
    LoadReport,
    NotFoundError,
    Outcome,
    Policy,
    ProcessRule,
    Progress,
    StopReason,
    UnauthorizedError,
)
from dify_kb.emulator import Emulator, ManualClock, Settings


def write(root: Path, *list_document_names: str) -> None:
    for name in list_document_names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the text of {name}")


async def test_folder_is_loaded_into_searchable_documents(
    client: AsyncClient, folder: Path
) -> None:
    write(folder, "a.md", "sub/b.txt", "sub/deep/c.html")
    (folder / "sub/b.txt").write_text("the wombat digs at night")
    dataset = await create_dataset(client)

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"added": 3}
    assert report
    assert report.exit_code == 0
    assert await list_document_names(client, dataset) == ["a.md", "sub__b.txt", "sub__deep__c.html"]
    found = await client.datasets.retrieve(dataset, "wombat")
    assert found.records[0].segment.document.name == "sub__b.txt"


async def test_equal_file_names_in_two_folders_become_two_documents(
    client: AsyncClient, folder: Path
) -> None:
    """With base names only, the second would silently replace the first."""
    write(folder, "a/readme.md", "b/readme.md", "a__b.txt", "a/b.txt")
    dataset = await create_dataset(client)

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"added": 4}
    assert len(await list_document_names(client, dataset)) == 4


async def test_every_file_has_exactly_one_outcome(client: AsyncClient, folder: Path) -> None:
    write(folder, "good.md", "page.rst", "tool.exe")
    (folder / "empty.txt").touch()
    (folder / "blank.txt").write_text("\n \n")
    (folder / "junk.txt").write_bytes(bytes(range(256)) * 8)
    (folder / "large.txt").write_text("x" * 2000)
    (folder / "link.txt").symlink_to("/etc/hostname")
    os.mkfifo(folder / "pipe.md")
    dataset = await create_dataset(client)
    results: list[ItemResult] = []

    report = await client.load(
        dataset,
        folder,
        as_text=["*.rst"],
        max_file_size=2500,
        on_event=lambda event: results.append(event) if isinstance(event, ItemResult) else None,
    )

    assert {result.key: result.outcome.value for result in results} == {
        "good.md": "added",
        "page.rst": "added",
        "large.txt": "added",
        "tool.exe": "skipped",
        "empty.txt": "skipped",
        "link.txt": "skipped",
        "pipe.md": "skipped",
        "blank.txt": "failed",
        "junk.txt": "failed",
    }
    assert count_outcomes(report) == dict(Counter(result.outcome.value for result in results))
    assert report.exit_code == 3
    assert {result.key for result in report.failures()} == {"blank.txt", "junk.txt"}
    assert "page.rst.txt" in await list_document_names(client, dataset)


async def test_document_without_any_text_is_reported_as_failed(
    client: AsyncClient, folder: Path
) -> None:
    """The server reports `completed`, but searches find nothing of the file."""
    (folder / "blank.txt").write_text("\n\n")

    report = await client.load(await create_dataset(client), folder)

    (failure,) = report.failures()
    assert failure.reason is not None
    assert "the document cannot be retrieved" in failure.reason


async def test_indexing_failure_reports_the_reason_of_the_server(
    client: AsyncClient, folder: Path
) -> None:
    write(folder, "a.pdf")

    report = await client.load(await create_dataset(client), folder)

    (failure,) = report.failures()
    assert failure.outcome is Outcome.FAILED
    assert failure.error
    assert failure.reason == f"indexing failed: {failure.error}"


async def test_second_load_sends_only_changed_files(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write(folder, "a.md", "b.md")
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (folder / "a.md").write_text("now about echidnas")

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"updated": 1, "unchanged": 1}
    assert count_creates(emulator) == 3
    assert await list_document_names(client, dataset) == ["a.md", "b.md"]
    found = await client.datasets.retrieve(dataset, "echidnas")
    assert len(found.records) == 1


@pytest.mark.parametrize(("on_existing", "outcome"), [("skip", "skipped"), ("fail", "failed")])
async def test_existing_documents_are_kept_on_request(
    client: AsyncClient,
    emulator: Emulator,
    folder: Path,
    tmp_path: Path,
    on_existing: Literal["skip", "fail"],
    outcome: str,
) -> None:
    """They may belong to another client."""
    write(folder, "a.md")
    dataset = await create_dataset(client)
    await client.load(dataset, folder, journal=tmp_path / "somebody else's")
    write(folder, "b.md")

    report = await client.load(dataset, folder, on_existing=on_existing)

    assert count_outcomes(report) == {"added": 1, outcome: 1}
    assert count_creates(emulator) == 2


async def test_process_rule_is_sent_once(client: AsyncClient, folder: Path) -> None:
    """The server stores the rule again for each create that contains one."""
    for name in ("a.txt", "b.txt", "c.txt"):
        (folder / name).write_text("|".join(f"part {number} of the text" for number in range(40)))
    dataset = await create_dataset(client)

    await client.load(
        dataset, folder, process_rule=ProcessRule.custom(max_tokens=60, separator="|")
    )

    rules = {row.dataset_process_rule_id async for row in client.documents.iter(dataset)}
    assert len(rules) == 1
    found = await client.datasets.retrieve(dataset, "part 7")
    assert all(len(record.segment.content) <= 60 for record in found.records)


async def test_only_the_first_create_is_sent_alone(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """It contains the rule; the others are sent concurrently once it has been accepted."""
    write(folder, *(f"{number}.md" for number in range(5)))
    emulator.faults.plan("documents.create_by_file", ["stall 0.5"] * 5)

    await client.load(await create_dataset(client), folder, concurrency=5)

    sent = [each for each in emulator.history if each.endpoint == "documents.create_by_file"]
    first, *others = sorted(sent, key=lambda each: each.started)
    assert len(others) == 4
    assert first.ended <= min(each.started for each in others)
    assert max(each.started for each in others) < min(each.ended for each in others)


async def test_wait_accepted_does_not_wait_for_indexing(folder: Path, quick: Policy) -> None:
    write(folder, "a.md", "b.md")
    settings = Settings(parsing=60)
    with Emulator(settings=settings, clock=ManualClock()) as slow:
        async with AsyncClient(slow.url, slow.api_key, policy=quick) as client:
            report = await client.load(await create_dataset(client), folder, wait="accepted")

    assert count_outcomes(report) == {"added": 2}


async def test_document_without_progress_is_stalled_while_others_are_indexed(
    folder: Path, quick: Policy
) -> None:
    write(folder, "a.md", "b.md")
    clock = ManualClock()
    with Emulator(settings=Settings(indexing=60), clock=clock) as slow:
        async with AsyncClient(slow.url, slow.api_key, policy=quick) as client:
            report = await client.load(await create_dataset(client), folder, stall_after=0.3)

    assert count_outcomes(report) == {"stalled": 2}
    assert report.stopped is StopReason.NOT_INDEXING
    assert report.exit_code == 5


async def test_slow_indexing_is_waited_for(folder: Path, quick: Policy) -> None:
    """A default server indexes one document per two seconds: queues take hours, but progress."""
    write(folder, *(f"{number}.md" for number in range(5)))
    clock = ManualClock()
    with Emulator(settings=Settings(parsing=2, indexing=2), clock=clock) as slow:
        async with AsyncClient(slow.url, slow.api_key, policy=quick) as client:
            dataset = await create_dataset(client)
            report = await _ticking(clock, client.load(dataset, folder, stall_after=5))

    assert count_outcomes(report) == {"added": 5}


async def _ticking(clock: ManualClock, work: Awaitable[LoadReport]) -> LoadReport:
    """Advance the clock by a second every 10 ms while `work` runs."""

    async def tick() -> None:
        while True:
            await anyio.sleep(0.01)
            clock.advance(1)

    reports: list[LoadReport] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tick)
        reports.append(await work)
        tasks.cancel_scope.cancel()
    return reports[0]


async def test_polling_requests_pages_not_single_documents(
    emulator: Emulator, folder: Path
) -> None:
    """With the default intervals; tests/ingest/test_watch_indexing.py checks the numbers."""
    write(folder, *(f"{number}.md" for number in range(150)))

    async with AsyncClient(emulator.url, emulator.api_key) as client:
        report = await client.load(await create_dataset(client), folder)

    assert count_outcomes(report) == {"added": 150}
    requests = Counter(exchange.endpoint for exchange in emulator.history)
    assert requests["documents.list"] > 0
    assert requests["documents.list"] + requests["documents.indexing_status"] < 0.25 * 150


@pytest.mark.parametrize(
    "fault",
    [
        "commit-then-reset",
        "commit-then-504-html",
        "truncate",
        "commit-then-empty",
        "commit-then-login-page",
    ],
)
async def test_lost_response_does_not_create_twice(
    client: AsyncClient, emulator: Emulator, folder: Path, fault: str
) -> None:
    """A second create while the first is being indexed would duplicate its chunks."""
    write(folder, "a.md", "b.md")
    emulator.faults.plan("documents.create_by_file", [fault])
    events: list[object] = []

    report = await client.load(await create_dataset(client), folder, on_event=events.append)

    assert count_outcomes(report) == {"added": 2}
    assert report.bytes == 2 * len("the text of a.md")
    assert max(one.accepted for one in events if isinstance(one, Progress)) == 2
    assert count_creates(emulator) == 2
    assert not emulator.faults.left()


@pytest.mark.parametrize("fault", ["503", "429 retry-after=0", "rate-limit", "503-html"])
async def test_transient_refusal_is_retried(
    client: AsyncClient, emulator: Emulator, folder: Path, fault: str
) -> None:
    write(folder, "a.md", "b.md")
    emulator.faults.plan("documents.create_by_file", [fault, fault])

    report = await client.load(await create_dataset(client), folder)

    assert count_outcomes(report) == {"added": 2}
    assert report.retries == 2
    assert not emulator.faults.left()


async def test_lost_create_is_resent_after_its_quarantine(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write(folder, "a.md")
    emulator.faults.plan("documents.create_by_file", ["502-html"])

    (result,) = [one async for one in client.load_iter(await create_dataset(client), folder)]

    assert (result.outcome, result.attempts) == (Outcome.ADDED, 2)
    assert count_creates(emulator) == 2


async def test_permanently_lost_response_is_unknown(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """The run ends before a lookup can rule out that the upload arrived."""
    write(folder, "a.md")
    emulator.faults.plan("documents.create_by_file", ["502-html"])

    report = await client.load(await create_dataset(client), folder, deadline=0.3)

    assert count_outcomes(report) == {"unknown": 1}
    assert report.stopped is StopReason.DEADLINE
    assert count_creates(emulator) == 1
    with pytest.raises(LoadError, match="1 of 1 files were not loaded"):
        report.raise_for_failures()


async def test_revoked_key_stops_the_run(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write(folder, *(f"{number}.md" for number in range(40)))
    dataset = await create_dataset(client)
    emulator.faults.plan("documents.create_by_file", ["stall 0"] * 10 + ["401"] * 30)
    emulator.faults.plan("datasets.get", ["ok"] + ["401"] * 30)

    report = await client.load(dataset, folder)

    assert report.stopped is StopReason.UNAUTHORIZED
    assert report.exit_code == 4
    assert report.pending >= 30
    assert report.added + report.pending == 40
    assert not report.failed
    assert count_creates(emulator) <= 10 + 8  # the uploads in flight during the first refusal


async def test_outage_stops_the_run(folder: Path, quick: Policy) -> None:
    write(folder, *(f"{number}.md" for number in range(60)))
    server = Emulator(settings=Settings(), clock=None)
    with server:
        async with AsyncClient(server.url, server.api_key, policy=quick.scaled(0.1)) as client:
            dataset = await create_dataset(client)

            def cut(event: object) -> None:
                if isinstance(event, Progress) and event.accepted == 20:
                    server.stop()

            report = await client.load(dataset, folder, on_event=cut)

    assert report.stopped is StopReason.OUTAGE
    assert report.exit_code == 5
    assert sum(count_outcomes(report).values()) == 60
    assert report.pending


async def test_file_deleted_after_the_scan_fails_alone(client: AsyncClient, folder: Path) -> None:
    write(folder, "a.md", "z.md")
    dataset = await create_dataset(client)

    def delete(event: object) -> None:
        if isinstance(event, Progress) and event.found:
            (folder / "z.md").unlink(missing_ok=True)

    report = await client.load(dataset, folder, concurrency=1, on_event=delete)

    assert count_outcomes(report) == {"added": 1, "failed": 1}


async def test_files_on_slow_storage_are_read_concurrently(
    client: AsyncClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "a.md", "b.md", "c.md")
    monkeypatch.setattr("dify_kb.ingest.journal.group_commit.MAX_EVALUATION_SECONDS", -1.0)

    report = await client.load(await create_dataset(client), folder)

    assert count_outcomes(report) == {"added": 3}


async def test_final_progress_matches_the_report(client: AsyncClient, folder: Path) -> None:
    write(folder, "a.md", "b.exe")
    seen: list[Progress] = []

    await client.load(
        await create_dataset(client),
        folder,
        on_event=lambda event: seen.append(event) if isinstance(event, Progress) else None,
    )

    last = seen[-1]
    assert (last.found, last.to_send, last.accepted, last.ended) == (2, 1, 1, 2)
    assert last.scanned


@pytest.mark.parametrize("dry_run", [False, True])
async def test_folder_without_files_is_reported_as_such(
    client: AsyncClient, folder: Path, *, dry_run: bool
) -> None:
    """Usually a wrong path or pattern; `if report:` must not take it for a success."""
    (folder / "a.md").write_text("text")

    report = await client.load(
        await create_dataset(client), folder, include="*.txt", dry_run=dry_run
    )

    assert count_outcomes(report) == {}
    assert not report
    assert report.exit_code == 1
    assert report.stopped is StopReason.NO_FILES
    assert str(folder) in str(report.stop_message)
    with pytest.raises(LoadError, match="No files to load"):
        report.raise_for_failures()


class CallbackError(Exception):
    """Raised by a callback of the caller."""


@pytest.mark.parametrize("callback", ["load", "client"])
async def test_the_first_error_of_a_callback_is_raised_unchanged(
    emulator: Emulator, quick: Policy, folder: Path, callback: str
) -> None:
    """Uploads in flight end with events of their own, whose errors would form a group."""
    for number in range(20):
        (folder / f"{number}.md").write_text("text")
    emulator.faults.plan("documents.create_by_file", ["stall 0.2 x20"])
    raised: list[CallbackError] = []

    def refuse(event: object) -> None:
        if isinstance(event, ItemResult) or (
            isinstance(event, AttemptEvent) and event.endpoint == "documents.create_by_file"
        ):
            raised.append(CallbackError())
            raise raised[-1]

    options: dict[str, Any] = {"on_event": refuse} if callback == "client" else {}
    async with AsyncClient(emulator.url, emulator.api_key, policy=quick, **options) as kb:
        with pytest.raises(CallbackError) as caught:
            await kb.load(
                await create_dataset(kb),
                folder,
                concurrency=8,
                on_event=refuse if callback == "load" else None,
            )

    assert [caught.value] == raised


async def test_load_that_cannot_start_raises(client: AsyncClient, folder: Path) -> None:
    with pytest.raises(NotFoundError):
        await client.load("00000000-0000-4000-8000-000000000000", folder)
    with pytest.raises(ConfigError, match="no such file"):
        await client.load(await create_dataset(client), folder / "nowhere")
    bare = await client.datasets.create("bare")
    with pytest.raises(ConfigError, match="no indexing technique"):
        await client.load(bare, folder)


async def test_wrong_key_raises_and_does_not_show_it(emulator: Emulator, folder: Path) -> None:
    async with AsyncClient(emulator.url, "dataset-wrong") as client:
        with pytest.raises(UnauthorizedError) as caught:
            await client.load("00000000-0000-4000-8000-000000000000", folder)

    assert "dataset-wrong" not in str(caught.value)


async def test_disabled_document_is_not_duplicated(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """The server does not match it by name and would create a second one (recording 422)."""
    write(folder, "a.md")
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (document,) = [row async for row in client.documents.iter(dataset)]
    _disable(emulator, document.id)
    (folder / "a.md").write_text("another text")

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"skipped": 1}
    (reason,) = report.skipped_reasons
    assert reason.startswith("disabled by hand")
    assert len(await list_document_names(client, dataset)) == 1


async def test_document_still_being_indexed_is_waited_for(folder: Path, quick: Policy) -> None:
    """Two simultaneous runs would leave the chunks of both (measured on 1.4.3 and 1.12.1)."""
    write(folder, "a.md")
    clock = ManualClock()
    with Emulator(settings=Settings(parsing=30, workers=2), clock=clock) as slow:
        async with AsyncClient(slow.url, slow.api_key, policy=quick) as client:
            dataset = await create_dataset(client)
            await client.load(dataset, folder, wait="accepted")
            (folder / "a.md").write_text("another text")
            report = await _ticking(clock, client.load(dataset, folder))
            found = await client.datasets.retrieve(dataset, "text")

    assert count_outcomes(report) == {"updated": 1}
    assert [record.segment.content for record in found.records] == ["another text"]


async def test_successful_results_are_not_kept_in_memory(client: AsyncClient, folder: Path) -> None:
    write(folder, *(f"{number}.md" for number in range(30)))

    report = await client.load(await create_dataset(client), folder)

    assert list(report.failures()) == []
    assert '"added": 30' in report.to_json()


async def test_cancelled_load_leaves_the_client_usable(client: AsyncClient, folder: Path) -> None:
    write(folder, *(f"{number}.md" for number in range(200)))
    dataset = await create_dataset(client)

    with anyio.move_on_after(0.05) as scope:
        await client.load(dataset, folder)

    assert scope.cancelled_caught
    assert (await client.datasets.get(dataset)).name == "docs"


def _disable(emulator: Emulator, document_id: str) -> None:
    running = emulator._server_thread
    assert running is not None
    running._store.documents.update(document_id, enabled=False)


async def test_failures_of_earlier_runs_do_not_stop_a_load(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """Documents of a stopped run may fail after it; the next run finds them failed."""
    write(folder, *(f"{number:02}.md" for number in range(60)))
    dataset = await create_dataset(client)
    emulator.faults.indexing(["error no such model"], always=True)
    stopped = await client.load(dataset, folder)
    emulator.faults.clear()

    report = await client.load(dataset, folder, retry_failed=True)

    assert stopped.stopped is StopReason.MISCONFIGURED
    assert report.stopped is None
    assert report.added + report.updated >= 30


async def test_load_that_fails_before_its_first_file_leaves_nothing_open(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """It lists the dataset first; anything left open there would cause a warning."""
    dataset = await create_dataset(client)
    await client.documents.create_by_text(
        dataset, name="theirs", text="text", process_rule=ProcessRule.automatic()
    )
    emulator.faults.plan("documents.list", ["401"])

    with pytest.raises(UnauthorizedError):
        await client.load(dataset, folder)

    gc.collect()


async def test_refused_file_is_retried_without_a_limit(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """An unavailable server rejects a file many times; then one response is lost."""
    write(folder, "a.md")
    emulator.faults.plan("documents.create_by_file", ["503 x5", "502-html"])

    report = await client.load(await create_dataset(client), folder)

    assert count_outcomes(report) == {"added": 1}
    assert not emulator.faults.left()
