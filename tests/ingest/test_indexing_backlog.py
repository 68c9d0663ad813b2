from __future__ import annotations

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from dify_kb.ingest.pacing.indexing_backlog import (
    MIN_SUCCESSES,
    PROBATION_LIMIT,
    SAMPLE_SIZE,
    EarlyFailures,
    IndexingBacklog,
)

WRONG = "embedding model not found"


def record_ends(ends: Sequence[str | None]) -> list[str | None]:
    early_failures = EarlyFailures()
    return [early_failures.record_end(error) for error in ends]


@pytest.mark.parametrize(
    ("failures", "others", "reason"),
    [
        ([WRONG] * SAMPLE_SIZE, 0, WRONG),
        ([WRONG] * (SAMPLE_SIZE // 2), SAMPLE_SIZE // 2, WRONG),
        ([WRONG] * (SAMPLE_SIZE // 2 - 1), SAMPLE_SIZE // 2 + 1, None),
        ([f"error {number}" for number in range(SAMPLE_SIZE)], 0, "error 0"),
        ([f"error {number}" for number in range(SAMPLE_SIZE - 1)], 1, None),
        ([], SAMPLE_SIZE, None),
    ],
)
def test_early_failures_show_that_the_server_rejects_everything(
    failures: Sequence[str], others: int, reason: str | None
) -> None:
    ends: list[str | None] = [*failures, *[None] * others]

    assert record_ends(ends) == [None] * (SAMPLE_SIZE - 1) + [reason]
    assert record_ends([*[None] * others, *failures]) == [None] * (SAMPLE_SIZE - 1) + [reason]


def test_later_failures_do_not_stop_the_run() -> None:
    assert record_ends([None] * SAMPLE_SIZE + [WRONG] * 1000) == [None] * (SAMPLE_SIZE + 1000)


def test_uploads_are_held_until_some_documents_are_indexed() -> None:
    early_failures = EarlyFailures()
    holds = []
    for _ in range(MIN_SUCCESSES):
        holds.append(early_failures.holds_uploads)
        early_failures.record_end(None)

    assert holds == [True] * MIN_SUCCESSES
    assert not early_failures.holds_uploads


def test_early_failure_holds_uploads() -> None:
    early_failures = EarlyFailures()
    early_failures.record_end(WRONG)
    for _ in range(SAMPLE_SIZE - 2):
        early_failures.record_end(None)
        assert early_failures.holds_uploads

    early_failures.record_end(None)
    assert not early_failures.holds_uploads


def make_backlog(limit: int, *, follows: bool) -> IndexingBacklog:
    return IndexingBacklog(limit, follows)


async def count_accepted(backlog: IndexingBacklog, number: int = 1000) -> int:
    """Return the number of documents that the backlog accepts."""
    accepted = 0
    with anyio.move_on_after(0.02):
        for _ in range(number):
            await backlog.acquire()
            accepted += 1
    return accepted


@pytest.mark.parametrize(
    ("limit", "follows", "size"), [(5000, True, PROBATION_LIMIT), (10, True, 10), (300, False, 300)]
)
async def test_backlog_is_small_before_the_first_document_is_indexed(
    limit: int, *, follows: bool, size: int
) -> None:
    assert await count_accepted(make_backlog(limit, follows=follows)) == size


async def test_backlog_has_its_full_size_once_documents_are_indexed() -> None:
    backlog = make_backlog(300, follows=True)
    assert await count_accepted(backlog) == PROBATION_LIMIT
    for _ in range(MIN_SUCCESSES):
        backlog.release(sent=True)
        backlog.early_failures.record_end(None)

    assert await count_accepted(backlog) == 300 - PROBATION_LIMIT + MIN_SUCCESSES


async def test_first_indexed_documents_wake_waiting_uploads() -> None:
    """Also if fewer documents finished than uploads are waiting."""
    backlog = make_backlog(300, follows=True)
    await count_accepted(backlog)
    accepted: list[int] = []

    async def enter() -> None:
        await backlog.acquire()
        accepted.append(1)

    async with anyio.create_task_group() as tasks:
        for _ in range(100):
            tasks.start_soon(enter)
        await anyio.sleep(0.02)
        assert not accepted
        for _ in range(MIN_SUCCESSES):
            backlog.release(sent=True)
            backlog.early_failures.record_end(None)

    assert len(accepted) == 100


async def test_existing_documents_count_without_waiting() -> None:
    backlog = make_backlog(10, follows=False)
    for _ in range(12):
        backlog.add(sent=False)

    assert await count_accepted(backlog) == 0
    for _ in range(5):
        backlog.release(sent=False)
    assert await count_accepted(backlog) == 3


async def test_forgotten_documents_of_earlier_runs_do_not_count() -> None:
    """If their worker was killed, they never finish."""
    backlog = make_backlog(10, follows=False)
    for _ in range(12):
        backlog.add(sent=False)
    accepted: list[int] = []

    async def enter() -> None:
        accepted.append(await count_accepted(backlog))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(enter)
        await anyio.lowlevel.checkpoint()
        backlog.forget_earlier_runs()

    assert accepted == [10]
    backlog.release(sent=False)
    assert await count_accepted(backlog) == 0
    backlog.release(sent=True)
    assert await count_accepted(backlog) == 1


async def test_cancelled_waiter_does_not_count_in_the_backlog() -> None:
    backlog = make_backlog(1, follows=False)
    await backlog.acquire()
    assert await count_accepted(backlog) == 0

    backlog.release(sent=True)
    assert await count_accepted(backlog) == 1
