"""When requests may go out: outages, probes, the lock of a dataset, and giving up."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from random import Random
from typing import cast

import anyio
import pytest
from anyio.lowlevel import checkpoint
from attrs import define, evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual_time import run

from dify_kb import LoadTiming
from dify_kb.errors import (
    BadRequestError,
    ConnectError,
    ForbiddenError,
    KnowledgeError,
    NotFoundError,
    ProtocolError,
    RateLimitedError,
    RequestTimeoutError,
    ServerError,
    UnauthorizedError,
)
from dify_kb.ingest.error_classes import is_transient
from dify_kb.ingest.pacing.circuit_breaker import (
    DATASET_LOCKED,
    REQUIRED_PROBES,
    BudgetFailureKind,
    CircuitBreaker,
    FailureBudget,
)
from dify_kb.ingest.pacing.upload_health import MIN_FAILURES
from dify_kb.ingest.report import StopReason
from dify_kb.resources import Datasets
from dify_kb.transport import AttemptEvent
from dify_kb.transport.attempt_event import FailureKind

TIMES = LoadTiming()
PROBE = "datasets.get"
UPLOAD, READ = "documents.create_by_file", "documents.list"
DOWN = ConnectError("refused", endpoint=PROBE)
NO_KEY = UnauthorizedError("no such key", endpoint=PROBE, status=401)
STATUS: dict[FailureKind | None, int | None] = {
    None: 200, "quota": 403, "overload": 503, "timeout": None, "unreachable": None, "failed": 500,
}  # fmt: skip


def attempt(
    endpoint: str,
    kind: FailureKind | None = None,
    *,
    seconds: float = 1.0,
    status: int | None = None,
    retry_after: float | None = None,
) -> AttemptEvent:
    return AttemptEvent(
        endpoint=endpoint,
        attempt=1,
        status=status or STATUS[kind],
        seconds=seconds,
        retry_in=None,
        error=kind,
        failure_kind=kind,
        retry_after=retry_after,
    )


@define
class Scene:
    """A circuit breaker of a load from a server that answers as `server` does at a time."""

    server: Callable[[float], KnowledgeError | None] = lambda _: None
    times: LoadTiming = TIMES
    probes: list[float] = field(factory=list)
    states: list[str] = field(factory=list)
    breaker: CircuitBreaker = field(init=False)

    async def get(self, dataset_id: str, /) -> object:
        now = anyio.current_time()
        self.probes.append(now)
        if error := self.server(now):
            kind: FailureKind | None = "unreachable" if is_transient(error) else None
            self.breaker.record(attempt(PROBE, kind, status=None if kind else 401))
            raise error
        self.breaker.record(attempt(PROBE))
        return dataset_id

    def run_scenario(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def scene() -> None:
            self.breaker = CircuitBreaker(cast("Datasets", self), "dataset", self.times, Random(1))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.breaker.run)
                tasks.start_soon(self._watch)
                await checkpoint()
                await scenario()
                await checkpoint()
                tasks.cancel_scope.cancel()

        run(scene)

    async def _watch(self) -> None:
        while True:
            await self.breaker.wait_changed()
            self.states.append(self.state)

    @property
    def state(self) -> str:
        breaker = self.breaker
        if breaker.failure is not None:
            return f"gave up: {breaker.failure.reason}"
        if breaker.is_open:
            return "open"
        return "blocked" if breaker.has_blocked_uploads else "closed"

    def record(self, *kinds: FailureKind | None, endpoint: str = UPLOAD) -> None:
        for kind in kinds:
            self.breaker.record(attempt(endpoint, kind))

    def record_times(self, count: int, kind: FailureKind | None, endpoint: str = UPLOAD) -> None:
        for _ in range(count):
            self.record(kind, endpoint=endpoint)

    def block(self) -> None:
        """Have two uploads time out after 60 s while reads are answered."""
        for _ in range(2):
            self.breaker.record(attempt(UPLOAD, "timeout", seconds=60.0))
        self.record(None, endpoint=READ)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (DOWN, True),
        (RequestTimeoutError("late", endpoint=PROBE), True),
        (ServerError("503", endpoint=PROBE, status=503), True),
        (RateLimitedError("429", endpoint=PROBE, status=429), True),
        (ProtocolError("broken off", endpoint=PROBE, status=200, complete=False), True),
        (ProtocolError("a login page", endpoint=PROBE, status=200), False),
        (NO_KEY, False),
        (BadRequestError("400", endpoint=PROBE, status=400), False),
    ],
)
def test_transient_errors_are_those_of_server_or_network(
    error: KnowledgeError, *, passes: bool
) -> None:
    assert is_transient(error) is passes


# --- Probes


def test_closed_breaker_neither_waits_nor_probes() -> None:
    scene = Scene(lambda _: DOWN)

    async def scenario() -> None:
        await scene.breaker.wait_closed()
        await scene.breaker.wait_readable()
        await anyio.sleep(1000)

    scene.run_scenario(scenario)

    assert scene.probes == []
    assert scene.breaker.cause == ""


def test_breaker_closes_after_two_answered_probes() -> None:
    answers = iter([None, DOWN, None, None])
    scene = Scene(lambda _: next(answers))
    passed: list[float] = []

    async def scenario() -> None:
        scene.breaker.trip(DOWN)
        assert scene.breaker.cause == DOWN.summary
        await scene.breaker.wait_closed()
        passed.append(anyio.current_time())

    scene.run_scenario(scenario)

    assert scene.probes == [1, 2, 4, 5]
    assert passed == [5]
    assert scene.states == ["open", "closed"]
    assert scene.breaker.cause == ""
    assert REQUIRED_PROBES == 2


def test_probe_interval_grows_during_an_outage() -> None:
    scene = Scene(lambda now: DOWN if now < 200 else None)

    async def scenario() -> None:
        scene.breaker.trip(DOWN)
        await scene.breaker.wait_closed()

    scene.run_scenario(scenario)

    gaps = [after - before for before, after in zip([0, *scene.probes], scene.probes, strict=False)]
    assert gaps[:5] == [1, 2, 4, 8, 16]
    assert max(gaps) == TIMES.max_probe_interval
    assert scene.states == ["open", "closed"]


def test_breaker_gives_up_once_on_a_permanent_outage() -> None:
    scene = Scene(lambda _: DOWN)

    async def scenario() -> None:
        scene.breaker.trip(DOWN)
        await scene.breaker.wait_closed()
        scene.breaker.trip(DOWN)
        await anyio.sleep(1000)

    scene.run_scenario(scenario)

    assert scene.states == ["open", "gave up: outage"]
    assert scene.breaker.failure is not None
    assert "refused" in scene.breaker.failure.message
    assert TIMES.max_outage < scene.probes[-1] < TIMES.max_outage + TIMES.max_probe_interval + 1


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NO_KEY, StopReason.UNAUTHORIZED),
        (NotFoundError("no dataset", endpoint=PROBE, status=404), StopReason.DATASET_DELETED),
        (ProtocolError("a login page", endpoint=PROBE, status=200), StopReason.MISCONFIGURED),
        (BadRequestError("what?", endpoint=PROBE, status=400), StopReason.MISCONFIGURED),
    ],
)
def test_refused_probe_gives_up_at_once(error: KnowledgeError, reason: StopReason) -> None:
    """A key that was revoked meanwhile does not come back."""
    scene = Scene(lambda _: error)

    async def scenario() -> None:
        scene.breaker.trip(DOWN)
        await scene.breaker.wait_closed()

    scene.run_scenario(scenario)

    assert scene.states == ["open", f"gave up: {reason}"]
    assert len(scene.probes) == 1


def test_uploads_stay_blocked_after_giving_up() -> None:
    scene = Scene(lambda _: NO_KEY)

    async def scenario() -> None:
        scene.breaker.trip(DOWN)
        await scene.breaker.wait_closed()

    scene.run_scenario(scenario)

    assert not scene.breaker.is_closed
    assert not scene.breaker.is_open
    assert "no such key" in scene.breaker.cause


def test_tripping_an_open_breaker_changes_nothing() -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.breaker.trip(DOWN)
        scene.breaker.trip(ServerError("503", endpoint=PROBE, status=503))
        assert scene.breaker.cause == DOWN.summary
        await scene.breaker.wait_closed()
        await anyio.sleep(TIMES.max_probe_interval)

    scene.run_scenario(scenario)

    assert scene.states == ["open", "closed"]
    assert scene.breaker.outages == 1
    assert len(scene.probes) == REQUIRED_PROBES


def test_reopened_breaker_blocks_new_callers() -> None:
    scene = Scene()
    passed: list[float] = []

    async def scenario() -> None:
        for _ in range(3):
            scene.breaker.trip(DOWN)
            await scene.breaker.wait_closed()
            passed.append(anyio.current_time())

    scene.run_scenario(scenario)

    assert passed == [2, 4, 6]
    assert scene.breaker.outages == 3


def test_waiters_keep_waiting_when_the_breaker_reopens_at_once() -> None:
    """Those woken together would else all run into a server that is known to fail."""
    scene = Scene()
    passed: list[float] = []

    async def first() -> None:
        await scene.breaker.wait_closed()
        scene.breaker.trip(DOWN)

    async def second() -> None:
        await scene.breaker.wait_closed()
        passed.append(anyio.current_time())

    async def scenario() -> None:
        scene.breaker.trip(DOWN)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            tasks.start_soon(second)

    scene.run_scenario(scenario)

    assert passed == [4]


# --- What is recorded


@pytest.mark.parametrize("endpoint", [UPLOAD, READ, "metadata.assign"])
@pytest.mark.parametrize(
    ("kind", "count"), [("timeout", 10), ("failed", 20), ("unreachable", 20), ("overload", 40)]
)
def test_failed_attempts_of_any_call_open_the_breaker(
    endpoint: str, kind: FailureKind, count: int
) -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.record_times(count - 1, kind, endpoint)
        assert scene.breaker.is_closed
        scene.record(kind, endpoint=endpoint)
        assert scene.breaker.is_open
        assert scene.breaker.cause == kind

    scene.run_scenario(scenario)


def test_refusals_of_single_calls_keep_the_breaker_closed() -> None:
    scene = Scene()

    async def scenario() -> None:
        for _ in range(200):
            scene.breaker.record(attempt(UPLOAD, status=400))
            scene.record("quota")
            never_sent = AttemptEvent(
                endpoint=UPLOAD,
                attempt=1,
                status=None,
                seconds=0.0,
                retry_in=None,
                error="the file is gone",
            )
            scene.breaker.record(never_sent)

    scene.run_scenario(scenario)

    assert scene.states == []


def test_overload_delay_grows_exponentially() -> None:
    scene = Scene()
    delays: list[float] = []

    async def scenario() -> None:
        for _ in range(8):
            scene.record("overload")
            delays.append(scene.breaker.overload_delay())
            scene.record(None, endpoint=READ)  # says nothing of uploads
            await anyio.sleep(delays[-1])
        assert scene.breaker.overload_delay() == 0

    scene.run_scenario(scenario)

    assert all(0.5 <= delay <= 60 for delay in delays)
    assert max(delays[:1]) <= 2 < max(delays)


@pytest.mark.parametrize(("hint", "least", "most"), [(30.0, 30.0, 33.0), (1e9, 300.0, 330.0)])
def test_retry_after_is_respected_up_to_a_maximum(hint: float, least: float, most: float) -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.breaker.record(attempt(UPLOAD, "overload", retry_after=hint))
        assert least <= scene.breaker.overload_delay() <= most

    scene.run_scenario(scenario)


# --- The lock of a dataset


def test_upload_timeouts_with_answered_reads_block_uploads() -> None:
    scene = Scene()

    async def scenario() -> None:
        await anyio.sleep(60)
        scene.block()
        assert scene.state == "blocked"
        assert scene.breaker.cause == DATASET_LOCKED
        await scene.breaker.wait_readable()
        assert anyio.current_time() == 60
        await scene.breaker.wait_closed()
        assert anyio.current_time() == TIMES.dataset_lock_time  # counted from the first that waited
        assert scene.breaker.resumed_at == TIMES.dataset_lock_time

    scene.run_scenario(scenario)

    assert scene.probes == []
    assert scene.states == ["blocked", "closed"]


@pytest.mark.parametrize("landed", [True, False])
def test_answered_or_stored_upload_unblocks_uploads(landed: bool) -> None:  # noqa: FBT001
    scene = Scene()

    async def scenario() -> None:
        scene.block()
        await anyio.sleep(7)
        if landed:
            scene.breaker.record_stored_upload()
        else:
            scene.record(None)
        assert scene.breaker.is_closed
        await scene.breaker.wait_closed()
        assert scene.breaker.resumed_at == 7
        assert (scene.breaker.upload_succeeded_at == 7) is not landed

    scene.run_scenario(scenario)


def test_single_timeout_or_timeouts_without_reads_do_not_block_uploads() -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.record("timeout")
        scene.record(None, endpoint=READ)
        scene.record(None, "timeout", "failed", "timeout")
        scene.record(None, endpoint=READ)
        scene.record("timeout")
        assert scene.breaker.is_closed

    scene.run_scenario(scenario)


def test_gateway_timeout_counts_as_a_timeout() -> None:
    scene = Scene()

    async def scenario() -> None:
        for seconds in (0.1, 60.0):
            for _ in range(2):
                scene.breaker.record(attempt(UPLOAD, "failed", seconds=seconds, status=504))
            scene.record(None, endpoint=READ)
            assert scene.breaker.has_blocked_uploads is (seconds == 60)

    scene.run_scenario(scenario)


def test_recovered_server_is_not_mistaken_for_a_dataset_lock() -> None:
    """Uploads timed out, and so did reads: the first answered probe must not block uploads."""
    scene = Scene(lambda now: DOWN if now < 300 else None)

    async def scenario() -> None:
        await anyio.sleep(60)
        scene.record("timeout", endpoint=READ)
        for _ in range(10):
            scene.breaker.record(attempt(UPLOAD, "timeout", seconds=60.0))
        assert scene.breaker.is_open
        await scene.breaker.wait_closed()
        assert anyio.current_time() < 300 + TIMES.max_probe_interval + 2

    scene.run_scenario(scenario)

    assert scene.states == ["open", "closed"]


def test_permanent_dataset_lock_gives_up() -> None:
    scene = Scene()

    async def scenario() -> None:
        scene.block()
        await scene.breaker.wait_closed()
        await anyio.sleep(60)
        scene.block()
        await scene.breaker.wait_closed()

    scene.run_scenario(scenario)

    assert scene.states == ["blocked", "closed", "gave up: outage"]


def test_second_dataset_lock_is_waited_for() -> None:
    scene = Scene()

    async def scenario() -> None:
        for _ in range(3):
            scene.block()
            await scene.breaker.wait_closed()
            scene.record(None)
            await anyio.sleep(1)

    scene.run_scenario(scenario)

    assert scene.states == ["blocked", "closed"] * 3


def test_dataset_lock_continues_after_an_outage() -> None:
    scene = Scene()

    async def scenario() -> None:
        await anyio.sleep(60)
        scene.block()
        scene.breaker.trip(DOWN)
        assert scene.breaker.cause == DOWN.summary
        await scene.breaker.wait_readable()
        assert scene.breaker.cause == DATASET_LOCKED
        await scene.breaker.wait_closed()
        assert anyio.current_time() == TIMES.dataset_lock_time

    scene.run_scenario(scenario)

    assert scene.states == ["open", "blocked", "closed"]


# --- Uploads that always fail


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("quota", StopReason.RATE_LIMIT),
        ("overload", StopReason.OUTAGE),
        ("failed", StopReason.OUTAGE),
    ],
)
def test_uploads_failing_for_too_long_give_up(kind: FailureKind, reason: StopReason) -> None:
    scene = Scene()

    async def scenario() -> None:
        while scene.breaker.failure is None:
            await scene.breaker.wait_closed()
            scene.record(kind)
            scene.record(None, endpoint=READ)
            await anyio.sleep(10)
        assert TIMES.max_outage < anyio.current_time() < TIMES.max_outage + 60
        await scene.breaker.wait_closed()

    scene.run_scenario(scenario)

    assert scene.states[-1] == f"gave up: {reason}"


def test_persistent_429_gives_up_as_rate_limit() -> None:
    scene = Scene()

    async def scenario() -> None:
        while scene.breaker.failure is None:
            scene.breaker.record(attempt(UPLOAD, "overload", status=429))
            await anyio.sleep(10)

    scene.run_scenario(scenario)

    assert scene.states[-1] == "gave up: rate_limit"


def test_rare_failures_do_not_give_up() -> None:
    """A load that waits for room in its backlog sends an upload now and then."""
    scene = Scene()

    async def scenario() -> None:
        for _ in range(10):
            for _ in range(MIN_FAILURES - 1):
                scene.record("failed")
                await anyio.sleep(TIMES.max_outage)
            scene.record(None)

    scene.run_scenario(scenario)

    assert scene.states == []


def test_outage_time_does_not_count_as_upload_failure_time() -> None:
    """It came back just before the load would have stopped; one upload fails once more."""
    scene = Scene(lambda now: DOWN if now < TIMES.max_outage - 20 else None)

    async def scenario() -> None:
        scene.record_times(20, "unreachable")
        await scene.breaker.wait_closed()
        await anyio.sleep(50)
        scene.record("timeout")
        assert anyio.current_time() > TIMES.max_outage
        scene.record(None)

    scene.run_scenario(scenario)

    assert scene.states == ["open", "closed"]


def test_server_that_answers_only_probes_gives_up() -> None:
    scene = Scene()

    async def scenario() -> None:
        while scene.breaker.failure is None:
            await scene.breaker.wait_closed()
            scene.record("failed")
            await anyio.sleep(0.1)

    scene.run_scenario(scenario)

    assert scene.states[-1] == "gave up: outage"
    assert scene.breaker.outages > 10


# --- Reads


@frozen
class Reads:
    """A read that ends as `answers` says in turn."""

    answers: list[KnowledgeError | None]
    at: list[float] = field(factory=list)

    async def request(self) -> str:
        self.at.append(anyio.current_time())
        if error := self.answers[min(len(self.at), len(self.answers)) - 1]:
            raise error
        return "answer"


def test_read_is_repeated_until_answered() -> None:
    scene, reads = Scene(lambda now: DOWN if now < 100 else None), Reads([DOWN, DOWN, None])

    async def scenario() -> None:
        assert await scene.breaker.read(reads.request) == "answer"

    scene.run_scenario(scenario)

    assert reads.at[0] == 0
    assert reads.at[1] > 100
    assert scene.breaker.outages == 2


def test_refused_read_raises_when_probes_are_answered() -> None:
    refused = ForbiddenError("why?", endpoint=READ, status=403)
    scene, reads = Scene(), Reads([refused])

    async def scenario() -> None:
        with pytest.raises(ForbiddenError):
            await scene.breaker.read(reads.request)
        await scene.breaker.wait_readable()

    scene.run_scenario(scenario)

    assert reads.at == [0, 2]
    assert scene.breaker.failure is None


def test_read_failing_for_too_long_raises() -> None:
    scene, reads = Scene(), Reads([DOWN])

    async def scenario() -> None:
        with pytest.raises(ConnectError):
            await scene.breaker.read(reads.request)

    scene.run_scenario(scenario)

    assert TIMES.max_outage < reads.at[-1] < TIMES.max_outage + 3


def test_read_survives_one_failure_after_a_long_outage() -> None:
    scene = Scene(lambda now: DOWN if now < TIMES.max_outage - 20 else None)
    reads = Reads([DOWN, DOWN, None])

    async def scenario() -> None:
        assert await scene.breaker.read(reads.request) == "answer"
        assert anyio.current_time() > TIMES.max_outage - 20

    scene.run_scenario(scenario)


def test_read_raises_after_giving_up() -> None:
    scene, reads = Scene(lambda _: NO_KEY), Reads([DOWN])

    async def scenario() -> None:
        with pytest.raises(ConnectError):
            await scene.breaker.read(reads.request)

    scene.run_scenario(scenario)

    assert scene.states == ["open", "gave up: unauthorized"]


# --- The failure budget


def count_failures_until_exhausted(kind: BudgetFailureKind) -> int:
    budget, count = FailureBudget(), 0
    while not budget.is_exhausted:
        budget.add_failure(0.0, kind)
        count += 1
    return count


def test_failure_kinds_cost_different_tokens() -> None:
    assert [
        count_failures_until_exhausted(kind) for kind in ("timeout", "failed", "throttled")
    ] == [
        10,
        20,
        40,
    ]


def test_one_failure_in_ten_replies_is_tolerated() -> None:
    budget = FailureBudget()
    for number in range(1000):
        if number % 10:
            budget.add_response(0.0)
        else:
            budget.add_failure(0.0, "failed")

    assert not budget.is_exhausted


def test_one_failure_per_second_is_tolerated() -> None:
    budget = FailureBudget()
    for second in range(1000):
        budget.add_failure(float(second), "failed")

    assert not budget.is_exhausted


def test_failure_budget_is_smaller_after_an_outage() -> None:
    budget = FailureBudget()
    budget.reset_after_outage(0.0)
    for _ in range(10):
        budget.add_failure(0.0, "failed")

    assert budget.is_exhausted


def test_open_breaker_does_not_close_by_time_alone() -> None:
    scene = Scene(lambda now: DOWN if now < 500 else None)

    async def scenario() -> None:
        scene.record_times(20, "failed")
        await anyio.sleep(400)
        scene.record(None, None, None)
        assert scene.breaker.is_open

    scene.run_scenario(scenario)


# --- Any order of events

SHORT = LoadTiming(
    probe_interval=1.0, max_probe_interval=8.0, max_outage=60.0, dataset_lock_time=60.0
)
TROUBLES: st.SearchStrategy[FailureKind | None] = st.sampled_from(
    [None, None, "quota", "overload", "timeout", "unreachable", "failed"]
)
EVENTS = st.one_of(
    st.tuples(st.just("attempts"), st.sampled_from([UPLOAD, READ]), TROUBLES, st.integers(1, 25)),
    st.tuples(st.just("sleep"), st.sampled_from([0.1, 1.0, 2.5, 10.0, 40.0, 70.0])),
    st.tuples(st.just("server"), st.sampled_from(["up", "up", "down", "refusing"])),
    st.sampled_from([("trip",), ("landed",), ("wait",), ("read",), ("lock",)]),
)


@define
class History:
    """Applies events in any order to a circuit breaker that others wait on, and checks it."""

    scene: Scene
    server: str = "up"
    opened_at: float | None = None
    waiting: dict[str, int] = field(factory=lambda: {"closed": 0, "readable": 0, "read": 0})

    def answer(self, _now: float) -> KnowledgeError | None:
        return {"up": None, "down": DOWN, "refusing": NO_KEY}[self.server]

    async def run_scenario(self, events: list[tuple[object, ...]]) -> None:
        breaker = self.scene.breaker
        async with anyio.create_task_group() as tasks:
            for event in events:
                await self._apply(event, tasks.start_soon)
                await self._settle()
                self._check()
            self.server = "up" if self.server == "down" else self.server
            # At most one interval until the next probe, and the second probe after it.
            await self._sleep(SHORT.max_probe_interval + 2 * SHORT.probe_interval)
            assert not breaker.is_open
            await self._sleep(SHORT.dataset_lock_time)
            assert breaker.is_closed or breaker.failure is not None
            await self._sleep(2 * SHORT.max_outage)  # a read may still be repeated
            assert self.waiting == {"closed": 0, "readable": 0, "read": 0}

    async def _apply(self, event: tuple[object, ...], start: Callable[..., object]) -> None:
        breaker = self.scene.breaker
        match event:
            case ("attempts", str(endpoint), kind, int(count)):
                self.scene.record_times(count, kind, endpoint)  # type: ignore[arg-type]
            case ("sleep", float(seconds)):
                await self._sleep(seconds)
            case ("server", str(server)):
                self.server = server
            case ("trip",):
                breaker.trip(DOWN)
            case ("landed",):
                breaker.record_stored_upload()
            case ("lock",):
                self.scene.block()
            case ("wait",):
                start(self._wait, "closed", breaker.wait_closed)
                start(self._wait, "readable", breaker.wait_readable)
            case _:
                start(self._wait, "read", self._read)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, and check the state now and then."""
        until = anyio.current_time() + seconds
        while (left := until - anyio.current_time()) > 0:
            await anyio.sleep(min(0.5, left))
            await self._settle()  # those woken at the same moment
            self._check()

    async def _settle(self) -> None:
        for _ in range(10):
            await checkpoint()

    async def _wait(self, kind: str, wait: Callable[[], Awaitable[None]]) -> None:
        self.waiting[kind] += 1
        await wait()
        self.waiting[kind] -= 1

    async def _read(self) -> None:
        try:
            await self.scene.breaker.read(self._request)
        except KnowledgeError:
            assert self.server == "refusing" or self.scene.breaker.failure is not None

    async def _request(self) -> None:
        await anyio.sleep(0.05)
        error = self.answer(0.0)
        self.scene.record("unreachable" if error is DOWN else None, endpoint=READ)
        if error is not None:
            raise error

    def _check(self) -> None:
        breaker, now = self.scene.breaker, anyio.current_time()
        assert breaker.is_open + breaker.is_closed <= 1
        assert bool(breaker.cause) is not breaker.is_closed
        if breaker.is_open:
            self.opened_at = now if self.opened_at is None else self.opened_at
            probed = max([self.opened_at, *self.scene.probes[-1:]])
            assert now - probed <= SHORT.max_probe_interval  # its probe is running
        else:
            self.opened_at = None
            assert self.waiting["readable"] == 0
        if breaker.is_closed or breaker.failure is not None:
            assert self.waiting["closed"] == 0
        if breaker.failure is not None:
            assert not breaker.is_open
            assert not breaker.is_closed


