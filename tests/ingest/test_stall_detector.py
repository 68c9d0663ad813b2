from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pytest
from attrs import evolve
from indexing_simulation import (
    Rows,
    SimulatedFollowing,
    SimulatedServer,
    follow_files,
    make_accepted_file,
    make_document,
    make_remembered_file,
)
from virtual_time import run

from dify_kb.errors import ConnectError, NotFoundError, UnauthorizedError
from dify_kb.ingest.engine.stall_detector import LOST_BY_WORKER, format_duration
from dify_kb.ingest.engine.tracked_file import TrackedFile
from dify_kb.ingest.journal import JournalState
from dify_kb.ingest.report import StopReason
from dify_kb.models import DocumentStatuses, IndexingStatus
from dify_kb.transport import AttemptEvent
from dify_kb.wire import catalog
from dify_kb.wire.endpoint import Call

PATIENCE = 900.0
RECENT = 120.0

OTHER = "00000000-0000-4000-8000-000000000010"
LAST_DATASET = "00000000-0000-4000-8000-000000000020"

CREATE = catalog.CREATE_DOCUMENT_BY_FILE.name


def reason(following: SimulatedFollowing, key: str = "1.txt") -> str:
    (result,) = [result for _, result in following.results if result.key == key]
    return str(result.reason)


def end_of(following: SimulatedFollowing, key: str = "1.txt") -> float:
    (when,) = [when for when, result in following.results if result.key == key]
    return when


# Lost documents


@pytest.mark.parametrize("status", ["waiting", "indexing"])
@pytest.mark.parametrize(
    ("stall_after", "text"), [(900.0, "15 min"), (120.0, "2 min"), (45.0, "45 s"), (10.5, "10.5 s")]
)
def test_document_without_progress_stalls_while_others_are_indexed(
    stall_after: float, text: str, status: str
) -> None:
    """A killed worker never finishes its document; the other documents must not wait."""

    def snapshot(now: float) -> Rows:
        ended = int(now / stall_after * 9)
        others = [
            make_document(index, "completed" if index - 2 < ended else "waiting")
            for index in range(2, 32)
        ]
        return [*reversed(others), make_document(1, status)]

    files = [make_accepted_file(number, at=number / 10) for number in range(1, 32)]
    following = follow_files(SimulatedServer(snapshot), files, stall_after=stall_after)

    assert Counter(following.outcomes.values()) == {"added": 30, "stalled": 1}
    assert stall_after < end_of(following) < 2.5 * stall_after
    assert reason(following).startswith(
        f"{LOST_BY_WORKER}: no progress for {text} (status {status!r}) while "
    )
    assert "others were indexed" in reason(following)
    assert following.journal.states["1.txt"] is JournalState.STALLED
    assert not following.files.stopping.is_requested


def test_queued_document_never_stalls() -> None:
    """A queue of 100 documents that take 15 minutes each."""

    def snapshot(now: float) -> Rows:
        begun = now / 900
        return [
            make_document(
                index,
                "completed" if index < begun - 1 else "indexing" if index < begun else "waiting",
            )
            for index in reversed(range(100))
        ]

    files = [make_accepted_file(number, at=number / 10) for number in range(100)]
    following = follow_files(SimulatedServer(snapshot, lambda now: (int(now / 60), 99)), files)

    assert set(following.outcomes.values()) == {"added"}


@pytest.mark.parametrize(
    "make", [make_accepted_file, make_remembered_file], ids=["new", "remembered"]
)
def test_document_with_growing_segments_does_not_stall(
    make: Callable[[int], TrackedFile],
) -> None:
    def snapshot(now: float) -> Rows:
        return [make_document(1, "indexing" if now < 5000 else "completed")]

    following = follow_files(
        SimulatedServer(snapshot, lambda now: (int(now / 60), 99)), (make(index) for index in [1])
    )

    assert following.outcomes == {"1.txt": "added"}


def test_segments_of_many_begun_documents_are_counted_in_turns() -> None:
    """More documents than one poll requests: none may stall without a second count."""

    def snapshot(now: float) -> Rows:
        return [
            make_document(index, "indexing" if now < 4000 else "completed")
            for index in reversed(range(200))
        ]

    files = [make_accepted_file(number) for number in range(200)]
    following = follow_files(SimulatedServer(snapshot, lambda now: (int(now / 60), 999)), files)

    assert set(following.outcomes.values()) == {"added"}


