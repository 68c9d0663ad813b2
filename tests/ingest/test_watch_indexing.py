from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise, product
from typing import Any

import anyio
import pytest
from attrs import evolve
from indexing_simulation import (
    IndexingSimulation,
    Rows,
    SimulatedFollowing,
    SimulatedServer,
    Snapshots,
    follow_files,
    make_accepted_file,
    make_document,
    make_remembered_file,
)
from load_examples import LONG
from virtual_time import run

from dify_kb import LoadTiming
from dify_kb.errors import NotFoundError
from dify_kb.ingest.engine.file_states import FileState
from dify_kb.ingest.engine.tracked_file import TrackedFile
from dify_kb.ingest.error_classification import is_transient_indexing_error
from dify_kb.ingest.journal import JournalState
from dify_kb.ingest.pacing.indexing_backlog import SAMPLE_SIZE
from dify_kb.ingest.report import StopReason
from dify_kb.models import IndexingErrorCode

STATUS = "documents.indexing_status"


def at(*snapshots: tuple[float, Rows]) -> Snapshots:
    """Return the snapshots of a server: each is shown until its time, the last forever."""

    def snapshot(now: float) -> Rows:
        return next((rows for until, rows in snapshots if now < until), snapshots[-1][1])

    return snapshot


def other_file(size: int, name: str = "another") -> Mapping[str, Any]:
    """Return fields of a row with a different uploaded file."""
    return {"data_source_detail_dict": {"upload_file": {"id": name, "size": size}}}


def reasons(following: SimulatedFollowing) -> Mapping[str, str]:
    return {result.key: str(result.reason) for _, result in following.results}


# Polled rows


def test_page_older_than_the_replacement_does_not_count() -> None:
    """A page read before the replacement shows the old state."""
    stale = [make_document(1, "completed", **other_file(5, "old")), make_document(2, "waiting")]
    now = [make_document(1, "error", error="no luck"), make_document(2, "completed")]

    following = follow_files(
        SimulatedServer(at((1.0, stale), (0, now))), [make_accepted_file(2), make_accepted_file(1)]
    )

    (failed,) = [result for _, result in following.results if result.key == "1.txt"]
    assert (str(failed.outcome), failed.error) == ("failed", "no luck")


@pytest.mark.parametrize(("size", "outcome"), [(5, "added"), (6, "failed")])
def test_replacement_by_another_upload_is_reported(size: int, outcome: str) -> None:
    """With the same size it may be a late send of this load; otherwise it is not."""
    other = make_document(1, "completed", **other_file(size))
    snapshots = at(
        (100, [other, make_document(2, "indexing")]), (0, [other, make_document(2, "completed")])
    )

    following = follow_files(
        SimulatedServer(snapshots), [make_accepted_file(2), make_accepted_file(1, batch=False)]
    )

    (result,) = [result for _, result in following.results if result.key == "1.txt"]
    assert result.outcome == outcome
    assert "replaced by another upload" in f"{result.reason} {result.warnings}"


@pytest.mark.parametrize(("size", "outcome"), [(5, "added"), (6, "failed")])
def test_document_whose_batch_is_gone_is_followed_by_its_name(size: int, outcome: str) -> None:
    """A lost create that is stored late gives the document a new batch."""
    waiting = [make_document(1, "waiting", **other_file(size))]
    done = [make_document(1, "completed", **other_file(size))]

    following = follow_files(SimulatedServer(at((50, waiting), (0, done))), [make_accepted_file(1)])

    ((when, result),) = following.results
    assert result.outcome == outcome
    assert when > 50
    assert "replaced by another upload" in f"{result.reason} {result.warnings}"
    assert [name for _, name in following.server.requests].count(STATUS) == 1


def test_document_missed_once_is_requested_again() -> None:
    """Rows shift while other documents are deleted, so that one page can miss it."""
    there = [make_document(1, "completed"), make_document(2, "completed")]

    following = follow_files(
        SimulatedServer(at((0.6, [make_document(2, "waiting")]), (0, there))),
        [make_accepted_file(1), make_accepted_file(2)],
    )

    assert set(following.outcomes.values()) == {"added"}


