"""Faults that loads met on real servers and file systems, repeated with the emulator."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from attrs import evolve
from load_examples import CREATE, count_creates, count_outcomes, create_dataset, write_files

from dify_kb import (
    AsyncClient,
    Dataset,
    ItemResult,
    LoadReport,
    Policy,
    Progress,
    RateLimitedError,
    StopReason,
)
from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.journal import JournalState
from dify_kb.ingest.journal.read_journal import iter_rows


async def found(client: AsyncClient, dataset: Dataset, query: str) -> list[str]:
    result = await client.datasets.retrieve(dataset, query)
    return [record.segment.content for record in result.records]


@pytest.mark.parametrize("fault", ["hang", "lose"])
async def test_document_lost_by_a_killed_worker_is_reported_and_resent_on_request(
    client: AsyncClient, emulator: Emulator, folder: Path, fault: str
) -> None:
    """It stalled again in each run, was reported as "nothing is being indexed", and remained."""
    write_files(folder, 20)
    emulator.faults.indexing([fault], names="007*")
    dataset = await create_dataset(client)

    first = await client.load(dataset, folder, stall_after=1)
    again = await client.load(dataset, folder, stall_after=1)
    retried = await client.load(dataset, folder, stall_after=1, retry_failed=True)

    assert count_outcomes(first) == {"added": 19, "stalled": 1}
    assert (first.stopped, first.exit_code) == (None, 3)
    (failure,) = first.failures()
    assert str(failure.reason).startswith("lost by the server's worker")
    assert "19 others were indexed" in str(failure.reason)
    assert count_outcomes(again) == {"unchanged": 19, "stalled": 1}
    assert again.stopped is None
    assert retried.unchanged == 19
    assert retried.added + retried.updated == 1
    assert len([row async for row in client.documents.iter(dataset)]) == 20
    assert await found(client, dataset, "the text of 7")


async def test_stalled_document_with_a_queued_task_is_not_duplicated(
    folder: Path, quick: Policy
) -> None:
    """No worker was running: the first task is still queued, so the document is deleted first."""
    write_files(folder, 3)
    with Emulator(settings=Settings(workers=4)) as server:
        server.faults.indexing(["die"])
        async with AsyncClient(server.url, server.api_key, policy=quick) as client:
            dataset = await create_dataset(client)
            first = await client.load(dataset, folder, stall_after=1)
            before = {row.id async for row in client.documents.iter(dataset)}
            server.faults.restart()
            with anyio.move_on_after(1):
                await anyio.sleep(0.2)
            retried = await client.load(dataset, folder, stall_after=1, retry_failed=True)
            rows = [row async for row in client.documents.iter(dataset)]

    assert first.stopped is StopReason.NOT_INDEXING
    assert "No document of any dataset made progress" in str(first.stop_message)
    assert first.stalled == 3
    assert retried
    assert len(rows) == 3
    assert len(before) == 3


async def test_worker_that_serves_other_datasets_first_is_waited_for(
    folder: Path, tmp_path: Path, quick: Policy
) -> None:
    write_files(folder, 5)
    other = tmp_path / "other"
    other.mkdir()
    write_files(other, 40)
    with Emulator(settings=Settings(workers=1, indexing=0.1)) as server:
        async with AsyncClient(server.url, server.api_key, policy=quick) as client:
            theirs, ours = await create_dataset(client, "A"), await create_dataset(client, "B")
            await client.load(theirs, other, wait="accepted")
            report = await client.load(ours, folder, stall_after=1)

    assert count_outcomes(report) == {"added": 5}
    assert report.stopped is None


async def test_dataset_that_is_deleted_during_a_load_stops_it(
    client: AsyncClient, folder: Path
) -> None:
    """The hint was to repair the models."""
    write_files(folder, 60)
    dataset = await create_dataset(client)

    deleting = anyio.Event()

    async def delete() -> None:
        await deleting.wait()
        await client.datasets.delete(dataset)

    def watch(event: object) -> None:
        if isinstance(event, ItemResult):
            deleting.set()

    reports: list[LoadReport] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(delete)
        reports.append(await client.load(dataset, folder, on_event=watch, concurrency=2))
    (report,) = reports

    assert report.stopped is StopReason.DATASET_DELETED
    assert report.exit_code == 4
    assert report.pending


async def test_file_changed_since_the_scan_is_sent_in_its_current_state(
    client: AsyncClient, folder: Path
) -> None:
    """It used to fail, although the file was valid."""
    write_files(folder, 3)

    def change(event: object) -> None:
        if isinstance(event, Progress) and event.found == 3 and event.accepted == 0:
            (folder / "002.md").write_text("wombats dig at night, longer than before")

    report = await client.load(await create_dataset(client), folder, on_event=change, concurrency=1)

    assert count_outcomes(report) == {"added": 3}


async def test_changed_content_of_equal_size_and_time_is_detected(
    client: AsyncClient, folder: Path
) -> None:
    """`cp -p`, `rsync -t` and archives preserve mtime, but nothing preserves ctime."""
    path = folder / "a.md"
    path.write_text("the old text")
    old = path.stat()
    os.utime(path, ns=(10**18, 10**18))
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    path.write_text("the new text")
    os.utime(path, ns=(10**18, 10**18))

    report = await client.load(dataset, folder)

    assert path.stat().st_size == old.st_size
    assert count_outcomes(report) == {"updated": 1}


async def test_checksum_compares_contents_despite_equal_times(
    client: AsyncClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems have no reliable ctime."""
    sources = "dify_kb.ingest.sources"
    monkeypatch.setattr(f"{sources}.scan.make_token", lambda _: "same")
    monkeypatch.setattr(f"{sources}.found_file.make_token", lambda _: "same")
    monkeypatch.setattr(f"{sources}.file_content.settled_token", lambda *_: "same")
    write_files(folder, 1)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (folder / "000.md").write_text("the text of 9")

    blind = await client.load(dataset, folder)
    report = await client.load(dataset, folder, checksum=True)

    assert count_outcomes(blind) == {"unchanged": 1}
    assert count_outcomes(report) == {"updated": 1}


