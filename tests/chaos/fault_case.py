"""Cases of the fault matrix: faults, their permitted costs, and the expected outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from attrs import field, frozen
from invariants import count_violations, find_resent_files, find_secrets
from load_environment import CREATE, KEY, POLICY, LoadEnvironment, LoadResult, create_environment

from dify_kb import Outcome, Policy, StopReason
from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.report import GOOD_OUTCOMES

ExtraCheck = Callable[[LoadEnvironment, LoadResult], None]


@frozen(kw_only=True)
class IndexingFault:
    """A fault of indexing runs."""

    words: Sequence[str]
    names: str = "*"
    every: int = 1
    always: bool = False


@frozen(kw_only=True)
class FaultCase:
    """A case of the matrix. By default every file is added and no create is executed twice.

    `max_extra_creates` limits unnecessary executed creates; `max_sends` and `max_lookups` limit the
    calls. The default limit of sends is that of the design: 1.2 per file, plus 20.
    """

    name: str
    creates: Sequence[str] = ()
    calls: Mapping[str, Sequence[str]] = field(factory=dict)
    runs: Sequence[IndexingFault] = ()
    files: int = 20
    size: int = 0
    settings: Settings = field(factory=Settings)
    policy: Policy = POLICY
    options: Mapping[str, Any] = field(factory=dict)
    expected_outcomes: Mapping[str, int] | None = None
    expected_stop: StopReason | None = None
    max_extra_creates: int = 0
    max_sends: int | None = None
    max_lookups: int | None = None
    wedged: int = 0
    """Files that no further run can finish, because the server keeps them unfinished."""

    further_runs: int = 1
    """Maximum further runs until all other files are loaded."""

    extra_check: ExtraCheck | None = None


async def run_case(case: FaultCase, root: Path, logged: Callable[[], str]) -> None:
    """Load with the faults of a case, check the invariants, and load again without faults."""
    with Emulator(api_key=KEY, settings=case.settings) as emulator:
        async with create_environment(
            emulator, root, case.files, size=case.size, policy=case.policy
        ) as environment:
            plan_faults(case, emulator)
            loaded = await environment.load(**case.options)
            assert emulator.faults.met() or has_refused_calls(emulator), "no fault was met"
            if loaded.report.stopped is None:
                assert not emulator.faults.left(), "not every planned fault was met"
            check_load(case, environment, loaded)
            if case.extra_check is not None:
                case.extra_check(environment, loaded)
            stalled = (one for one in loaded.results.values() if one.outcome is Outcome.STALLED)
            environment.wedged_documents.update(str(one.name) for one in stalled)
            emulator.faults.clear()
            for _ in range(case.further_runs - 1):
                await environment.load(retry_failed=True)
            await check_next_load(environment, wedged=case.wedged)
        assert not find_secrets(environment, root, logged())


def plan_faults(case: FaultCase, emulator: Emulator) -> None:
    """Plan the faults of a case."""
    for endpoint, words in {**case.calls, CREATE: case.creates}.items():
        emulator.faults.plan(endpoint, words)
    for run in case.runs:
        emulator.faults.indexing(run.words, names=run.names, every=run.every, always=run.always)


def has_refused_calls(emulator: Emulator) -> bool:
    """Return whether the settings of the server caused a rejected call."""
    return any(exchange.status == HTTPStatus.FORBIDDEN for exchange in emulator.history)


def check_load(case: FaultCase, environment: LoadEnvironment, loaded: LoadResult) -> None:
    """Check the invariants of a load and the limits of its case."""
    counted = count_violations(environment, loaded)
    assert not counted.violations, "\n".join(counted.violations)
    report = loaded.report
    assert (report.stopped, count_outcomes(loaded)) == (
        case.expected_stop,
        dict(
            case.expected_outcomes if case.expected_outcomes is not None else {"added": case.files}
        ),
    ), f"{report.stop_message}; {[one.reason for one in report.failures()][:5]}"
    assert counted.extra <= case.max_extra_creates
    assert loaded.sends <= (1.2 * case.files + 20 if case.max_sends is None else case.max_sends)
    assert loaded.lookups <= (case.files + 60 if case.max_lookups is None else case.max_lookups)


async def check_next_load(
    environment: LoadEnvironment, *, wedged: int = 0, **options: Any
) -> LoadResult:
    """Load again without faults: all files succeed, and no loaded file is sent again (I7)."""
    before = environment.loads[-1]
    again = await environment.load(retry_failed=True, **options)
    counted = count_violations(environment, again)
    assert not counted.violations, "\n".join(counted.violations)
    assert not find_resent_files(before, again)
    bad = [one for one in again.results.values() if one.outcome not in GOOD_OUTCOMES]
    assert len(bad) == wedged, f"{again.report.stop_message}: {bad[:5]}"
    return again


def count_outcomes(loaded: LoadResult) -> dict[str, int]:
    """Return the number of files by outcome, without zeros."""
    counts = {outcome.value: getattr(loaded.report, outcome.value) for outcome in Outcome}
    return {name: number for name, number in counts.items() if number}