@pytest.mark.parametrize("number", [12, 600])
def test_many_lost_documents_end_within_hours(number: int) -> None:
    """A restart of the broker loses the whole queue; later documents are indexed."""

    lost = [make_document(index, "waiting") for index in reversed(range(number))]
    rows = [make_document(number, "completed"), *lost]

    files = [make_accepted_file(index, at=index / 100) for index in range(number + 1)]
    following = follow_files(SimulatedServer(lambda _: rows), files, longest=4 * 3600)

    assert Counter(following.outcomes.values()) == {"added": 1, "stalled": number}
    assert not following.files.stopping.is_requested
    assert len(following.server.requests) < 3 * number + 300


# Busy workers


def elsewhere(done: Callable[[float], float], *, created: float = -1000.0) -> Any:
    """Return another dataset whose documents are indexed in order; `created` is its oldest time."""

    def snapshot(now: float) -> Rows:
        return [
            make_document(
                index, "completed" if index < done(now) else "waiting", created=created + index
            )
            for index in reversed(range(400))
        ]

    return {OTHER: snapshot}


def kinds(kind: str) -> Iterable[TrackedFile]:
    """Yield a file with a document of the given kind."""
    yield {
        "new": lambda: make_accepted_file(1),
        "replaced": lambda: make_accepted_file(1, new=False),
        "found by name": lambda: make_accepted_file(1, batch=False),
        "remembered": lambda: make_remembered_file(1),
        "stalled before": lambda: make_remembered_file(1, JournalState.STALLED),
    }[kind]()


KINDS = ["new", "replaced", "found by name", "remembered", "stalled before"]


@pytest.mark.parametrize("kind", KINDS)
def test_document_waits_while_the_worker_is_busy_with_another_dataset(kind: str) -> None:
    """For hours, because the other documents were queued earlier."""

    def snapshot(now: float) -> Rows:
        return [make_document(1, "waiting" if now < 20_000 else "completed")]

    others = elsewhere(lambda now: now / 50, created=-5000.0)
    following = follow_files(SimulatedServer(snapshot, others=others), kinds(kind))

    assert set(following.outcomes.values()) <= {"added", "updated"}
    assert 20_000 <= end_of(following) < 22_000


@pytest.mark.parametrize("kind", KINDS)
def test_document_is_lost_if_a_later_document_of_another_dataset_is_indexed(kind: str) -> None:
    """Another dataset adds documents continuously, and they are indexed immediately."""

    def other(now: float) -> Rows:
        count = int(now / 30)
        return [
            make_document(index, "completed", created=30.0 * index)
            for index in range(count, max(0, count - 200), -1)
        ]

    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "waiting")], others={OTHER: other}),
        kinds(kind),
        longest=10_000.0,
    )

    assert following.outcomes == {"1.txt": "stalled"}
    assert reason(following).startswith(f"{LOST_BY_WORKER}: no progress for ")
    assert reason(following).endswith(" while others were indexed")
    assert not following.files.stopping.is_requested


@pytest.mark.parametrize("kind", KINDS)
def test_load_ends_despite_endless_progress_of_other_datasets(kind: str) -> None:
    """Another dataset replaces the same old documents continuously, so that none is later."""

    def other(now: float) -> Rows:
        done = int(now / 77) % 50
        return [
            make_document(index, "completed" if index < done else "waiting", created=-9e6)
            for index in range(50)
        ]

    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "waiting")], others={OTHER: other}), kinds(kind)
    )

    assert following.outcomes == {"1.txt": "stalled"}
    assert end_of(following) < 100 * PATIENCE
    assert reason(following) == (
        "no progress for 24 h (status 'waiting') while documents of other datasets were indexed"
    )