def test_document_with_a_lost_response_is_found_by_its_name() -> None:
    """Its batch is not known."""
    others = [make_document(number, "waiting") for number in range(3, 153)]
    done = [*others, make_document(2, "completed"), make_document(1, "completed")]
    waiting = [*others, make_document(2, "waiting"), make_document(1, "waiting")]

    following = follow_files(
        SimulatedServer(at((5, waiting), (0, done))),
        [make_accepted_file(1, batch=False), make_accepted_file(2)],
    )

    assert following.outcomes == {"1.txt": "added", "2.txt": "added"}


@pytest.mark.parametrize("status", ["parsing", "a status of the future"])
def test_unknown_statuses_are_waited_for(status: str) -> None:
    snapshots = at((3, [make_document(1, status)]), (0, [make_document(1, "completed")]))

    following = follow_files(SimulatedServer(snapshots), [make_accepted_file(1)])

    assert following.outcomes == {"1.txt": "added"}


# Documents missing from the list


@pytest.mark.parametrize("batch", [True, False])
def test_deleted_document_is_reported_after_two_polls(*, batch: bool) -> None:
    """Requests of one poll count once: all of them may be cached."""
    following = follow_files(
        SimulatedServer(lambda _: [make_document(2, "waiting")]),
        [make_accepted_file(1, batch=batch)],
    )

    ((when, result),) = following.results
    assert result.outcome == "failed"
    assert "deleted" in str(result.reason)
    assert when >= LoadTiming().confirm_interval


@pytest.mark.parametrize("number", [3, 30, 1000 if LONG else 150])
@pytest.mark.parametrize("new", [True, False])
def test_documents_missing_from_a_stale_list_are_followed_by_their_batches(
    number: int, *, new: bool
) -> None:
    """A cache returns the list from before the load."""
    fleet = [*range(number)]

    def snapshot(now: float) -> Rows:
        return [
            make_document(index, "completed" if index < now * 10 else "waiting")
            for index in reversed(fleet)
        ]

    old = [make_document(index, "completed", **other_file(5, "old")) for index in reversed(fleet)]
    listed = [make_document(number + 1, "completed")] if new else old

    following = follow_files(
        SimulatedServer(snapshot, stale_snapshots=lambda _: listed),
        [make_accepted_file(index, new=new) for index in fleet],
        longest=1000.0,
    )

    assert Counter(following.outcomes.values()) == {"added" if new else "updated": number}
    assert all(when > int(result.key[:-4]) / 10 for when, result in following.results)
    assert not any(result.warnings for _, result in following.results)
    assert len(following.server.requests) < 12 * number + 100


def test_frozen_list_does_not_stop_the_run() -> None:
    """A cache always returns the documents as they were in the first second."""
    waiting = [make_document(index, "waiting") for index in reversed(range(30))]
    done = [make_document(index, "completed") for index in reversed(range(30))]

    following = follow_files(
        SimulatedServer(at((60, waiting), (0, done)), stale_snapshots=lambda _: waiting),
        [make_accepted_file(index) for index in range(30)],
        longest=3600.0,
    )

    assert set(following.outcomes.values()) == {"added"}
    assert not following.files.stopping.is_requested


@pytest.mark.parametrize("batch", [True, False])
def test_many_deleted_documents_are_reported_among_others(*, batch: bool) -> None:
    """More than one poll requests."""
    there = [make_document(index, "waiting") for index in range(1000, 1050)]
    done = [make_document(index, "completed") for index in range(1000, 1050)]

    following = follow_files(
        SimulatedServer(at((100, there), (0, done))),
        [
            *(make_accepted_file(index, batch=batch) for index in range(300)),
            *map(make_accepted_file, range(1000, 1050)),
        ],
        longest=3600.0,
    )

    assert Counter(following.outcomes.values()) == {"failed": 300, "added": 50}