@pytest.mark.parametrize("lists", [False, True])
async def test_archived_document_is_not_overwritten(
    client: AsyncClient, emulator: Emulator, folder: Path, *, lists: bool
) -> None:
    """A create with the same name would return it to retrieval, against a person's decision."""
    write_files(folder, 2)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    rows = {row.name: row.id async for row in client.documents.iter(dataset)}
    await client.documents.archive(dataset, [rows["000.md"]])
    if lists:  # a document of another client makes the load list the dataset
        await client.documents.create_by_text(dataset, "theirs.txt", "wombats")
    (folder / "000.md").write_text("another text altogether")

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"skipped": 1, "unchanged": 1}
    (reason,) = report.skipped_reasons
    assert reason.startswith("archived by hand")
    assert count_creates(emulator) == 2
    assert not any("altogether" in text for text in await found(client, dataset, "altogether"))


async def test_archived_document_that_is_overwritten_on_request_is_archived_again(
    client: AsyncClient, folder: Path
) -> None:
    write_files(folder, 1)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (row,) = [row async for row in client.documents.iter(dataset)]
    await client.documents.archive(dataset, [row.id])
    (folder / "000.md").write_text("another text altogether")

    report = await client.load(dataset, folder, overwrite_archived=True)

    assert count_outcomes(report) == {"updated": 1}
    (row,) = [row async for row in client.documents.iter(dataset)]
    assert row.archived
    assert not await found(client, dataset, "altogether")