def test_later_documents_of_other_datasets_do_not_count_during_own_progress() -> None:
    """Pipelines and other tenants have separate queues."""

    def snapshot(now: float) -> Rows:
        done = (now - 1000) / 100
        return [
            make_document(index, "completed" if index < done else "waiting")
            for index in reversed(range(100))
        ]

    def other(now: float) -> Rows:
        later = [make_document(900, "completed", created=500)] if now > 1010 else []
        return [
            *later,
            *(make_document(index, "completed", created=-9e6) for index in range(int(now / 40))),
        ]

    files = [make_accepted_file(number, at=number / 10) for number in range(100)]
    following = follow_files(SimulatedServer(snapshot, others={OTHER: other}), files)

    assert set(following.outcomes.values()) == {"added"}


def test_edited_chunks_of_other_datasets_are_not_progress() -> None:
    """A bot edits another dataset every minute; no worker is running."""

    def other(now: float) -> Rows:
        return [make_document(5, "completed", word_count=int(now / 60), created=-9e6)]

    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "waiting")], others={OTHER: other}),
        [make_accepted_file(1)],
    )

    assert following.files.stopping.reason is StopReason.NOT_INDEXING
    assert end_of(following) < 2 * PATIENCE


def test_documents_that_fail_elsewhere_show_that_the_worker_is_busy() -> None:
    """None becomes available, but the queue becomes shorter."""

    def other(now: float) -> Rows:
        done = now / 60
        failed = [
            make_document(index, "error" if index < done else "waiting", created=-9e6)
            for index in range(300)
        ]
        return [make_document(999, "completed", word_count=int(now / 60), created=-9e6), *failed]

    def snapshot(now: float) -> Rows:
        return [make_document(1, "waiting" if now < 15_000 else "completed")]

    following = follow_files(
        SimulatedServer(snapshot, others={OTHER: other}), [make_accepted_file(1)]
    )

    assert following.outcomes == {"1.txt": "added"}


def test_shrinking_queue_is_progress() -> None:
    """The worker is busy with other documents of the dataset for hours."""

    def snapshot(now: float) -> Rows:
        done = 100 + now / 20
        others = [
            make_document(index, "completed" if index < done else "waiting")
            for index in range(100, 500)
        ]
        status = "completed" if done > 500 else "waiting"
        return [make_document(1, status), make_document(2, status), *others]

    following = follow_files(
        SimulatedServer(snapshot), [make_accepted_file(1), make_accepted_file(2)]
    )

    assert set(following.outcomes.values()) == {"added"}


@pytest.mark.parametrize(
    "error",
    [
        NotFoundError("deleted", endpoint="documents.list", status=404),
        UnauthorizedError("API access is not enabled", endpoint="documents.list", status=401),
    ],
)
@pytest.mark.parametrize("where", [OTHER, "datasets.list"])
def test_refusal_of_another_dataset_does_not_end_the_load(error: Exception, where: str) -> None:
    """It may have been deleted, its API disabled, or the plugin daemon may be down."""
    refusal_times: list[float] = []

    def refuses(now: float, name: str, path: str) -> Exception | None:
        if name != where and f"/{where}/" not in path:
            return None
        refusal_times.append(now)
        return error

    def snapshot(now: float) -> Rows:
        return [make_document(1, "waiting" if now < 800 else "completed")]

    others = elsewhere(lambda now: now / 10)
    following = follow_files(
        SimulatedServer(snapshot, others=others, error_for=refuses), [make_accepted_file(1)]
    )

    assert refusal_times
    assert following.outcomes == {"1.txt": "added"}


def test_other_datasets_are_probed_in_turns() -> None:
    """Only the last of ten datasets has a later document."""

    def busy(now: float) -> Rows:
        done = int(now / 77) % 50
        return [
            make_document(index, "completed" if index < done else "waiting", created=-9e6)
            for index in range(50)
        ]

    def last_dataset(now: float) -> Rows:
        return [
            make_document(index, "completed", created=30.0 * index)
            for index in range(int(now / 30), 0, -1)
        ]

    others = {**{f"{OTHER[:-1]}{index}": busy for index in range(9)}, LAST_DATASET: last_dataset}
    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "waiting")], others=others),
        [make_accepted_file(1)],
        longest=20_000.0,
    )

    assert reason(following).startswith(LOST_BY_WORKER)


# A server that does not index