def test_two_files_sharing_one_document_both_end() -> None:
    """If the database ignores case, the second create returns the first document."""
    first = make_accepted_file(1)
    first.planned = evolve(first.planned, found=evolve(first.planned.found, key="ONE.txt"))

    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "completed")]), [first, make_accepted_file(1)]
    )

    assert following.outcomes == {"ONE.txt": "failed", "1.txt": "added"}


def test_documents_missed_by_one_poll_are_reached_by_the_next() -> None:
    """Twelve documents that are never confirmed must not delay the others."""

    def snapshot(now: float) -> Rows:
        del now
        return [make_document(index, "completed") for index in reversed(range(40))]

    class UnevenServer(SimulatedServer):
        def _status(self, call: Any, rows: Rows, now: float) -> Any:
            statuses = super()._status(call, rows, now)
            number = int(statuses.data[0].id)
            counts = (1, 2) if number < 12 else (2, 2)
            entry = evolve(statuses.data[0], completed_segments=counts[0], total_segments=counts[1])
            return evolve(statuses, data=[entry])

    following = follow_files(
        UnevenServer(snapshot), [make_accepted_file(index, overlaps=True) for index in range(40)]
    )

    ends = {result.key: when for when, result in following.results}
    assert max(ends[f"{index}.txt"] for index in range(12, 40)) < 120
    assert all(following.outcomes[f"{index}.txt"] == "failed" for index in range(12))
    assert "1 of 2 segments" in reasons(following)["0.txt"]


# Documents with possibly overlapping indexing runs


@pytest.mark.parametrize(
    "listed", [None, [make_document(1, "indexing")], [make_document(2, "completed")]]
)
def test_withdrawn_final_status_is_ignored(listed: Rows | None) -> None:
    """`completed` of the first run is followed by `splitting` of the second (1.14.2: 1778-1780)."""
    done, begun = [make_document(1, "completed")], [make_document(1, "splitting")]

    def counts(now: float) -> tuple[int, int]:
        if now < 10:
            return (800, 800)
        return (12, 800) if now < 100 else (800, 800)

    server = SimulatedServer(
        at((3, done), (10, begun), (60, done), (100, begun), (0, done)),
        counts,
        stale_snapshots=(lambda _: listed) if listed is not None else None,
    )
    following = follow_files(server, [make_accepted_file(1, overlaps=True)])

    ((when, result),) = following.results
    assert result.outcome == "added"
    assert 100 + LoadTiming().confirm_interval <= when < 125


@pytest.mark.parametrize("end", ["completed", "error"])
def test_final_status_is_confirmed_without_a_batch(end: str) -> None:
    """The segments of a document found by its name are not known."""
    last = [make_document(1, end, error="no luck" if end == "error" else None)]
    snapshots = at((3, last), (40, [make_document(1, "indexing")]), (0, last))

    following = follow_files(
        SimulatedServer(snapshots), [make_accepted_file(1, batch=False, overlaps=True)]
    )

    ((when, result),) = following.results
    assert result.outcome == ("added" if end == "completed" else "failed")
    assert 40 + LoadTiming().confirm_interval <= when < 60


def test_document_without_an_overlapping_run_ends_immediately() -> None:
    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "completed")]), [make_accepted_file(1)]
    )

    assert following.results[0][0] < 1


def test_doubled_chunks_that_never_complete_fail_in_time() -> None:
    """The status stays `completed` with 1,499 of 2,999 segments (1.14.2: 2300)."""
    server = SimulatedServer(lambda _: [make_document(1, "completed")], lambda _: (1499, 2999))

    following = follow_files(server, [make_accepted_file(1, overlaps=True)])

    ((when, result),) = following.results
    assert result.outcome == "failed"
    assert "1499 of 2999 segments" in str(result.reason)
    assert when < 2 * 900
    assert following.journal.states == {"1.txt": JournalState.FAILED}
    assert not following.files.stopping.is_requested


# Documents whose indexing fails


def follow_failing_document(
    file: TrackedFile, error: str, *, swaps: bool = False
) -> SimulatedFollowing:
    return follow_files(
        SimulatedServer(lambda _: [make_document(1, "error", error=error)]), [file], swaps=swaps
    )


