"""Circuit breaker: outages, probes, dataset locks, and giving up."""

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
from load_examples import LONG
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
from dify_kb.ingest.error_classification import is_transient
from dify_kb.ingest.pacing.circuit_breaker import (
    DATASET_LOCKED,
    REQUIRED_PROBES,
    BudgetFailureKind,
    CircuitBreaker,
    FailureBudget,
)
from dify_kb.ingest.pacing.upload_failures import MIN_FAILURES
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


def make_attempt(
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
class SimulatedBreaker:
    """A circuit breaker in virtual time; `server` returns the error of a probe at a time."""

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
            self.breaker.record(make_attempt(PROBE, kind, status=None if kind else 401))
            raise error
        self.breaker.record(make_attempt(PROBE))
        return dataset_id

    def run_scenario(self, scenario: Callable[[], Awaitable[None]]) -> None:
        async def execute() -> None:
            self.breaker = CircuitBreaker(cast("Datasets", self), "dataset", self.times, Random(1))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.breaker.run)
                tasks.start_soon(self._watch)
                await checkpoint()
                await scenario()
                await checkpoint()
                tasks.cancel_scope.cancel()

        run(execute)

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
            self.breaker.record(make_attempt(endpoint, kind))

    def record_times(self, count: int, kind: FailureKind | None, endpoint: str = UPLOAD) -> None:
        for _ in range(count):
            self.record(kind, endpoint=endpoint)

    def block_uploads(self) -> None:
        """Record two upload timeouts after 60 s and a successful read."""
        for _ in range(2):
            self.breaker.record(make_attempt(UPLOAD, "timeout", seconds=60.0))
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
    simulation = SimulatedBreaker(lambda _: DOWN)

    async def scenario() -> None:
        await simulation.breaker.wait_closed()
        await simulation.breaker.wait_readable()
        await anyio.sleep(1000)

    simulation.run_scenario(scenario)

    assert simulation.probes == []
    assert simulation.breaker.cause == ""


def test_breaker_closes_after_two_successful_probes() -> None:
    errors = iter([None, DOWN, None, None])
    simulation = SimulatedBreaker(lambda _: next(errors))
    passed: list[float] = []

    async def scenario() -> None:
        simulation.breaker.trip(DOWN)
        assert simulation.breaker.cause == DOWN.summary
        await simulation.breaker.wait_closed()
        passed.append(anyio.current_time())

    simulation.run_scenario(scenario)

    assert simulation.probes == [1, 2, 4, 5]
    assert passed == [5]
    assert simulation.states == ["open", "closed"]
    assert simulation.breaker.cause == ""
    assert REQUIRED_PROBES == 2


def test_probe_interval_grows_during_an_outage() -> None:
    simulation = SimulatedBreaker(lambda now: DOWN if now < 200 else None)

    async def scenario() -> None:
        simulation.breaker.trip(DOWN)
        await simulation.breaker.wait_closed()

    simulation.run_scenario(scenario)

    gaps = [
        after - before
        for before, after in zip([0, *simulation.probes], simulation.probes, strict=False)
    ]
    assert gaps[:5] == [1, 2, 4, 8, 16]
    assert max(gaps) == TIMES.max_probe_interval
    assert simulation.states == ["open", "closed"]