@pytest.mark.parametrize("number", [1, 30])
def test_server_that_indexes_nothing_stops_the_run(number: int) -> None:
    """The worker is not running, or consumes other queues."""
    rows = [make_document(index, "waiting") for index in range(number)]

    following = follow_files(
        SimulatedServer(lambda _: rows), [make_accepted_file(index) for index in range(number)]
    )

    assert set(following.outcomes.values()) == {"stalled"}
    assert set(following.journal.states.values()) == {JournalState.STALLED}
    assert following.files.stopping.reason is StopReason.NOT_INDEXING
    assert following.files.stopping.message == (
        "No document of any dataset made progress for 15 min: check that the server's Celery worker"
        " is running and consumes the queues `dataset` and `priority_dataset`."
    )
    assert "no document of any dataset made progress; check that" in reason(following, "0.txt")
    assert PATIENCE < following.results[0][0] < 1.5 * PATIENCE


@pytest.mark.parametrize(("indexed", "text"), [(1, "1 document was"), (3, "3 documents were")])
def test_server_that_stops_indexing_stops_the_run(indexed: int, text: str) -> None:
    """The remaining documents are not lost: their tasks are queued."""

    def snapshot(now: float) -> Rows:
        done = min(now / 10, indexed)
        return [
            make_document(index, "completed" if index < done else "waiting")
            for index in reversed(range(9))
        ]

    files = [make_accepted_file(number, at=number / 10) for number in range(9)]
    following = follow_files(SimulatedServer(snapshot), files)

    assert Counter(following.outcomes.values()) == {"added": indexed, "stalled": 9 - indexed}
    assert following.files.stopping.reason is StopReason.NOT_INDEXING
    message = str(following.files.stopping.message)
    assert message.startswith(f"Indexing stopped: {text} indexed, the last one 1")
    assert " min ago, and no document of any dataset has made progress since: check " in message
    assert LOST_BY_WORKER not in reason(following, "8.txt")


def test_documents_started_by_a_killed_worker_stop_the_run() -> None:
    rows = [make_document(2, "waiting"), make_document(1, "indexing")]

    following = follow_files(
        SimulatedServer(lambda _: rows), [make_accepted_file(1), make_accepted_file(2)]
    )

    assert set(following.outcomes.values()) == {"stalled"}
    assert following.files.stopping.reason is StopReason.NOT_INDEXING


def test_uploads_are_not_indexing_progress() -> None:
    """A slow source continues while no worker is running."""

    async def during_run(following: SimulatedFollowing) -> None:
        for number in range(2, 200):
            await anyio.sleep(30)
            if following.files.stopping.is_requested:
                return
            following.add(make_accepted_file(number, at=anyio.current_time()))

    def snapshot(now: float) -> Rows:
        return [make_document(index, "waiting") for index in range(int(now / 30) + 1, 0, -1)]

    following = follow_files(
        SimulatedServer(snapshot), [make_accepted_file(1)], in_parallel=during_run
    )

    assert following.files.stopping.reason is StopReason.NOT_INDEXING
    assert end_of(following) < 2.5 * PATIENCE


def test_recently_sent_document_delays_the_stop() -> None:
    """The API was killed before queuing the first; the second is sent 15 minutes later."""

    async def during_run(following: SimulatedFollowing) -> None:
        await anyio.sleep(PATIENCE - 1)
        following.add(make_accepted_file(2, at=anyio.current_time()))

    def snapshot(now: float) -> Rows:
        second = [make_document(2, "waiting" if now < PATIENCE + 20 else "completed")]
        return [*(second if now >= PATIENCE - 1 else []), make_document(1, "waiting")]

    following = follow_files(
        SimulatedServer(snapshot), [make_accepted_file(1)], in_parallel=during_run
    )

    assert following.outcomes == {"1.txt": "stalled", "2.txt": "added"}
    assert reason(following).startswith(LOST_BY_WORKER)
    assert not following.files.stopping.is_requested


@pytest.mark.parametrize("elapsed", [0.0, 100_000.0])
def test_no_stall_before_other_datasets_were_compared(elapsed: float) -> None:
    """Also after a day, when polls have become rare."""

    def snapshot(now: float) -> Rows:
        return [make_document(1, "waiting" if now < 5000 else "completed")]

    others = elsewhere(lambda now: now / 600, created=-9e6)

    async def main() -> SimulatedFollowing:
        following = SimulatedFollowing(SimulatedServer(snapshot, others=others))
        following.add(make_accepted_file(1))
        following.files.followed.began = -elapsed
        await following.run_until_finished()
        return following

    assert run(main).outcomes == {"1.txt": "added"}