@settings(max_examples=80, deadline=None)
@given(events=st.lists(EVENTS, max_size=30))
def test_breaker_closes_or_gives_up_after_any_sequence_of_events(
    events: list[tuple[object, ...]],
) -> None:
    """No order of events leaves it open without a probe, or anybody waiting for ever."""
    scene = Scene(times=SHORT)
    history = History(scene)
    scene.server = history.answer

    async def scenario() -> None:
        await history.run_scenario(events)

    scene.run_scenario(scenario)


def test_refused_upload_does_not_end_the_dataset_lock() -> None:
    """A proxy's 413 says nothing of what waits for the lock and lands when it ends."""
    scene = Scene()

    async def scenario() -> None:
        scene.block()
        assert scene.breaker.has_blocked_uploads
        scene.breaker.record(evolve(attempt(UPLOAD, status=413), error="413 by a proxy"))

        assert scene.breaker.has_blocked_uploads
        assert scene.breaker.upload_succeeded_at == -math.inf

    scene.run_scenario(scenario)


def test_refusal_of_one_read_is_raised_and_keeps_the_breaker_closed() -> None:
    """An open breaker halves the concurrency and stops all uploads for seconds."""
    scene = Scene()
    refusal = BadRequestError("400: being indexed", endpoint="documents.status", status=400)
    sent: list[float] = []

    async def request() -> None:
        sent.append(anyio.current_time())
        raise refusal

    async def scenario() -> None:
        with pytest.raises(BadRequestError):
            await scene.breaker.read(request)

    scene.run_scenario(scenario)

    assert len(sent) == 1
    assert scene.states == []
