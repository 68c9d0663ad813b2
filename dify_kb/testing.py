"""For the tests of other people's loaders: pytest fixtures of an embedded server and its clients.

Installing the package is enough, and `-p no:dify_kb.testing` leaves it out. `dify_emulator` is a
server of its own for each test, in memory, whose clock stands still; `dify_client` and
`async_dify_client` are clients of it. It indexes at once. A test that wants to see what is not
indexed yet marks itself `@pytest.mark.dify_emulator(hold_indexing=True)`, loads with
`wait="accepted"`, and says `dify_index_now()` when the time has come; a document that is waited
for before fails, after 10 s, and says so. The marker also takes `version` and
`settings`, those of `Emulator`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

# What is imported here, every test run with this package installed waits for: no more than this.
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dify_kb import AsyncClient, Client, Dataset
    from dify_kb.emulator import DocumentState, Emulator, LoadCheck, ManualClock, Settings

__all__ = [
    "async_dify_client",
    "dify_check_load",
    "dify_client",
    "dify_clock",
    "dify_emulator",
    "dify_index_now",
]

MARKER: Final = "dify_emulator"

_MARKER_OPTIONS: Final = ("version", "settings", "hold_indexing")

_DELAY_SCALE: Final = 0.01
"""The clients' delays, as part of those of real ones: a test need not wait for seconds."""

_STALL_TIMEOUT: Final = 2.0
"""Real seconds without any movement after which nothing more is expected to be indexed."""

_SETTLE_TIME: Final = 0.2
"""The same once all documents have ended: one that was created twice may start again."""

_POLL_INTERVAL: Final = 0.005
"""Real seconds between two looks at the documents."""

_HELD_TIMEOUT: Final = 10.0
"""Real seconds after which a document that is held fails: its test waits for it, and nobody would
move the clock on."""

_FINAL_STATUSES: Final = frozenset({"completed", "error"})


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, so that `--strict-markers` lets it pass."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(version='1.16', settings=Settings(), hold_indexing=False): the embedded Dify"
        " of this test; held documents wait for dify_index_now().",
    )


@pytest.fixture
def dify_clock() -> ManualClock:
    """The time of the embedded server: the test's start, until `advance(seconds)`."""
    from dify_kb.emulator import ManualClock

    # Not a fixed day: clients compare the times of documents with the `Date` of replies.
    return ManualClock(time.time(), timeout=_HELD_TIMEOUT)


@pytest.fixture
def dify_emulator(
    request: pytest.FixtureRequest,
    dify_clock: ManualClock,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Emulator]:
    """An embedded Dify, in memory, that runs for one test; see its `faults`, `history`, `runs`.

    Meanwhile `DIFY_BASE_URL` and `DIFY_API_KEY` name it, so that clients and programs that read
    them reach no other server, and loads keep their journals in a temporary folder.
    """
    from dify_kb.emulator import Emulator

    version, settings = _read_marker_options(request.node)
    server = Emulator(version=version, settings=settings, clock=dify_clock)
    # Beside `tmp_path`, which a test may load; of its own, as a test may undo `monkeypatch`.
    state = tmp_path_factory.mktemp("dify-state")
    with server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DIFY_BASE_URL", server.url)
        environment.setenv("DIFY_API_KEY", server.api_key)
        environment.setenv("XDG_STATE_HOME", str(state))
        yield server


@pytest.fixture
def dify_client(dify_emulator: Emulator) -> Iterator[Client]:
    """A blocking client of `dify_emulator`, open; its delays are a hundredth of a real one's."""
    from dify_kb import Client, Policy

    url, key = dify_emulator.url, dify_emulator.api_key
    with Client(url, key, policy=Policy().scaled(_DELAY_SCALE)) as client:
        yield client


@pytest.fixture
def async_dify_client(dify_emulator: Emulator) -> AsyncClient:
    """The same for `async with async_dify_client as client:`, in the loop of the test.

    It is not open yet, so it needs no plugin that knows asynchronous fixtures, and suits all.
    """
    from dify_kb import AsyncClient, Policy

    url, key = dify_emulator.url, dify_emulator.api_key
    return AsyncClient(url, key, policy=Policy().scaled(_DELAY_SCALE))


