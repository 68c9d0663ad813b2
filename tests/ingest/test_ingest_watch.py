from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest
from attrs import evolve
from fleet import Fleet, Pictures, Rows, Server, a_watcher, row, sent
from virtual_time import run

from dify_kb import ItemResult, Outcome
from dify_kb.ingest.engine.upload import UploadedDocument
from dify_kb.models import DocumentStatuses, IndexingStatus
from dify_kb.wire.endpoint import Call


def watched(
    pictures: Pictures,
    *documents: UploadedDocument,
    stall_after: float = 900.0,
    segments: Callable[[float], int] = lambda _: 0,
    server: type[Server] = Server,
) -> tuple[list[tuple[float, ItemResult]], Server]:
    """Follow documents to their ends, each with its time, without waiting for it."""
    asked = server(pictures, segments)
    results: list[tuple[float, ItemResult]] = []

    async def main() -> None:
        watcher = a_watcher(asked, results, stall_after)
        for document in documents:
            watcher.add(document, new=True)
        async with anyio.create_task_group() as group:
            group.start_soon(watcher.run)
            while len(watcher):
                assert anyio.current_time() < 100_000, "it does not end"
                await anyio.sleep(0.1)
            group.cancel_scope.cancel()

    run(main)
    return results, asked


def at(*pictures: tuple[float, Rows]) -> Pictures:
    """Show each picture until the time that is given with it, and the last for ever."""

    def picture(now: float) -> Rows:
        return next((rows for until, rows in pictures if now < until), pictures[-1][1])

    return picture


@pytest.mark.parametrize(
    ("stall_after", "told"), [(900.0, "15 min"), (120.0, "2 min"), (45.0, "45 s"), (10.5, "10.5 s")]
)
def test_a_document_that_stands_still_is_stalled_while_others_move(
    stall_after: float, told: str
) -> None:
    """A killed worker leaves its document in `indexing` for ever; the rest must not wait."""

    def picture(now: float) -> Rows:
        ended = int(now / stall_after * 9)
        others = [row(one, "completed" if one - 2 < ended else "waiting") for one in range(2, 32)]
        return [*reversed(others), row(1, "indexing")]

    documents = [sent(number) for number in range(1, 32)]
    results, _ = watched(picture, *documents, stall_after=stall_after)

    outcomes = {result.key: result.outcome for _, result in results}
    assert outcomes.pop("1.txt") is Outcome.STALLED
    assert set(outcomes.values()) == {Outcome.ADDED}
    (stalled,) = [(when, one) for when, one in results if one.outcome is Outcome.STALLED]
    assert stall_after < stalled[0] < 2.5 * stall_after
    assert f"no progress for {told} in status indexing" in str(stalled[1].reason)


class Pausing(Server):
    """Tells by the batch that the documents 1 and 2 are paused, as servers do."""

    async def __call__(self, call: Call[Any], /) -> Any:
        answer = await super().__call__(call)
        if isinstance(answer, DocumentStatuses) and answer.data[0].id in {"1", "2"}:
            return evolve(
                answer, data=[evolve(answer.data[0], indexing_status=IndexingStatus.PAUSED)]
            )
        return answer


@pytest.mark.parametrize(("status", "display"), [("indexing", "paused"), ("waiting", "queuing")])
def test_documents_that_somebody_paused_are_told_and_hold_nobody(status: str, display: str) -> None:
    """Lists tell it by the `display_status` at most; only the console lets them go on."""

    def picture(now: float) -> Rows:
        ended = int(now / 100)
        others = [row(one, "completed" if one - 3 < ended else "waiting") for one in range(3, 33)]
        return [*reversed(others), *(row(one, status, display_status=display) for one in (2, 1))]

    documents = [sent(number) for number in range(1, 33)]
    results, _ = watched(picture, *documents, server=Pausing)

    told = {result.key: result for _, result in results}
    paused = [told.pop("1.txt"), told.pop("2.txt")]
    assert {one.outcome for one in paused} == {Outcome.STALLED}
    assert {one.outcome for one in told.values()} == {Outcome.ADDED}
    assert max(when for when, _ in results) < 6000
    assert status == "waiting" or "in status paused" in str(paused[0].reason)


def test_a_long_document_is_not_stalled_while_its_segments_grow() -> None:
    pictures = at((5000, [row(1, "indexing")]), (0, [row(1, "completed")]))

    results, _ = watched(pictures, sent(1), segments=lambda now: int(now / 60))

    assert [result.outcome for _, result in results] == [Outcome.ADDED]


def test_nothing_moves_at_all_is_a_verdict_of_its_own() -> None:
    """A worker that is not there, or takes other queues."""
    rows = [row(number, "waiting") for number in range(30)]

    results, _ = watched(lambda _: rows, *(sent(number) for number in range(30)))

    assert {result.outcome for _, result in results} == {Outcome.STALLED}
    assert "is a worker running" in str(results[0][1].reason)
    assert results[0][0] < 2 * 900


def test_a_queue_of_others_that_drains_is_no_standstill() -> None:
    """The worker is busy with thousands of documents of somebody else, for hours."""

    def picture(now: float) -> Rows:
        done = 100 + now / 20
        others = [row(one, "completed" if one < done else "waiting") for one in range(100, 500)]
        status = "completed" if done > 500 else "waiting"
        return [row(1, status), row(2, status), *others]

    results, _ = watched(picture, sent(1), sent(2))

    assert {result.outcome for _, result in results} == {Outcome.ADDED}


