from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest
from attrs import evolve
from load_examples import CREATE, count_creates, count_outcomes, create_dataset, write_files

from dify_kb import (
    AsyncClient,
    ConfigError,
    Dataset,
    Item,
    ItemResult,
    LoadError,
    Outcome,
    Policy,
    StopReason,
)
from dify_kb.emulator import Emulator, ManualClock, Settings


def listening(results: list[ItemResult]) -> Callable[[object], None]:
    return lambda event: results.append(event) if isinstance(event, ItemResult) else None


async def values(client: AsyncClient, dataset: Dataset) -> dict[str, dict[str, object]]:
    return {
        row.name: {
            str(one["name"]): one["value"]
            for one in row.doc_metadata or ()
            if one["id"] != "built-in"
        }
        async for row in client.documents.iter(dataset)
    }


async def test_metadata_is_set_by_name_once_a_document_is_indexed(
    client: AsyncClient, folder: Path
) -> None:
    write_files(folder, 3)
    dataset = await create_dataset(client)

    report = await client.load(
        dataset, folder, metadata=lambda item: {"team": "infra", "place": item.key[:3]}
    )

    assert count_outcomes(report) == {"added": 3}
    assert await values(client, dataset) == {
        f"00{number}.md": {"team": "infra", "place": f"00{number}"} for number in range(3)
    }


async def test_changed_metadata_alone_sends_no_file(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, 3)
    dataset = await create_dataset(client)
    await client.load(dataset, folder, metadata={"team": "infra"})

    again = await client.load(dataset, folder, metadata={"team": "infra"})
    changed = await client.load(dataset, folder, metadata={"year": 2024})

    assert count_outcomes(again) == count_outcomes(changed) == {"unchanged": 3}
    assert count_creates(emulator) == 3
    assert (await values(client, dataset))["000.md"] == {"team": "infra", "year": 2024}


async def test_invalid_metadata_is_a_warning_of_its_file(client: AsyncClient, folder: Path) -> None:
    write_files(folder, 3)
    dataset = await create_dataset(client)
    await client.metadata.create(dataset, name="year", type="number")

    report = await client.load(
        dataset, folder, metadata=lambda item: {"year": "old" if "1" in item.key else 1999}
    )

    assert count_outcomes(report) == {"added": 3}
    (warning,) = report.warnings
    assert "'old'; the field was not set (in '001.md')" in warning


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"flag": True}, "'flag': True"),
        ({"source": "wiki"}, "'source' is the name of a built-in"),
        ({"year": "old"}, "metadata field 'year' of type number: 'old'"),
    ],
)
async def test_invalid_common_metadata_is_rejected_before_sending(
    client: AsyncClient,
    emulator: Emulator,
    folder: Path,
    metadata: dict[str, object],
    why: str,
    dry_run: bool,  # noqa: FBT001 -- pytest passes it by name
) -> None:
    write_files(folder, 3)
    dataset = await create_dataset(client)
    await client.metadata.create(dataset, name="year", type="number")

    with pytest.raises(ConfigError, match=why) as caught:
        await client.load(dataset, folder, metadata=metadata, dry_run=dry_run)

    assert caught.value.hint
    assert count_creates(emulator) == 0


async def test_valid_common_metadata_costs_no_extra_request(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, 3)
    dataset = await create_dataset(client)

    await client.load(dataset, folder, metadata={"year": 2024})

    requests = [exchange.endpoint for exchange in emulator.history]
    assert requests.count("metadata.list") == 1


async def test_wait_verified_checks_every_document(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, 12)
    dataset = await create_dataset(client)
    results: list[ItemResult] = []

    report = await client.load(dataset, folder, wait="verified", on_event=listening(results))

    assert count_outcomes(report) == {"added": 12}
    assert report.verified
    assert len(results) == 12
    requests = [exchange.endpoint for exchange in emulator.history]
    assert requests.count("documents.indexing_status") >= 12


