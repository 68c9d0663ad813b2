"""Loads with random faults in virtual time.

Unit tests cannot show that a load never hangs between two of its parts. These tests run the real
parts together; only the session is simulated (`virtual_dify`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from load_examples import LONG
from virtual_dify import (
    CREATE,
    LIST,
    PROBE,
    STATUS,
    Mode,
    VirtualDify,
    VirtualLoad,
    phases,
)

from dify_kb import LoadReport, StopReason
from dify_kb.ingest.error_classification import SAME_PAGES, SAME_REFUSALS

FILES: Final = 30

PASSING: Final[Sequence[Mode]] = (
    "ok", "500", "502", "503", "429", "reset", "lost", "refused", "hang", "hang-lost",
)  # fmt: skip
READING: Final[Sequence[Mode]] = ("ok", "500", "502", "503", "429", "reset", "refused", "hang")

LATEST: Final = 1500.0
"""Seconds after the last fault within which a load has ended: a dataset lock may last for 600 s,
and a lost create may be stored for 120 s more."""


def count_results(report: LoadReport) -> int:
    """Return the sum of all outcomes."""
    return sum(
        getattr(report, name)
        for name in (
            "added", "updated", "unchanged", "skipped", "failed", "stalled", "unknown", "pending",
        )
    )  # fmt: skip


def load_again(load: VirtualLoad, server: VirtualDify) -> LoadReport:
    """Load again with the same journal, without faults."""
    server.fault_schedule = phases()
    return VirtualLoad(server, load.files, options=load.options, connection=load.connection)()


@st.composite
def draw_phases(draw: st.DrawFn) -> list[tuple[float, Mapping[str, Sequence[Mode]]]]:
    """Draw phases: their end, and the modes of the calls of each endpoint."""
    drawn, until = list[tuple[float, Mapping[str, Sequence[Mode]]]](), 0.0
    for _ in range(draw(st.integers(1, 4))):
        until += draw(st.sampled_from([0.2, 1.0, 3.0, 10.0, 60.0]))
        creates = draw(st.lists(st.sampled_from(PASSING), min_size=1, max_size=4))
        reads = st.lists(st.sampled_from(READING), min_size=1, max_size=4)
        modes = {CREATE: creates, LIST: draw(reads), STATUS: draw(reads), PROBE: draw(reads)}
        drawn.append((until, modes))
    return drawn


@pytest.mark.timeout(900 if LONG else 120)
@settings(
    max_examples=1500 if LONG else 25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(draw_phases(), st.integers(0, 1000), st.sampled_from([0.3, 1.0, 20.0]))
def test_random_faults_lose_or_duplicate_no_file(
    fault_phases: list[tuple[float, Mapping[str, Sequence[Mode]]]], seed: int, indexing: float
) -> None:
    """A load finishes or stops with a reason; the next load finishes the remaining files."""
    server = VirtualDify(phases(*fault_phases, seed=seed), indexing=indexing)
    load = VirtualLoad(server, FILES, seed=seed)

    report = load(fault_phases[-1][0] + LATEST)

    assert count_results(report) == report.found == FILES
    assert report.stopped is not None or report.added + report.failed == FILES, report
    assert not any(document.overlapped for document in server.documents)
    again = load_again(load, server)
    unfinished = again.failed + again.stalled + again.unknown + again.pending
    assert unfinished == 0
    assert len({document.name for document in server.documents}) == len(server.documents)
    assert len(server.documents) == FILES - unfinished


@pytest.mark.parametrize("seed", range(40 if LONG else 10))
def test_temporary_faults_of_creates_and_reads_lose_no_file(seed: int) -> None:
    """60 % of all calls fail for 10 s, then none."""
    modes: Sequence[Mode] = ("500", "502", "503", "ok", "ok")
    server = VirtualDify(phases((10.0, {"": modes}), seed=seed))

    report = VirtualLoad(server, 60, seed=seed)()

    assert (report.added, report.stopped) == (60, None)
    assert report.seconds < 10 + 120 + 30, "a create with a 502 may be stored for 120 s"


@pytest.mark.parametrize("reads", range(12))
def test_breaker_recovers_if_reads_succeed_after_retries(reads: int) -> None:
    """Failed creates open the breaker while reads fail and recover."""
    failing: Mapping[str, list[Mode]] = {CREATE: ["500"] * 19, LIST: ["502"] * reads}

    def fault_schedule(_: float, endpoint: str) -> Mode:
        remaining = failing.get(endpoint)
        return remaining.pop() if remaining else "ok"

    report = VirtualLoad(VirtualDify(fault_schedule), 19, options={})(1000)

    assert (report.added, report.stopped) == (19, None)


@pytest.mark.parametrize(
    ("mode", "max_sends", "reason"),
    [
        ("400", SAME_REFUSALS, StopReason.MISCONFIGURED),
        ("403-html", SAME_REFUSALS, StopReason.MISCONFIGURED),
        ("redirect", SAME_PAGES, StopReason.MISCONFIGURED),
        ("login-page", SAME_PAGES, StopReason.MISCONFIGURED),
        ("401", SAME_REFUSALS, StopReason.UNAUTHORIZED),
    ],
)
def test_refusal_of_every_upload_stops_the_run_and_fails_no_file(
    mode: Mode, max_sends: int, reason: StopReason
) -> None:
    """Otherwise all files would be sent and marked as failed permanently."""
    server = VirtualDify(lambda _, endpoint: mode if endpoint == CREATE else "ok")
    load = VirtualLoad(server, 200)

    report = load(1000)

    sends = [call for call in server.calls if call[1] == CREATE]
    assert len(sends) <= max_sends + 8, "only the sends in flight may follow"
    assert report.stopped is reason
    assert (report.failed, report.pending + report.unknown) == (0, 200)
    assert report.unknown == 0
    assert load_again(load, server).added == 200


@pytest.mark.parametrize("mode", ["401", "404", "403-html", "redirect", "login-page"])
def test_refusal_of_every_call_stops_the_run_by_its_first_probe(mode: Mode) -> None:
    """A revoked key, a deleted dataset, or a login page for all calls."""
    server = VirtualDify(phases((0.5, {}), (1e9, {"": (mode,)})), indexing=5.0)
    load = VirtualLoad(server, 200)

    report = load(1000)

    expected = {"401": StopReason.UNAUTHORIZED, "404": StopReason.DATASET_DELETED}
    assert report.stopped is expected.get(
        mode, StopReason.UNAUTHORIZED if mode == "403-html" else StopReason.MISCONFIGURED
    )
    assert report.failed == 0
    assert len([call for call in server.calls if call[1] == CREATE and call[2] != "ok"]) <= 8
    assert load_again(load, server)


def test_body_refused_by_a_proxy_fails_alone() -> None:
    """A file that a proxy blocks must not stop the run."""
    server = VirtualDify(phases(), blocked="007.txt")

    report = VirtualLoad(server, 60)()

    assert (report.added, report.failed, report.stopped) == (59, 1, None)


@pytest.mark.parametrize("files", [1, 20])
@pytest.mark.parametrize("mode", [mode for mode in get_args(Mode) if mode != "ok"])
def test_permanent_fault_of_one_file_does_not_block_the_load(mode: Mode, files: int) -> None:
    """A page instead of a response must not lead to endless lookups."""
    server = VirtualDify(phases(), blocked="000.txt", blocked_by=mode)
    load = VirtualLoad(server, files)

    report = load(20_000)

    assert count_results(report) == report.found == files
    assert server.creates.total() <= files + load.policy.load_timing.max_sends
    if mode in {"403-html", "404", "400", "login-page"}:
        assert (report.added, report.failed, report.stopped) == (files - 1, 1, None)
    server.blocked = ""
    load.options = {"retry_failed": True}
    again = load_again(load, server)
    assert again.added + again.unchanged == again.found == files


def test_load_waits_for_a_dataset_lock_and_sends_no_file_twice() -> None:
    """After a crash of the API, creates hang for up to 600 s and are stored then."""

    def fault_schedule(now: float, endpoint: str) -> Mode:
        return "hang" if endpoint == CREATE and 1.0 < now < 600 else "ok"

    server = VirtualDify(fault_schedule)
    load = VirtualLoad(server, 60, options={"stall_after": 30.0})

    report = load(3000)

    assert (report.added, report.stopped) == (60, None)
    hanging = [call for call in server.calls if call[2] == "hang"]
    assert len(hanging) <= 16, "only the sends in flight may hang"


@pytest.mark.parametrize("rest", [0.0, 5000.0])
def test_stop_does_not_wait_for_the_generator(rest: float) -> None:
    """A deadline must not wait for the next file of the generator."""
    server = VirtualDify(phases(), indexing=1e6)
    load = VirtualLoad(server, 3, rest=rest, options={"deadline": 10.0})

    report = load(10_000)

    assert report.stopped is StopReason.DEADLINE
    assert report.seconds < 11
    assert count_results(report) == report.found == (1 if rest else 3)


def test_documents_that_stay_busy_fail() -> None:
    """Dify refuses a create while it indexes the document with that name."""
    server = VirtualDify(phases((1e9, {CREATE: ("busy",)})))
    load = VirtualLoad(server, 3)

    report = load(10_000)

    assert (report.failed, report.stopped) == (3, None)
    assert len(server.calls) < 1000
    load.options = {"retry_failed": True}
    assert load_again(load, server).added == 3


def test_server_that_never_indexes_stops_the_run() -> None:
    server = VirtualDify(phases(), dead_worker=lambda _: True)
    load = VirtualLoad(server, 30)

    report = load(3000)

    assert report.stopped is StopReason.NOT_INDEXING
    assert report.stalled == 30
    assert "no document of any dataset " in str(report.stop_message).lower()


@pytest.mark.parametrize("down", [CREATE, LIST, ""])
def test_permanent_outage_stops_with_a_reason(down: str) -> None:
    """If creates, reads or all calls fail permanently, the run ends with a reason."""
    server = VirtualDify(phases((1.0, {}), (1e9, {down: ("502",)})))
    load = VirtualLoad(server, FILES)

    report = load(20_000)

    assert report.stopped is StopReason.OUTAGE or report.failed
    assert count_results(report) == FILES
    assert not report