@pytest.mark.parametrize(("drains", "becalmed"), [(False, 1), (True, 0)])
def test_it_is_told_in_time_when_nothing_moves(*, drains: bool, becalmed: int) -> None:
    """Before the verdict, so that new files may show whether a worker is there at all."""

    def picture(now: float) -> Rows:
        done = 100 + now / 20 if drains else 100
        others = [row(one, "completed" if one < done else "waiting") for one in range(100, 300)]
        return [row(1, "waiting"), *others]

    told: list[float] = []

    async def main() -> None:
        watcher = a_watcher(Server(picture, lambda _: 0), [], 900.0)
        watcher.becalmed = lambda: told.append(anyio.current_time())
        watcher.add(sent(1), new=True)
        with anyio.move_on_after(880):
            await watcher.run()

    run(main)
    assert len(told[:1]) == becalmed
    assert all(450 < when < 880 for when in told)


def test_a_page_from_before_the_replacement_does_not_count_as_done() -> None:
    """While a document is replaced, its old state is what an earlier page shows."""
    old = {"upload_file": {"id": "old", "size": 5}}
    stale = [row(1, "completed", data_source_detail_dict=old), row(2, "waiting")]
    now = [row(1, "error", error="no luck"), row(2, "completed")]

    results, _ = watched(at((1.0, stale), (0, now)), sent(2), sent(1))

    found = {result.key: (result.outcome, result.error) for _, result in results}
    assert found["1.txt"] == (Outcome.FAILED, "no luck")


@pytest.mark.parametrize(("size", "outcome"), [(5, Outcome.ADDED), (6, Outcome.FAILED)])
def test_another_upload_in_its_place_is_told(size: int, outcome: Outcome) -> None:
    """Of the same length it may be our own, that landed late; of another it is not ours."""
    other = row(1, "completed", data_source_detail_dict={"upload_file": {"id": "x", "size": size}})
    rows = [other, row(2, "indexing")]

    results, _ = watched(
        at((100, rows), (0, [other, row(2, "completed")])), sent(2), sent(1, batch=False)
    )

    (result,) = [result for _, result in results if result.key == "1.txt"]
    assert result.outcome is outcome
    assert "took its place" in f"{result.reason} {result.warnings}"


@pytest.mark.parametrize(("size", "outcome"), [(5, Outcome.ADDED), (6, Outcome.FAILED)])
def test_a_document_whose_batch_is_gone_is_followed_by_its_name(
    size: int, outcome: Outcome
) -> None:
    """As when a lost create of our own landed last: each create gives the document a new batch."""
    file = {"upload_file": {"id": "another", "size": size}}
    waiting = [row(1, "waiting", data_source_detail_dict=file)]
    done = [row(1, "completed", data_source_detail_dict=file)]

    results, server = watched(at((50, waiting), (0, done)), sent(1))

    ((when, result),) = results
    assert result.outcome is outcome
    assert when > 50
    assert "took its place" in f"{result.reason} {result.warnings}"
    assert [name for _, name in server.asked].count("documents.indexing_status") == 1


def test_a_document_missed_once_is_looked_for_again() -> None:
    """Rows shift while others are deleted, so one page without it proves nothing."""
    there = [row(1, "completed"), row(2, "completed")]

    results, _ = watched(at((0.6, [row(2, "waiting")]), (0, there)), sent(1), sent(2))

    assert {result.outcome for _, result in results} == {Outcome.ADDED}


def test_a_document_that_was_deleted_is_told() -> None:
    results, _ = watched(lambda _: [row(2, "waiting")], sent(1))

    assert results[0][1].outcome is Outcome.FAILED
    assert "deleted" in str(results[0][1].reason)


def test_a_document_whose_answer_was_lost_is_found_by_its_name() -> None:
    """It has no batch to ask for."""
    many = [row(number, "waiting") for number in range(3, 153)]
    done = [*many, row(2, "completed"), row(1, "completed")]
    waiting = [*many, row(2, "waiting"), row(1, "waiting")]

    results, _ = watched(at((5, waiting), (0, done)), sent(1, batch=False), sent(2))

    assert sorted(result.key for _, result in results) == ["1.txt", "2.txt"]
    assert {result.outcome for _, result in results} == {Outcome.ADDED}


@pytest.mark.parametrize("status", ["parsing", "a status of the future"])
def test_unknown_words_are_waited_through(status: str) -> None:
    pictures = at((3, [row(1, status)]), (0, [row(1, "completed")]))

    results, _ = watched(pictures, sent(1))

    assert [result.outcome for _, result in results] == [Outcome.ADDED]


@pytest.mark.parametrize("seconds", [0.1, 2.0, 60.0])
@pytest.mark.parametrize("workers", [1, 8])
@pytest.mark.parametrize("number", [100, 1000, 4000])
def test_following_costs_few_requests_and_notices_the_end(
    number: int, workers: int, seconds: float
) -> None:
    """Whatever the speed of the server; a poll of each document would cost tens a document."""
    fleet = Fleet(number, workers, seconds)

    results, server = fleet.follow()

    drained = max(fleet.ends)
    assert len(results) == number
    assert max(when for when, _ in results) - drained <= max(0.05 * drained, 5.0)
    assert len(server.asked) <= (0.25 if number <= 1000 else 0.10) * number


def test_looks_are_never_dense() -> None:
    """An idle wait must not become a poll."""
    _, server = Fleet(100, 1, 60.0).follow()

    looks = sorted({when for when, _ in server.asked})
    assert min(later - earlier for earlier, later in pairwise(looks)) >= 0.4