async def test_failed_replacement_is_resent_first_by_the_next_run(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """The old version is lost, too: the document is empty."""
    write_files(folder, 30)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    for number in range(30):
        (folder / f"{number:03}.md").write_text(f"a longer text of {number}")
    emulator.faults.indexing(["error no such encoding"], names="020*")

    failed = await client.load(dataset, folder)
    before = len(emulator.history)
    (folder / "000.md").write_text("changed once more")
    again = await client.load(dataset, folder, concurrency=1)

    assert count_outcomes(failed) == {"updated": 29, "failed": 1}
    (failure,) = failed.failures()
    assert f"replacing document {failure.document_id} failed and left it empty" in str(
        failure.reason
    )
    assert "no such encoding" in str(failure.reason)
    assert count_outcomes(again) == {"unchanged": 28, "updated": 2}
    sent = [
        exchange.document for exchange in emulator.history[before:] if exchange.endpoint == CREATE
    ]
    assert sent[0] == "020.md"


@pytest.mark.parametrize("fails", [False, True])
async def test_swap_keeps_a_version_in_search_at_every_moment(
    client: AsyncClient, emulator: Emulator, folder: Path, *, fails: bool
) -> None:
    """A replacement in place always has a gap, and loses the old version if it fails."""
    write_files(folder, 3)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    old = {row.name: row.id async for row in client.documents.iter(dataset)}
    (folder / "001.md").write_text("the text of 1, second edition")
    if fails:
        emulator.faults.indexing(["error no such encoding"], names="001*")
    seen: list[list[str]] = []

    async def search() -> None:
        while True:
            seen.append(await found(client, dataset, "the text of 1"))
            await anyio.lowlevel.checkpoint()

    reports: list[LoadReport] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search)
        reports.append(await client.load(dataset, folder, replace="swap"))
        tasks.cancel_scope.cancel()
    (report,) = reports

    rows = {row.name: row.id async for row in client.documents.iter(dataset)}
    assert len(rows) == len([row async for row in client.documents.iter(dataset)]) == 3
    assert all(any("the text of 1" in text for text in texts) for texts in seen)
    assert count_outcomes(report) == {"unchanged": 2, "failed" if fails else "updated": 1}
    assert (rows["001.md"] == old["001.md"]) is fails
    if fails:
        assert "the old version was kept" in str(next(report.failures()).reason)
    texts = await found(client, dataset, "the text of 1")
    assert any("second edition" in text for text in texts) is not fails