@pytest.fixture
def dify_index_now(
    request: pytest.FixtureRequest, dify_emulator: Emulator, dify_clock: ManualClock
) -> Callable[[], Sequence[DocumentState]]:
    """A function that has all documents indexed that are there, whatever time that takes.

    It moves the clock on by that time, waits for the work, and gives the documents that did not
    end `completed`: those that failed, and, after 2 s without any movement, those that a fault
    plan keeps from ending.
    """
    _, settings = _read_marker_options(request.node)
    stages = settings.parsing + settings.splitting + settings.indexing

    def index_now() -> Sequence[DocumentState]:
        # One second more, as sums of small numbers may miss the end of a stage by a hair.
        dify_clock.advance(stages * _count_pending_runs(dify_emulator) + 1)
        states = _wait_until_ended(dify_emulator)
        return [state for state in states if state.status != "completed"]

    return index_now


@pytest.fixture
def dify_check_load(
    dify_emulator: Emulator,
) -> Callable[[Dataset | str, Sequence[str]], LoadCheck]:
    """A function that judges what a load left in a dataset by the names it was to bring.

    `assert dify_check_load(dataset, names)` holds when none is lost, there twice, or indexed twice
    at a time; the `LoadCheck` tells which. `unindexed` and `extra_creates` are told, and leave it
    True.
    """
    from dify_kb.emulator import check_load

    def check(dataset: Dataset | str, expected: Sequence[str]) -> LoadCheck:
        dataset_id = dataset if isinstance(dataset, str) else dataset.id
        documents = dify_emulator.documents(dataset_id)
        return check_load(expected, documents, dify_emulator.history, dify_emulator.runs)

    return check


def _read_marker_options(node: pytest.Item) -> tuple[str, Settings]:
    """Read the markers, of which those nearer to the test win, option by option."""
    import attrs

    from dify_kb.emulator import Settings

    options: dict[str, object] = {}
    for mark in reversed(list(node.iter_markers(MARKER))):
        _validate_marker(mark.args, mark.kwargs)
        options |= mark.kwargs
    settings = options.get("settings", Settings())
    if not isinstance(settings, Settings):
        pytest.fail(f"settings of the marker {MARKER} is no Settings: {settings!r}", pytrace=False)
    if options.get("hold_indexing"):
        settings = attrs.evolve(settings, parsing=max(settings.parsing, 1.0))
    return str(options.get("version", "1.16")), settings


def _validate_marker(args: Sequence[object], options: Mapping[str, object]) -> None:
    unknown = [name for name in options if name not in _MARKER_OPTIONS]
    if args or unknown:
        pytest.fail(
            f"The marker {MARKER} takes {', '.join(_MARKER_OPTIONS)}, by name;"
            f" not {', '.join([*map(repr, args), *unknown])}.",
            pytrace=False,
        )


def _list_documents(emulator: Emulator) -> list[DocumentState]:
    datasets = dict.fromkeys(call.dataset_id for call in emulator.history if call.dataset_id)
    return [state for dataset in datasets for state in emulator.documents(dataset)]


def _unfinished(states: Sequence[DocumentState]) -> list[DocumentState]:
    return [state for state in states if state.status not in _FINAL_STATUSES]


def _count_pending_runs(emulator: Emulator) -> int:
    """Count the runs of the indexer that are to come, at most: a document may have several."""
    queued = sum(call.committed and call.document_id is not None for call in emulator.history)
    ended = sum(event.kind == "ended" for event in emulator.runs)
    return max(queued - ended, len(_unfinished(_list_documents(emulator))))


def _wait_until_ended(emulator: Emulator) -> list[DocumentState]:
    """Wait until all runs have ended, or nothing moves any more."""
    states, runs = _list_documents(emulator), len(emulator.runs)
    last_change = time.monotonic()
    while _count_pending_runs(emulator):
        time.sleep(_POLL_INTERVAL)
        previous, states, runs = (states, runs), _list_documents(emulator), len(emulator.runs)
        if (states, runs) != previous:
            last_change = time.monotonic()
        elif time.monotonic() - last_change > (
            _STALL_TIMEOUT if _unfinished(states) else _SETTLE_TIME
        ):
            break
    return _list_documents(emulator)