def test_breaker_gives_up_once_on_a_permanent_outage() -> None:
    simulation = SimulatedBreaker(lambda _: DOWN)

    async def scenario() -> None:
        simulation.breaker.trip(DOWN)
        await simulation.breaker.wait_closed()
        simulation.breaker.trip(DOWN)
        await anyio.sleep(1000)

    simulation.run_scenario(scenario)

    assert simulation.states == ["open", "gave up: outage"]
    assert simulation.breaker.failure is not None
    assert "refused" in simulation.breaker.failure.message
    assert (
        TIMES.max_outage < simulation.probes[-1] < TIMES.max_outage + TIMES.max_probe_interval + 1
    )


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NO_KEY, StopReason.UNAUTHORIZED),
        (NotFoundError("no dataset", endpoint=PROBE, status=404), StopReason.DATASET_DELETED),
        (ProtocolError("a login page", endpoint=PROBE, status=200), StopReason.MISCONFIGURED),
        (BadRequestError("what?", endpoint=PROBE, status=400), StopReason.MISCONFIGURED),
        (ConnectError("expired", endpoint=PROBE, permanent=True), StopReason.MISCONFIGURED),
    ],
)
def test_refused_probe_gives_up_immediately(error: KnowledgeError, reason: StopReason) -> None:
    """A revoked key stays revoked."""
    simulation = SimulatedBreaker(lambda _: error)

    async def scenario() -> None:
        simulation.breaker.trip(DOWN)
        await simulation.breaker.wait_closed()

    simulation.run_scenario(scenario)

    assert simulation.states == ["open", f"gave up: {reason}"]
    assert len(simulation.probes) == 1


def test_uploads_stay_blocked_after_giving_up() -> None:
    simulation = SimulatedBreaker(lambda _: NO_KEY)

    async def scenario() -> None:
        simulation.breaker.trip(DOWN)
        await simulation.breaker.wait_closed()

    simulation.run_scenario(scenario)

    assert not simulation.breaker.is_closed
    assert not simulation.breaker.is_open
    assert "no such key" in simulation.breaker.cause


def test_tripping_an_open_breaker_changes_nothing() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        simulation.breaker.trip(DOWN)
        simulation.breaker.trip(ServerError("503", endpoint=PROBE, status=503))
        assert simulation.breaker.cause == DOWN.summary
        await simulation.breaker.wait_closed()
        await anyio.sleep(TIMES.max_probe_interval)

    simulation.run_scenario(scenario)

    assert simulation.states == ["open", "closed"]
    assert simulation.breaker.outages == 1
    assert len(simulation.probes) == REQUIRED_PROBES


def test_reopened_breaker_blocks_new_callers() -> None:
    simulation = SimulatedBreaker()
    passed: list[float] = []

    async def scenario() -> None:
        for _ in range(3):
            simulation.breaker.trip(DOWN)
            await simulation.breaker.wait_closed()
            passed.append(anyio.current_time())

    simulation.run_scenario(scenario)

    assert passed == [2, 4, 6]
    assert simulation.breaker.outages == 3


def test_waiters_keep_waiting_when_the_breaker_reopens_immediately() -> None:
    """Otherwise all of them would send requests to a failing server."""
    simulation = SimulatedBreaker()
    passed: list[float] = []

    async def first() -> None:
        await simulation.breaker.wait_closed()
        simulation.breaker.trip(DOWN)

    async def second() -> None:
        await simulation.breaker.wait_closed()
        passed.append(anyio.current_time())

    async def scenario() -> None:
        simulation.breaker.trip(DOWN)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first)
            tasks.start_soon(second)

    simulation.run_scenario(scenario)

    assert passed == [4]


# --- Attempts


@pytest.mark.parametrize("endpoint", [UPLOAD, READ, "metadata.assign"])
@pytest.mark.parametrize(
    ("kind", "count"), [("timeout", 10), ("failed", 20), ("unreachable", 20), ("overload", 40)]
)
def test_failed_attempts_of_any_call_open_the_breaker(
    endpoint: str, kind: FailureKind, count: int
) -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        simulation.record_times(count - 1, kind, endpoint)
        assert simulation.breaker.is_closed
        simulation.record(kind, endpoint=endpoint)
        assert simulation.breaker.is_open
        assert simulation.breaker.cause == kind

    simulation.run_scenario(scenario)