def test_failed_replacement_says_that_the_document_is_empty() -> None:
    following = follow_failing_document(make_accepted_file(1, new=False), "no luck")

    assert following.outcomes == {"1.txt": "failed"}
    assert reasons(following)["1.txt"] == (
        "replacing document 1 failed and left it empty: indexing failed: no luck"
    )
    assert following.journal.states == {"1.txt": JournalState.EMPTIED}


def test_failed_new_version_next_to_the_old_version_is_deleted() -> None:
    file = make_accepted_file(1, new=False)
    assert file.planned.replaces is not None
    file.planned = evolve(
        file.planned, replaces=evolve(file.planned.replaces, document_id="another")
    )

    following = follow_failing_document(file, "Connection refused", swaps=True)

    assert file.state is FileState.DISCARDING
    assert "the old version was kept" in str(file.failure)
    assert not following.results


def test_document_replaced_in_place_is_never_deleted() -> None:
    """An earlier run replaced it in place; this run uses `replace="swap"`."""
    file = make_accepted_file(1, new=False)

    following = follow_failing_document(file, "no luck", swaps=True)

    assert following.journal.states == {"1.txt": JournalState.EMPTIED}


@pytest.mark.parametrize(
    ("recreated", "swaps", "state"),
    [
        (0, False, FileState.BUSY),
        (1, False, FileState.BUSY),
        (2, False, FileState.ENDED),
        (0, True, FileState.BUSY),
    ],
)
def test_transient_indexing_error_is_retried_twice(
    recreated: int, state: FileState, *, swaps: bool
) -> None:
    file = make_accepted_file(1, recreated=recreated)

    follow_failing_document(file, "Rate limit exceeded", swaps=swaps)

    assert file.state is state
    if state is FileState.BUSY:
        assert file.planned.replaces is not None
        assert file.planned.replaces.document_id == "1"


FULL_SPACE = (
    "Vector storage is estimated to reach 503 MB after this upload, exceeding the 500 MB limit of"
    " the current plan."
)


def test_document_that_does_not_fit_into_the_plan_is_not_sent_again() -> None:
    """The sizes in the message look like HTTP statuses."""
    file = make_accepted_file(1)

    following = follow_failing_document(file, FULL_SPACE)

    assert file.state is FileState.ENDED
    assert following.outcomes == {"1.txt": "failed"}