async def test_interrupted_swap_is_finished_by_the_next_run(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """There may be two documents with one name: the newer one is kept."""
    write_files(folder, 1)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (folder / "000.md").write_text("second edition")
    emulator.faults.plan("documents.delete", ["stall 30"])
    with anyio.move_on_after(1.0):
        await client.load(dataset, folder, replace="swap")

    report = await client.load(dataset, folder, replace="swap")

    assert report
    assert len([row async for row in client.documents.iter(dataset)]) == 1
    assert await found(client, dataset, "second edition") == ["second edition"]


async def test_swap_of_an_archived_document_leaves_one(client: AsyncClient, folder: Path) -> None:
    """An archived document cannot be deleted: it used to remain next to its new version."""
    write_files(folder, 1)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (row,) = [row async for row in client.documents.iter(dataset)]
    await client.documents.archive(dataset, [row.id])
    (folder / "000.md").write_text("second edition")

    report = await client.load(dataset, folder, replace="swap", overwrite_archived=True)

    assert count_outcomes(report) == {"updated": 1}
    (left,) = [row async for row in client.documents.iter(dataset)]
    assert left.archived
    assert left.id != row.id
    assert not await found(client, dataset, "second edition")


async def test_server_that_answers_500_to_every_upload_fails_no_file(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """Each used to be sent four times and to fail permanently; the next run sent none."""
    write_files(folder, 60)
    dataset = await create_dataset(client)
    emulator.faults.plan(CREATE, ["500 x5000"])

    report = await client.load(dataset, folder)
    emulator.faults.clear()
    again = await client.load(dataset, folder)

    assert report.stopped is StopReason.OUTAGE
    assert report.failed == 0
    assert report.pending + report.unknown == 60
    assert count_outcomes(again) == {"added": 60}


async def test_single_transient_failure_is_resent_by_the_next_run(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """The file is valid: it needs no `retry_failed`."""
    write_files(folder, 1)
    dataset = await create_dataset(client)
    emulator.faults.plan(CREATE, ["500 x4"])

    report = await client.load(dataset, folder)
    again = await client.load(dataset, folder)

    assert count_outcomes(report) == {"failed": 1}
    assert count_outcomes(again) == {"added": 1}


@pytest.mark.parametrize("endpoint", ["datasets.get", "documents.list", "metadata.list"])
async def test_deadline_bounds_the_requests_before_the_first_upload(
    emulator: Emulator, folder: Path, endpoint: str
) -> None:
    """A server that asked to wait 5 minutes kept a load with a deadline of seconds for an hour."""
    write_files(folder, 1)
    async with AsyncClient(emulator.url, emulator.api_key) as client:
        dataset = await create_dataset(client)
        await client.documents.create_by_text(dataset, "other.txt", "The text of another client.")
        emulator.faults.plan(endpoint, ["429 retry-after=300"])

        with anyio.fail_after(20), pytest.raises(RateLimitedError, match="Wait 300 s"):
            await client.load(dataset, folder, deadline=1, metadata={"team": "infra"})

    assert not any(emulator.faults.left().values())


async def test_deadline_ends_the_list_of_documents(emulator: Emulator, folder: Path) -> None:
    """At once, not after the timeout of the request."""
    write_files(folder, 1)
    async with AsyncClient(emulator.url, emulator.api_key) as client:
        dataset = await create_dataset(client)
        await client.documents.create_by_text(dataset, "other.txt", "The text of another client.")
        emulator.faults.plan("documents.list", ["stall 300"])

        with anyio.fail_after(20):
            report = await client.load(dataset, folder, deadline=1)

    assert (report.stopped, count_outcomes(report)) == (StopReason.DEADLINE, {"pending": 1})
    assert not any(emulator.faults.left().values())


async def test_deadline_after_the_last_file_is_ignored(client: AsyncClient, folder: Path) -> None:
    """It used to be reported as a stop, although nothing was left to do."""
    write_files(folder, 3)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)

    report = await client.load(dataset, folder, deadline=0)

    assert count_outcomes(report) == {"unchanged": 3}
    assert (report.stopped, report.exit_code) == (None, 0)


async def test_report_warns_of_deleted_characters(client: AsyncClient, folder: Path) -> None:
    (folder / "es.md").write_text("naïve ¿Qué? 3¾")
    (folder / "en.md").write_text("plain words")

    report = await client.load(await create_dataset(client), folder)

    (warning,) = report.warnings
    assert "occurrences: 3 in 1 file, such as 'es.md'" in warning


async def test_total_is_known_before_the_scan_ends(client: AsyncClient, folder: Path) -> None:
    """Without a total, the progress says nothing about the time left."""
    write_files(folder, 400)
    seen: list[Progress] = []

    report = await client.load(
        await create_dataset(client),
        folder,
        on_event=lambda event: seen.append(event) if isinstance(event, Progress) else None,
        concurrency=4,
    )

    known = next(event for event in seen if event.total is not None)
    assert known.total == 400
    assert known.ended < 200
    assert known.total_bytes == report.bytes
    assert seen[-1].bytes_done == report.bytes
    assert any(event.eta for event in seen)


async def test_skipped_files_are_counted_by_reason(client: AsyncClient, folder: Path) -> None:
    write_files(folder, 2, ".exe")
    write_files(folder, 1)
    (folder / "empty.md").touch()

    report = await client.load(await create_dataset(client), folder)

    assert report.skipped_reasons == {"unsupported type .exe": 2, "empty": 1}
    assert report.exit_code == 0


async def test_file_that_is_named_and_skipped_is_an_error(
    client: AsyncClient, folder: Path
) -> None:
    write_files(folder, 1, ".exe")

    report = await client.load(await create_dataset(client), folder / "000.exe")

    assert count_outcomes(report) == {"failed": 1}
    assert report.exit_code == 3


async def test_refused_file_type_is_not_sent_again(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """Servers with another extractor accept more types; only the response shows it."""
    write_files(folder, 12, ".pptx")

    report = await client.load(
        await create_dataset(client), folder, include=["*.pptx"], concurrency=1
    )

    assert count_outcomes(report) == {"failed": 12}
    assert count_creates(emulator) == 1
    assert {failure.reason for failure in report.failures()} == {
        "the server does not accept files of type .pptx"
    }


async def test_cached_list_fails_no_document(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, 30)
    dataset = await create_dataset(client)
    emulator.faults.plan("documents.list", ["stale-list 60 always x3"])

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"added": 30}


async def test_plugin_daemon_that_is_down_fails_no_file(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """Every request is answered with 400, although key and files are valid."""
    write_files(folder, 30)
    emulator.faults.plan(CREATE, ["ok"] * 5 + ["plugin-daemon"] * 25)

    report = await client.load(await create_dataset(client), folder)

    assert count_outcomes(report) == {"added": 30}


async def test_document_that_is_busy_is_waited_for(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """`400 invalid_action … is being indexed, please try again later` is temporary."""
    write_files(folder, 5)
    emulator.faults.plan(CREATE, ["ok", "being-indexed", "ok"])

    report = await client.load(await create_dataset(client), folder)

    assert count_outcomes(report) == {"added": 5}


async def test_dataset_lock_is_reported_and_waited_for(
    emulator: Emulator, folder: Path, quick: Policy
) -> None:
    """After a crash of the API, creates hang while reads are answered; they arrive in the end."""
    write_files(folder, 20)
    policy = evolve(
        quick,
        timeout=evolve(quick.timeout, answer=0.5, connect=0.5),
        load_timing=evolve(quick.load_timing, dataset_lock_time=6.0),
    )
    paused: set[str | None] = set()

    def watch(event: object) -> None:
        if isinstance(event, Progress):
            paused.add(event.paused)

    async with AsyncClient(emulator.url, emulator.api_key, policy=policy) as client:
        dataset = await create_dataset(client)
        emulator.faults.lock_dataset(dataset.id, 2.5)
        report = await client.load(dataset, folder, stall_after=0.5, on_event=watch)
        rows = [row.name async for row in client.documents.iter(dataset)]

    assert count_outcomes(report) == {"added": 20}
    assert len(rows) == len(set(rows)) == 20
    assert any("has locked the dataset" in str(cause) for cause in paused)
    assert count_creates(emulator) == 20, "files whose upload may still arrive are not sent again"


@pytest.mark.parametrize("page", ["403-html", "404-html", "406-html", "413-html"])
async def test_body_that_a_proxy_refuses_fails_alone(
    client: AsyncClient, emulator: Emulator, folder: Path, page: str
) -> None:
    """A web application firewall responds instead of Dify, without the version header."""
    write_files(folder, 40)
    (folder / "005-sql.md").write_text("UNION SELECT is SQL")
    emulator.faults.refuse_bodies(containing=b"UNION SELECT", word=page)

    report = await client.load(await create_dataset(client), folder)

    assert count_outcomes(report) == {"added": 40, "failed": 1}
    assert report.stopped is None


async def test_journal_remembers_what_the_next_run_needs(
    client: AsyncClient, emulator: Emulator, folder: Path, tmp_path: Path
) -> None:
    write_files(folder, 3)
    journal = tmp_path / "j.db"
    emulator.faults.indexing(["lose"], names="001*")

    await client.load(await create_dataset(client), folder, stall_after=1, journal=journal)

    states = {row.key: row.state for row in iter_rows(journal)}
    assert states == {
        "000.md": JournalState.DONE,
        "001.md": JournalState.STALLED,
        "002.md": JournalState.DONE,
    }