def test_refusals_of_single_calls_keep_the_breaker_closed() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        for _ in range(200):
            simulation.breaker.record(make_attempt(UPLOAD, status=400))
            simulation.record("quota")
            never_sent = AttemptEvent(
                endpoint=UPLOAD,
                attempt=1,
                status=None,
                seconds=0.0,
                retry_in=None,
                error="the file is gone",
            )
            simulation.breaker.record(never_sent)

    simulation.run_scenario(scenario)

    assert simulation.states == []


def test_overload_delay_grows_exponentially() -> None:
    simulation = SimulatedBreaker()
    delays: list[float] = []

    async def scenario() -> None:
        for _ in range(8):
            simulation.record("overload")
            delays.append(simulation.breaker.overload_delay())
            simulation.record(None, endpoint=READ)  # does not reset the delay of uploads
            await anyio.sleep(delays[-1])
        assert simulation.breaker.overload_delay() == 0

    simulation.run_scenario(scenario)

    assert all(0.5 <= delay <= 60 for delay in delays)
    assert max(delays[:1]) <= 2 < max(delays)


@pytest.mark.parametrize(
    ("hint", "min_delay", "max_delay"), [(30.0, 30.0, 33.0), (1e9, 300.0, 330.0)]
)
def test_retry_after_is_respected_up_to_a_maximum(
    hint: float, min_delay: float, max_delay: float
) -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        simulation.breaker.record(make_attempt(UPLOAD, "overload", retry_after=hint))
        assert min_delay <= simulation.breaker.overload_delay() <= max_delay

    simulation.run_scenario(scenario)


# --- Dataset locks


def test_upload_timeouts_with_successful_reads_block_uploads() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        await anyio.sleep(60)
        simulation.block_uploads()
        assert simulation.state == "blocked"
        assert simulation.breaker.cause == DATASET_LOCKED
        await simulation.breaker.wait_readable()
        assert anyio.current_time() == 60
        await simulation.breaker.wait_closed()
        assert anyio.current_time() == TIMES.dataset_lock_time  # from the first timeout
        assert simulation.breaker.resumed_at == TIMES.dataset_lock_time

    simulation.run_scenario(scenario)

    assert simulation.probes == []
    assert simulation.states == ["blocked", "closed"]


@pytest.mark.parametrize("stored", [True, False])
def test_successful_or_stored_upload_unblocks_uploads(stored: bool) -> None:  # noqa: FBT001
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        simulation.block_uploads()
        await anyio.sleep(7)
        if stored:
            simulation.breaker.record_stored_upload()
        else:
            simulation.record(None)
        assert simulation.breaker.is_closed
        await simulation.breaker.wait_closed()
        assert simulation.breaker.resumed_at == 7
        assert (simulation.breaker.upload_succeeded_at == 7) is not stored

    simulation.run_scenario(scenario)


def test_single_timeout_or_timeouts_without_reads_do_not_block_uploads() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        simulation.record("timeout")
        simulation.record(None, endpoint=READ)
        simulation.record(None, "timeout", "failed", "timeout")
        simulation.record(None, endpoint=READ)
        simulation.record("timeout")
        assert simulation.breaker.is_closed

    simulation.run_scenario(scenario)


def test_gateway_timeout_counts_as_a_timeout() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        for seconds in (0.1, 60.0):
            for _ in range(2):
                simulation.breaker.record(
                    make_attempt(UPLOAD, "failed", seconds=seconds, status=504)
                )
            simulation.record(None, endpoint=READ)
            assert simulation.breaker.has_blocked_uploads is (seconds == 60)

    simulation.run_scenario(scenario)


def test_recovered_server_is_not_mistaken_for_a_dataset_lock() -> None:
    """Uploads and reads timed out: the first successful probe must not block uploads."""
    simulation = SimulatedBreaker(lambda now: DOWN if now < 300 else None)

    async def scenario() -> None:
        await anyio.sleep(60)
        simulation.record("timeout", endpoint=READ)
        for _ in range(10):
            simulation.breaker.record(make_attempt(UPLOAD, "timeout", seconds=60.0))
        assert simulation.breaker.is_open
        await simulation.breaker.wait_closed()
        assert anyio.current_time() < 300 + TIMES.max_probe_interval + 2

    simulation.run_scenario(scenario)

    assert simulation.states == ["open", "closed"]