@pytest.mark.parametrize(
    ("error", "code", "transient"),
    [
        ("Connection refused", None, True),
        ("Connection refused", IndexingErrorCode("of_a_later_version"), True),
        ("Connection refused", IndexingErrorCode.VECTOR_SPACE_ESTIMATE_EXCEEDED, False),
        (FULL_SPACE, None, False),
        ("Unable to verify vector storage usage right now. Please try again later.", None, True),
        ("broken file", None, False),
    ],
)
def test_error_code_decides_about_another_attempt(
    error: str,
    code: IndexingErrorCode | None,
    transient: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    assert is_transient_indexing_error(error, code) is transient


@pytest.mark.parametrize(
    ("status", "fields"), [("completed", {"word_count": 0}), ("error", {"error": None})]
)
def test_document_without_text_or_reason_fails(status: str, fields: Mapping[str, Any]) -> None:
    rows = [make_document(1, status, **fields), make_document(2, status, **fields)]

    following = follow_files(
        SimulatedServer(lambda _: rows, lambda _: (0, 0)),
        [make_accepted_file(1), make_accepted_file(2)],
    )

    assert set(following.outcomes.values()) == {"failed"}
    assert "None" not in reasons(following)["1.txt"]


def test_early_failures_stop_the_run_after_the_outcome_of_the_last() -> None:
    """A wrong embedding model fails every document."""
    rows = [make_document(index, "error", error="no such model") for index in reversed(range(30))]

    following = follow_files(
        SimulatedServer(lambda _: rows), [make_accepted_file(index) for index in range(30)]
    )

    assert Counter(following.outcomes.values()) == {
        "failed": SAMPLE_SIZE,
        "pending": 30 - SAMPLE_SIZE,
    }
    assert following.files.stopping.reason is StopReason.MISCONFIGURED
    assert following.files.stopping.message == "no such model."
    assert list(following.journal.states.values()).count(JournalState.FAILED) == SAMPLE_SIZE


def test_failures_of_an_earlier_run_do_not_stop_this_one() -> None:
    """The cause may have been fixed since."""
    rows = [make_document(index, "error", error="no such model") for index in reversed(range(30))]

    following = follow_files(
        SimulatedServer(lambda _: rows), (make_remembered_file(index) for index in range(30))
    )

    assert Counter(following.outcomes.values()) == {"failed": 30}
    assert not following.files.stopping.is_requested


# Cost


EVERY_SPEED = [*product([1, 8], [0.1, 2.0, 60.0])]
"""Numbers of workers, each with the mean seconds of a document."""


@pytest.mark.parametrize(
    ("number", "workers", "seconds"),
    [
        *((100, *speed) for speed in EVERY_SPEED),
        *((1000, *speed) for speed in (EVERY_SPEED if LONG else [(1, 0.1), (1, 60.0), (8, 2.0)])),
        *((4000, *speed) for speed in (EVERY_SPEED if LONG else [(8, 2.0)])),
    ],
)
def test_polling_takes_few_requests_and_detects_the_end_promptly(
    number: int, workers: int, seconds: float
) -> None:
    """For any speed of the server. Polling each document would cost tens of requests each."""
    fleet = IndexingSimulation(number, workers, seconds)

    following = fleet.follow_all()

    drained = max(fleet.ends)
    assert len(following.results) == number
    late = max(when for when, _ in following.results) - drained
    assert late <= max(0.05 * drained, 5.0)
    assert len(following.server.requests) <= (0.25 if number <= 1000 else 0.10) * number


def test_polls_keep_a_minimum_interval() -> None:
    """An idle wait must not become a busy loop."""
    server = IndexingSimulation(100, 1, 60.0).follow_all().server

    poll_times = sorted({when for when, _ in server.requests})
    assert min(later - earlier for earlier, later in pairwise(poll_times)) >= 0.4


def test_other_datasets_are_not_probed_during_progress() -> None:
    server = IndexingSimulation(1000, 8, 2.0).follow_all(900.0).server

    assert "datasets.list" not in {name for _, name in server.requests}


def test_one_lost_document_does_not_hide_the_ends_of_the_others() -> None:
    """Its page is polled first until it counts as stalled."""
    fleet = IndexingSimulation(2000, 8, 2.0)
    fleet.begins[0], fleet.ends[0] = 1e9, 1e9

    following = fleet.follow_all(900.0)

    ends = {f"{number}.txt": end for number, end in enumerate(fleet.ends)}
    delays = sorted(
        when - ends[result.key] for when, result in following.results if result.key != "0.txt"
    )
    assert following.outcomes["0.txt"] == "stalled"
    assert len(delays) == 1999
    assert delays[len(delays) * 9 // 10] < 30  # 400 if only the page of the lost document is polled
    assert len(following.server.requests) < 0.25 * 2000


# Refusals


def test_refused_poll_ends_the_watcher() -> None:
    """The dataset was deleted: its 404 does not concern a batch."""

    def refuses(now: float, name: str, path: str) -> Exception | None:
        gone = now > 10 and name != "datasets.get"
        return NotFoundError(path, endpoint=name, status=404) if gone else None

    waiting = [make_document(1, "waiting"), make_document(2, "waiting")]

    async def main() -> None:
        following = SimulatedFollowing(SimulatedServer(lambda _: waiting, error_for=refuses))
        following.add(make_accepted_file(1))
        following.add(make_accepted_file(2))
        async with anyio.create_task_group() as group:
            group.start_soon(following.breaker.run)
            with pytest.raises(NotFoundError):
                await following.watcher.run()
            group.cancel_scope.cancel()

    run(main)