async def test_wait_verified_detects_deleted_documents(client: AsyncClient, folder: Path) -> None:
    """Deleted after an earlier run and replaced by another one, so that the count matches."""
    write_files(folder, 3)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    rows = [row async for row in client.documents.iter(dataset)]
    await client.documents.delete(dataset, rows[0].id)
    await client.documents.create_by_text(dataset, "foreign", "text")
    await client.documents.wait(dataset, [row.id async for row in client.documents.iter(dataset)])

    report = await client.load(dataset, folder, wait="verified")

    assert count_outcomes(report) == {"unchanged": 2, "failed": 1}
    (failure,) = report.failures()
    assert failure.reason == "document not found in the dataset"
    assert count_outcomes(
        await client.load(dataset, folder, wait="verified", retry_failed=True)
    ) == {
        "unchanged": 2,
        "added": 1,
    }


async def test_document_that_was_deleted_by_hand_is_sent_again(
    client: AsyncClient, folder: Path
) -> None:
    write_files(folder, 3)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (first, *_) = [row async for row in client.documents.iter(dataset)]
    await client.documents.delete(dataset, first.id)

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"added": 1, "unchanged": 2}


async def test_transient_indexing_error_is_retried(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, 5)
    emulator.faults.indexing(["error Rate limit exceeded, try again later"])

    report = await client.load(await create_dataset(client), folder)

    assert count_outcomes(report) == {"added": 5}
    assert count_creates(emulator) == 6