def test_permanent_dataset_lock_gives_up() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        simulation.block_uploads()
        await simulation.breaker.wait_closed()
        await anyio.sleep(60)
        simulation.block_uploads()
        await simulation.breaker.wait_closed()

    simulation.run_scenario(scenario)

    assert simulation.states == ["blocked", "closed", "gave up: outage"]


def test_second_dataset_lock_is_waited_for() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        for _ in range(3):
            simulation.block_uploads()
            await simulation.breaker.wait_closed()
            simulation.record(None)
            await anyio.sleep(1)

    simulation.run_scenario(scenario)

    assert simulation.states == ["blocked", "closed"] * 3


def test_dataset_lock_continues_after_an_outage() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        await anyio.sleep(60)
        simulation.block_uploads()
        simulation.breaker.trip(DOWN)
        assert simulation.breaker.cause == DOWN.summary
        await simulation.breaker.wait_readable()
        assert simulation.breaker.cause == DATASET_LOCKED
        await simulation.breaker.wait_closed()
        assert anyio.current_time() == TIMES.dataset_lock_time

    simulation.run_scenario(scenario)

    assert simulation.states == ["open", "blocked", "closed"]


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
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        while simulation.breaker.failure is None:
            await simulation.breaker.wait_closed()
            simulation.record(kind)
            simulation.record(None, endpoint=READ)
            await anyio.sleep(10)
        assert TIMES.max_outage < anyio.current_time() < TIMES.max_outage + 60
        await simulation.breaker.wait_closed()

    simulation.run_scenario(scenario)

    assert simulation.states[-1] == f"gave up: {reason}"


def test_persistent_429_gives_up_as_rate_limit() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        while simulation.breaker.failure is None:
            simulation.breaker.record(make_attempt(UPLOAD, "overload", status=429))
            await anyio.sleep(10)

    simulation.run_scenario(scenario)

    assert simulation.states[-1] == "gave up: rate_limit"


def test_rare_failures_do_not_give_up() -> None:
    """A load with a full backlog sends uploads rarely."""
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        for _ in range(10):
            for _ in range(MIN_FAILURES - 1):
                simulation.record("failed")
                await anyio.sleep(TIMES.max_outage)
            simulation.record(None)

    simulation.run_scenario(scenario)

    assert simulation.states == []


def test_outage_time_does_not_count_as_upload_failure_time() -> None:
    """The server recovers just before the limit, and one more upload fails."""
    simulation = SimulatedBreaker(lambda now: DOWN if now < TIMES.max_outage - 20 else None)

    async def scenario() -> None:
        simulation.record_times(20, "unreachable")
        await simulation.breaker.wait_closed()
        await anyio.sleep(50)
        simulation.record("timeout")
        assert anyio.current_time() > TIMES.max_outage
        simulation.record(None)

    simulation.run_scenario(scenario)

    assert simulation.states == ["open", "closed"]


def test_breaker_gives_up_if_only_probes_succeed() -> None:
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        while simulation.breaker.failure is None:
            await simulation.breaker.wait_closed()
            simulation.record("failed")
            await anyio.sleep(0.1)

    simulation.run_scenario(scenario)

    assert simulation.states[-1] == "gave up: outage"
    assert simulation.breaker.outages > 10


# --- Reads


@frozen
class FailingRead:
    """A read with the errors `errors`, one per attempt; the last is repeated."""

    errors: list[KnowledgeError | None]
    at: list[float] = field(factory=list)

    async def request(self) -> str:
        self.at.append(anyio.current_time())
        if error := self.errors[min(len(self.at), len(self.errors)) - 1]:
            raise error
        return "response"