@pytest.mark.parametrize(("moves", "forgotten"), [(True, False), (False, True)])
def test_documents_of_earlier_runs_count_in_the_backlog_only_during_progress(
    *, moves: bool, forgotten: bool
) -> None:
    """They must not hold back new files, which show whether a worker is running."""
    others = elsewhere(lambda now: now / 20 if moves else 5.0, created=-9e6)

    async def main() -> SimulatedFollowing:
        following = SimulatedFollowing(
            SimulatedServer(lambda _: [make_document(1, "waiting")], others=others)
        )
        following.add(make_accepted_file(1))
        with anyio.move_on_after(880):
            await following.watcher.run()
        return following

    assert run(main).files.backlog._ignores_earlier_runs is forgotten


# Documents that stalled in an earlier run


@pytest.mark.parametrize("status", ["waiting", "indexing"])
@pytest.mark.parametrize("number", [1, 3, 500])
def test_previously_stalled_documents_are_checked_again(number: int, status: str) -> None:
    """Without progress they stall again soon, and the run continues."""
    rows = [make_document(index, status) for index in reversed(range(number))]

    following = follow_files(
        SimulatedServer(lambda _: rows),
        (make_remembered_file(index, JournalState.STALLED) for index in range(number)),
    )

    assert set(following.outcomes.values()) == {"stalled"}
    assert set(following.journal.states.values()) == {JournalState.STALLED}
    assert not following.files.stopping.is_requested
    assert max(when for when, _ in following.results) < 1.5 * RECENT + number
    assert f"no progress for 2 min (status {status!r})" in reason(following, "0.txt")


def test_previously_stalled_documents_end_before_queued_ones() -> None:
    """Documents of this run have 15 minutes."""
    rows = [make_document(2, "waiting"), make_document(1, "waiting")]

    def files() -> Iterable[TrackedFile]:
        yield make_remembered_file(1, JournalState.STALLED)
        yield make_accepted_file(2)

    following = follow_files(SimulatedServer(lambda _: rows), files())

    assert following.outcomes == {"1.txt": "stalled", "2.txt": "stalled"}
    assert end_of(following) < 1.5 * RECENT
    assert end_of(following, "2.txt") > PATIENCE
    assert following.files.stopping.reason is StopReason.NOT_INDEXING


@pytest.mark.parametrize("segments", [True, False])
def test_previously_stalled_documents_with_progress_succeed(*, segments: bool) -> None:
    """The worker is running again, but slow."""

    def snapshot(now: float) -> Rows:
        if now >= 1000:
            return [make_document(1, "completed")]
        step = ["waiting", "parsing", "splitting", "indexing"][
            0 if segments else int(now / 100) % 4
        ]
        return [make_document(1, "indexing" if segments else step)]

    server = SimulatedServer(
        snapshot
        if segments
        else lambda now: [make_document(1, "waiting" if now < 100 else "completed")],
        lambda now: (int(now / 40), 99),
    )
    following = follow_files(
        server, (make_remembered_file(index, JournalState.STALLED) for index in [1])
    )

    assert following.outcomes == {"1.txt": "added"}


# Outages


def timeout() -> AttemptEvent:
    return AttemptEvent(
        endpoint=CREATE,
        attempt=1,
        status=None,
        seconds=30.0,
        retry_in=None,
        error="timeout",
        failure_kind="timeout",
    )


@pytest.mark.parametrize("status", ["waiting", "indexing"])
@pytest.mark.parametrize(
    ("stall_after", "period", "outages"), [(5.0, 10_000, 1), (30.0, 10_000, 1), (200.0, 300, 7)]
)
def test_no_document_stalls_during_an_outage(
    stall_after: float, period: float, outages: int, status: str
) -> None:
    """For any `stall_after`: the timers restart after the outage."""
    until = 400 if outages == 1 else 2000

    def refuses(now: float, name: str, path: str) -> Exception | None:
        away = 3 < now % period < min(period - 100, until) and now < until
        return ConnectError(path, endpoint=name) if away else None

    def snapshot(now: float) -> Rows:
        now_status = status if now < until else "completed"
        return [make_document(1, now_status), make_document(2, now_status)]

    following = follow_files(
        SimulatedServer(snapshot, error_for=refuses),
        [make_accepted_file(1), make_accepted_file(2)],
        stall_after=stall_after,
    )

    assert following.breaker.outages >= outages
    assert set(following.outcomes.values()) == {"added"}