async def test_permanent_indexing_error_is_not_retried(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """It is retried on request, or if the file has changed."""
    write_files(folder, 5)
    dataset = await create_dataset(client)
    emulator.faults.indexing(["error cannot be parsed"])

    first = await client.load(dataset, folder)
    second = await client.load(dataset, folder)
    third = await client.load(dataset, folder, retry_failed=True)

    assert count_outcomes(first) == {"added": 4, "failed": 1}
    assert count_outcomes(second) == {"unchanged": 4, "failed": 1}
    assert "retry_failed" in str(next(second.failures()).reason)
    assert count_outcomes(third) == {"unchanged": 4, "updated": 1}


async def test_server_that_rejects_everything_stops_the_run(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    """With a wrong embedding model, every one of thousands of files would fail."""
    write_files(folder, 300)
    emulator.faults.indexing(["error model not found: bge"], always=True)

    report = await client.load(await create_dataset(client), folder)

    assert report.stopped is StopReason.MISCONFIGURED
    assert report.exit_code == 6
    assert "model not found: bge" in str(report.stop_message)
    assert count_creates(emulator) <= 50
    assert report.pending > 200


async def test_max_failures_stops_the_run(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, 60)
    emulator.faults.plan(CREATE, ["400 x20"])

    report = await client.load(await create_dataset(client), folder, max_failures=3)

    assert report.stopped is StopReason.MAX_FAILURES
    assert report.exit_code == 7
    assert report.pending > 0


async def test_errors_stop_raises_at_the_first_failure(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, 60)
    emulator.faults.plan(CREATE, ["400"])

    with pytest.raises(LoadError, match="of 60 files were not loaded"):
        await client.load(await create_dataset(client), folder, errors="stop")


async def test_deadline_leaves_files_pending_for_the_next_run(folder: Path, quick: Policy) -> None:
    write_files(folder, 30)
    clock = ManualClock()
    with Emulator(settings=Settings(indexing=60), clock=clock) as slow:
        async with AsyncClient(slow.url, slow.api_key, policy=quick) as client:
            dataset = await create_dataset(client)
            first = await client.load(dataset, folder, deadline=0.5)
            # Also for files that a busy machine did not send before the deadline.
            second = await client.load(dataset, folder, on_event=lambda _: clock.advance(10_000))

            assert first.stopped is StopReason.DEADLINE
            assert first.exit_code == 5
            assert count_outcomes(first) == {"pending": 30}
            assert count_outcomes(second) == {"added": 30}
            assert count_creates(slow) == 30


async def test_dry_run_predicts_the_results(
    client: AsyncClient, emulator: Emulator, folder: Path, tmp_path: Path
) -> None:
    write_files(folder, 3)
    (folder / "tool.exe").write_text("x")
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    write_files(folder, 5)
    (folder / "000.md").write_text("changed")
    before = {path: path.read_bytes() for path in (tmp_path / "state").rglob("*.db")}
    results: list[ItemResult] = []

    dry = await client.load(dataset, folder, dry_run=True, on_event=listening(results))
    sent = count_creates(emulator)
    real = await client.load(dataset, folder)

    assert count_outcomes(dry) == {"unchanged": 2, "skipped": 1, "pending": 3}
    assert dry
    assert dry.exit_code == 0
    would = {result.key for result in results if result.outcome is Outcome.PENDING}
    assert would == {"000.md", "003.md", "004.md"}
    assert sent == 3
    assert count_outcomes(real) == {"unchanged": 2, "skipped": 1, "added": 2, "updated": 1}
    assert before


async def test_changed_process_rule_resends_all_files(client: AsyncClient, folder: Path) -> None:
    from dify_kb import ProcessRule

    write_files(folder, 3)
    dataset = await create_dataset(client)
    rule = ProcessRule.custom(max_tokens=100)
    first = await client.load(dataset, folder, process_rule=rule)
    same = await client.load(dataset, folder, process_rule=rule)
    silent = await client.load(dataset, folder)
    other = await client.load(dataset, folder, process_rule=ProcessRule.custom(max_tokens=200))

    assert count_outcomes(first) == {"added": 3}
    assert count_outcomes(same) == count_outcomes(silent) == {"unchanged": 3}
    assert count_outcomes(other) == {"updated": 3}


async def test_touched_file_is_not_sent_again(
    client: AsyncClient, emulator: Emulator, folder: Path
) -> None:
    write_files(folder, 2)
    dataset = await create_dataset(client)
    await client.load(dataset, folder)
    (folder / "000.md").write_text((folder / "000.md").read_text())

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"unchanged": 2}
    assert count_creates(emulator) == 2


async def test_immediate_change_of_equal_size_and_time_is_detected(
    client: AsyncClient, folder: Path
) -> None:
    """The resolution of file times is limited; a file may change twice within it."""
    import os

    path = folder / "a.md"
    path.write_text("one")
    dataset = await create_dataset(client)
    stat = path.stat()
    await client.load(dataset, folder)
    path.write_text("two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    report = await client.load(dataset, folder)

    assert count_outcomes(report) == {"updated": 1}


async def test_configured_rate_is_not_exceeded(
    client: AsyncClient, folder: Path, quick: Policy
) -> None:
    write_files(folder, 20)
    policy = evolve(quick, load_timing=evolve(quick.load_timing, tuning_second=0.1))
    async with AsyncClient(client.base_url, "dataset-emulator", policy=policy) as paced:
        began = anyio.current_time()
        report = await paced.load(await create_dataset(paced), folder, rate="10/s", wait="accepted")

    assert count_outcomes(report) == {"added": 20}
    assert anyio.current_time() - began > 0.08  # 20 uploads at 10 per 0.1 s


@pytest.mark.parametrize(
    "options",
    [
        {"rate": "fast"},
        {"wait": "soon"},
        {"errors": "ignore"},
        {"max_unindexed": 0},
        {"deadline": -1},
        {"max_failures": -1},
        {"concurrency": 0},
        {"concurrency": (5, 2)},
        {"stall_after": float("nan")},
    ],
)
async def test_invalid_options_are_rejected(
    client: AsyncClient, emulator: Emulator, folder: Path, options: dict[str, object]
) -> None:
    write_files(folder, 1)

    with pytest.raises(ConfigError) as caught:
        await client.load("00000000-0000-4000-8000-000000000000", folder, **options)  # type: ignore[arg-type]  # wrong on purpose

    assert caught.value.hint
    assert not emulator.history


async def test_items_have_their_own_content_and_metadata(client: AsyncClient, folder: Path) -> None:
    (folder / "on disk.md").write_text("about emus")
    dataset = await create_dataset(client)

    async def source() -> AsyncIterator[Item]:
        yield Item("faq/1", text="about wombats", metadata={"n": 1})
        yield Item("faq/2.md", bytes=b"about quolls")
        yield Item("faq/3.md", path=folder / "on disk.md")
        yield Item("faq/4.exe", bytes=b"x")
        yield Item("faq/2.md", bytes=b"again")

    report = await client.load(dataset, source(), metadata={"of": "faq"})

    assert count_outcomes(report) == {"added": 3, "skipped": 1, "failed": 1}
    assert report.journal is None
    named = await values(client, dataset)
    assert {name.partition("~")[0] for name in named} == {"faq__1", "faq__2.md", "faq__3.md"}
    assert {"of": "faq", "n": 1} in named.values()