def test_read_is_repeated_until_it_succeeds() -> None:
    simulation, reads = (
        SimulatedBreaker(lambda now: DOWN if now < 100 else None),
        FailingRead([DOWN, DOWN, None]),
    )

    async def scenario() -> None:
        assert await simulation.breaker.read(reads.request) == "response"

    simulation.run_scenario(scenario)

    assert reads.at[0] == 0
    assert reads.at[1] > 100
    assert simulation.breaker.outages == 2


def test_refused_read_raises_while_probes_succeed() -> None:
    refused = ForbiddenError("why?", endpoint=READ, status=403)
    simulation, reads = SimulatedBreaker(), FailingRead([refused])

    async def scenario() -> None:
        with pytest.raises(ForbiddenError):
            await simulation.breaker.read(reads.request)
        await simulation.breaker.wait_readable()

    simulation.run_scenario(scenario)

    assert reads.at == [0, 2]
    assert simulation.breaker.failure is None


def test_read_failing_for_too_long_raises() -> None:
    simulation, reads = SimulatedBreaker(), FailingRead([DOWN])

    async def scenario() -> None:
        with pytest.raises(ConnectError):
            await simulation.breaker.read(reads.request)

    simulation.run_scenario(scenario)

    assert TIMES.max_outage < reads.at[-1] < TIMES.max_outage + 3


def test_read_survives_one_failure_after_a_long_outage() -> None:
    simulation = SimulatedBreaker(lambda now: DOWN if now < TIMES.max_outage - 20 else None)
    reads = FailingRead([DOWN, DOWN, None])

    async def scenario() -> None:
        assert await simulation.breaker.read(reads.request) == "response"
        assert anyio.current_time() > TIMES.max_outage - 20

    simulation.run_scenario(scenario)


def test_read_raises_after_giving_up() -> None:
    simulation, reads = SimulatedBreaker(lambda _: NO_KEY), FailingRead([DOWN])

    async def scenario() -> None:
        with pytest.raises(ConnectError):
            await simulation.breaker.read(reads.request)

    simulation.run_scenario(scenario)

    assert simulation.states == ["open", "gave up: unauthorized"]


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


def test_one_failure_in_ten_responses_is_tolerated() -> None:
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
    simulation = SimulatedBreaker(lambda now: DOWN if now < 500 else None)

    async def scenario() -> None:
        simulation.record_times(20, "failed")
        await anyio.sleep(400)
        simulation.record(None, None, None)
        assert simulation.breaker.is_open

    simulation.run_scenario(scenario)


# --- Any order of events

SHORT = LoadTiming(
    probe_interval=1.0, max_probe_interval=8.0, max_outage=60.0, dataset_lock_time=60.0
)
FAILURE_KINDS: st.SearchStrategy[FailureKind | None] = st.sampled_from(
    [None, None, "quota", "overload", "timeout", "unreachable", "failed"]
)
EVENTS = st.one_of(
    st.tuples(
        st.just("attempts"), st.sampled_from([UPLOAD, READ]), FAILURE_KINDS, st.integers(1, 25)
    ),
    st.tuples(st.just("sleep"), st.sampled_from([0.1, 1.0, 2.5, 10.0, 40.0, 70.0])),
    st.tuples(st.just("server"), st.sampled_from(["up", "up", "down", "refusing"])),
    st.sampled_from([("trip",), ("stored",), ("wait",), ("read",), ("lock",)]),
)


