"""One cell of the matrix: a fault, what it may cost, and how its files end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from attrs import field, frozen
from chaos_scene import CREATE, KEY, POLICY, Loaded, Scene, staged
from chaos_verdict import count, resent, secrets

from dify_kb import Outcome, Policy, StopReason
from dify_kb.emulator import Emulator, Settings
from dify_kb.ingest.report import GOOD

Also = Callable[[Scene, Loaded], None]


@frozen(kw_only=True)
class Runs:
    """What becomes of runs of the indexer."""

    words: Sequence[str]
    names: str = "*"
    every: int = 1
    always: bool = False


@frozen(kw_only=True)
class Cell:
    """A cell. Unless it says otherwise every file is added, and no create is carried out twice.

    `extra` bounds creates that are carried out without need, `sends` and `looks` the calls;
    without them the bound is that of the design: 1.2 sends a file and 20.
    """

    name: str
    creates: Sequence[str] = ()
    calls: Mapping[str, Sequence[str]] = field(factory=dict)
    runs: Sequence[Runs] = ()
    files: int = 20
    size: int = 0
    settings: Settings = field(factory=Settings)
    policy: Policy = POLICY
    options: Mapping[str, Any] = field(factory=dict)
    ends: Mapping[str, int] | None = None
    stopped: StopReason | None = None
    extra: int = 0
    sends: int | None = None
    looks: int | None = None
    wedged: int = 0
    """Files that no further run can bring to an end, since the server keeps them unfinished."""

    further: int = 1
    """Further runs that all the rest takes at most."""

    also: Also | None = None


async def play(cell: Cell, root: Path, logged: Callable[[], str]) -> None:
    """Let a cell happen, hold it to the invariants, and load once more without its faults."""
    with Emulator(api_key=KEY, settings=cell.settings) as emulator:
        async with staged(emulator, root, cell.files, size=cell.size, policy=cell.policy) as scene:
            plan(cell, emulator)
            loaded = await scene.load(**cell.options)
            assert emulator.faults.met() or refused(emulator), "no fault was met"
            if loaded.report.stopped is None:
                assert not emulator.faults.left(), "not every planned fault was met"
            hold(cell, scene, loaded)
            if cell.also is not None:
                cell.also(scene, loaded)
            stalled = (one for one in loaded.results.values() if one.outcome is Outcome.STALLED)
            scene.stuck.update(str(one.name) for one in stalled)
            emulator.faults.clear()
            for _ in range(cell.further - 1):
                await scene.load(retry_failed=True)
            await converge(scene, wedged=cell.wedged)
        assert not secrets(scene, root, logged())


def plan(cell: Cell, emulator: Emulator) -> None:
    """Plan what the cell says."""
    for endpoint, words in {**cell.calls, CREATE: cell.creates}.items():
        emulator.faults.plan(endpoint, words)
    for run in cell.runs:
        emulator.faults.indexing(run.words, names=run.names, every=run.every, always=run.always)


def refused(emulator: Emulator) -> bool:
    """Tell whether a call was refused by what the server's settings allow."""
    return any(exchange.status == HTTPStatus.FORBIDDEN for exchange in emulator.history)


def hold(cell: Cell, scene: Scene, loaded: Loaded) -> None:
    """Hold a load to the invariants, and to what its cell says."""
    counted = count(scene, loaded)
    assert not counted.wrong, "\n".join(counted.wrong)
    report = loaded.report
    assert (report.stopped, outcomes(loaded)) == (
        cell.stopped,
        dict(cell.ends if cell.ends is not None else {"added": cell.files}),
    ), f"{report.stop_message}; {[one.reason for one in report.failures()][:5]}"
    assert counted.extra <= cell.extra
    assert loaded.sends <= (1.2 * cell.files + 20 if cell.sends is None else cell.sends)
    assert loaded.looks <= (cell.files + 60 if cell.looks is None else cell.looks)


async def converge(scene: Scene, *, wedged: int = 0, **options: Any) -> Loaded:
    """Load again, now without faults: all gets good, and nothing good is sent again (I7)."""
    before = scene.loads[-1]
    again = await scene.load(retry_failed=True, **options)
    counted = count(scene, again)
    assert not counted.wrong, "\n".join(counted.wrong)
    assert not resent(before, again)
    bad = [one for one in again.results.values() if one.outcome not in GOOD]
    assert len(bad) == wedged, f"{again.report.stop_message}: {bad[:5]}"
    return again


def outcomes(loaded: Loaded) -> dict[str, int]:
    """Count the outcomes that there are."""
    counts = {outcome.value: getattr(loaded.report, outcome.value) for outcome in Outcome}
    return {name: number for name, number in counts.items() if number}