def test_no_document_stalls_while_uploads_are_blocked() -> None:
    """Dify keeps a dataset lock for 10 minutes after a crash."""

    async def during_run(following: SimulatedFollowing) -> None:
        await anyio.sleep(1)
        for _ in range(2):
            following.breaker.record(timeout())
        following.breaker.record(
            evolve(timeout(), endpoint="documents.list", status=200, error=None, failure_kind=None)
        )
        assert following.breaker.has_blocked_uploads
        blocked.append(anyio.current_time())

    blocked: list[float] = []
    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "waiting")]),
        [make_accepted_file(1)],
        stall_after=60.0,
        in_parallel=during_run,
    )

    assert blocked
    assert end_of(following) > following.breaker.resumed_at + 60
    assert following.breaker.resumed_at > 500
    assert following.files.stopping.reason is StopReason.NOT_INDEXING


def test_outage_between_polls_restarts_the_stall_timers() -> None:
    """No poll failed, but other requests did."""

    async def during_run(following: SimulatedFollowing) -> None:
        await anyio.sleep(700)
        following.breaker.trip("other requests failed")

    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "waiting")]),
        [make_accepted_file(1)],
        in_parallel=during_run,
    )

    assert end_of(following) > 700 + PATIENCE


def test_outage_during_stall_detection_restarts_the_stall_timers() -> None:
    """The probe of other datasets fails and is repeated after the outage."""

    def refuses(now: float, name: str, path: str) -> Exception | None:
        away = 600 < now < 1100 and name in {"datasets.list", "datasets.get"}
        return ConnectError(path, endpoint=name) if away else None

    following = follow_files(
        SimulatedServer(lambda _: [make_document(1, "waiting")], error_for=refuses),
        [make_accepted_file(1)],
    )

    assert following.breaker.outages == 1
    assert end_of(following) > 1100 + PATIENCE


# Paused documents


class PausingServer(SimulatedServer):
    """A server that reports the documents 1 and 2 as paused, in batch statuses only."""

    async def __call__(self, call: Call[Any], /) -> Any:
        response = await super().__call__(call)
        if isinstance(response, DocumentStatuses) and response.data[0].id in {"1", "2"}:
            return evolve(
                response, data=[evolve(response.data[0], indexing_status=IndexingStatus.PAUSED)]
            )
        return response


@pytest.mark.parametrize(("status", "display"), [("indexing", "paused"), ("waiting", "queuing")])
def test_paused_documents_are_reported_and_do_not_block_others(status: str, display: str) -> None:
    """Lists show it only in `display_status`; only the console can resume indexing."""

    def snapshot(now: float) -> Rows:
        ended = int(now / 100)
        others = [
            make_document(index, "completed" if index - 3 < ended else "waiting")
            for index in range(3, 33)
        ]
        return [
            *reversed(others),
            *(make_document(index, status, display_status=display) for index in (2, 1)),
        ]

    files = [make_accepted_file(number, at=number / 10) for number in range(1, 33)]
    following = follow_files(PausingServer(snapshot), files)

    assert following.outcomes.pop("1.txt") == "stalled"
    assert Counter(following.outcomes.values()) == {"stalled": 2, "added": 30}
    assert max(when for when, _ in following.results) < 6000
    assert "no progress for 15 min (status 'paused'): resume indexing" in reason(following)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.3, "0.3 s"), (119, "119 s"), (900, "15 min"), (9000, "2.5 h"), (math.inf, "inf h")],
)
def test_durations_are_formatted_with_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_other_datasets_are_probed_rarely() -> None:
    """A probe costs a request for each 100 datasets, and more."""
    server = SimulatedServer(lambda _: [make_document(1, "waiting")])

    follow_files(server, [make_accepted_file(1)])

    assert 2 <= Counter(name for _, name in server.requests)["datasets.list"] < 10