@define
class History:
    """Random events and waiting tasks of a circuit breaker, with checks of its state."""

    simulation: SimulatedBreaker
    server: str = "up"
    opened_at: float | None = None
    waiting: dict[str, int] = field(factory=lambda: {"closed": 0, "readable": 0, "read": 0})

    def probe_error(self, _now: float) -> KnowledgeError | None:
        return {"up": None, "down": DOWN, "refusing": NO_KEY}[self.server]

    async def run_scenario(self, events: list[tuple[object, ...]]) -> None:
        breaker = self.simulation.breaker
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
        breaker = self.simulation.breaker
        match event:
            case ("attempts", str(endpoint), kind, int(count)):
                self.simulation.record_times(count, kind, endpoint)  # type: ignore[arg-type]
            case ("sleep", float(seconds)):
                await self._sleep(seconds)
            case ("server", str(server)):
                self.server = server
            case ("trip",):
                breaker.trip(DOWN)
            case ("stored",):
                breaker.record_stored_upload()
            case ("lock",):
                self.simulation.block_uploads()
            case ("wait",):
                start(self._wait, "closed", breaker.wait_closed)
                start(self._wait, "readable", breaker.wait_readable)
            case _:
                start(self._wait, "read", self._read)

    async def _sleep(self, seconds: float) -> None:
        """Sleep, and check the state every 0.5 s."""
        until = anyio.current_time() + seconds
        while (left := until - anyio.current_time()) > 0:
            await anyio.sleep(min(0.5, left))
            await self._settle()  # run tasks woken at the same time
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
            await self.simulation.breaker.read(self._request)
        except KnowledgeError:
            assert self.server == "refusing" or self.simulation.breaker.failure is not None

    async def _request(self) -> None:
        await anyio.sleep(0.05)
        error = self.probe_error(0.0)
        self.simulation.record("unreachable" if error is DOWN else None, endpoint=READ)
        if error is not None:
            raise error

    def _check(self) -> None:
        breaker, now = self.simulation.breaker, anyio.current_time()
        assert breaker.is_open + breaker.is_closed <= 1
        assert bool(breaker.cause) is not breaker.is_closed
        if breaker.is_open:
            self.opened_at = now if self.opened_at is None else self.opened_at
            probed = max([self.opened_at, *self.simulation.probes[-1:]])
            assert now - probed <= SHORT.max_probe_interval  # its probe is running
        else:
            self.opened_at = None
            assert self.waiting["readable"] == 0
        if breaker.is_closed or breaker.failure is not None:
            assert self.waiting["closed"] == 0
        if breaker.failure is not None:
            assert not breaker.is_open
            assert not breaker.is_closed


@settings(max_examples=400 if LONG else 30, deadline=None)
@given(events=st.lists(EVENTS, max_size=30))
def test_breaker_closes_or_gives_up_after_any_sequence_of_events(
    events: list[tuple[object, ...]],
) -> None:
    """It never stays open without a probe, and no task waits forever."""
    simulation = SimulatedBreaker(times=SHORT)
    history = History(simulation)
    simulation.server = history.probe_error

    async def scenario() -> None:
        await history.run_scenario(events)

    simulation.run_scenario(scenario)


def test_refused_upload_does_not_end_the_dataset_lock() -> None:
    """A proxy's 413 does not show that the lock was released."""
    simulation = SimulatedBreaker()

    async def scenario() -> None:
        simulation.block_uploads()
        assert simulation.breaker.has_blocked_uploads
        simulation.breaker.record(evolve(make_attempt(UPLOAD, status=413), error="413 by a proxy"))

        assert simulation.breaker.has_blocked_uploads
        assert simulation.breaker.upload_succeeded_at == -math.inf

    simulation.run_scenario(scenario)


def test_refusal_of_one_read_is_raised_and_keeps_the_breaker_closed() -> None:
    """An open breaker halves the concurrency and stops all uploads for seconds."""
    simulation = SimulatedBreaker()
    refusal = BadRequestError("400: being indexed", endpoint="documents.status", status=400)
    sent: list[float] = []

    async def request() -> None:
        sent.append(anyio.current_time())
        raise refusal

    async def scenario() -> None:
        with pytest.raises(BadRequestError):
            await simulation.breaker.read(request)

    simulation.run_scenario(scenario)

    assert len(sent) == 1
    assert simulation.states == []
