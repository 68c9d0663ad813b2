"""Pytest plugin with fixtures for an embedded Dify server and its clients.

Installing the package enables it; `-p no:dify_kb.testing` disables it. Each test gets its own
`dify_emulator`, in memory, with a clock that stands still; `dify_client` and `async_dify_client`
are clients of it. Documents are indexed immediately. To test the state before indexing, mark a
test with `@pytest.mark.dify_emulator(hold_indexing=True)`, load with `wait="accepted"`, and call
`dify_index_now()` to index; a document that is waited for before that call fails after 10 s. The
marker also accepts `version` and `settings`, as `Emulator` does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import pytest

# Every test run with this package installed imports this module: keep its imports few.
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
"""Factor for the delays of the clients, so that tests do not wait for seconds."""

_STALL_TIMEOUT: Final = 2.0
"""Real seconds without progress after which indexing is considered stalled."""

_SETTLE_TIME: Final = 0.2
"""The same after all documents have ended: a document that was created twice may start again."""

_POLL_INTERVAL: Final = 0.005
"""Real seconds between polls of the documents."""

_HELD_TIMEOUT: Final = 10.0
"""Real seconds after which a held document fails, since a test that waits for it cannot advance
the clock."""

_FINAL_STATUSES: Final = frozenset({"completed", "error"})


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, as `--strict-markers` requires."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(version='1.16', settings=Settings(), hold_indexing=False): options of the"
        " embedded Dify server; with hold_indexing, documents wait for dify_index_now().",
    )


@pytest.fixture
def dify_clock() -> ManualClock:
    """The clock of the embedded server, which stands still until `advance(seconds)`."""
    from dify_kb.emulator import ManualClock

    # Not a fixed date: clients compare the times of documents with the `Date` header.
    return ManualClock(time.time(), timeout=_HELD_TIMEOUT)


@pytest.fixture
def dify_emulator(
    request: pytest.FixtureRequest,
    dify_clock: ManualClock,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Emulator]:
    """An embedded Dify server, in memory, for one test; see its `faults`, `history` and `runs`.

    Sets `DIFY_BASE_URL` and `DIFY_API_KEY`, so that clients and programs that read them use this
    server, and `XDG_STATE_HOME`, so that loads keep their journals in a temporary folder.
    """
    from dify_kb.emulator import Emulator

    version, settings = _read_marker_options(request.node)
    server = Emulator(version=version, settings=settings, clock=dify_clock)
    # Outside `tmp_path`, which a test may load; separate, since a test may undo `monkeypatch`.
    state = tmp_path_factory.mktemp("dify-state")
    with server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DIFY_BASE_URL", server.url)
        environment.setenv("DIFY_API_KEY", server.api_key)
        environment.setenv("XDG_STATE_HOME", str(state))
        yield server


@pytest.fixture
def dify_client(dify_emulator: Emulator) -> Iterator[Client]:
    """An open blocking client of `dify_emulator`, with all delays reduced to one hundredth."""
    from dify_kb import Client, Policy

    url, key = dify_emulator.url, dify_emulator.api_key
    with Client(url, key, policy=Policy().scaled(_DELAY_SCALE)) as client:
        yield client


@pytest.fixture
def async_dify_client(dify_emulator: Emulator) -> AsyncClient:
    """An asynchronous client of `dify_emulator`: `async with async_dify_client as client:`.

    The client is not open yet, so the fixture works with every plugin for asynchronous tests.
    """
    from dify_kb import AsyncClient, Policy

    url, key = dify_emulator.url, dify_emulator.api_key
    return AsyncClient(url, key, policy=Policy().scaled(_DELAY_SCALE))


@pytest.fixture
def dify_index_now(
    request: pytest.FixtureRequest, dify_emulator: Emulator, dify_clock: ManualClock
) -> Callable[[], Sequence[DocumentState]]:
    """A function that indexes all existing documents by advancing the clock.

    It waits for the work and returns the documents that are not `completed`: failed ones, and,
    after 2 s without progress, documents that a fault plan keeps from ending.
    """
    _, settings = _read_marker_options(request.node)
    stages = settings.parsing + settings.splitting + settings.indexing

    def index_now() -> Sequence[DocumentState]:
        # One extra second, since rounding errors might miss the end of a stage.
        dify_clock.advance(stages * _count_pending_runs(dify_emulator) + 1)
        states = _wait_until_ended(dify_emulator)
        return [state for state in states if state.status != "completed"]

    return index_now


@pytest.fixture
def dify_check_load(
    dify_emulator: Emulator,
) -> Callable[[Dataset | str, Sequence[str]], LoadCheck]:
    """A function that checks the documents of a dataset against the names they should have.

    `assert dify_check_load(dataset, names)` fails if a document is lost, exists twice or was
    indexed twice at the same time; the returned `LoadCheck` lists them. Its `unindexed` and
    `extra_creates` do not make it fail.
    """
    from dify_kb.emulator import check_load

    def check(dataset: Dataset | str, expected: Sequence[str]) -> LoadCheck:
        dataset_id = dataset if isinstance(dataset, str) else dataset.id
        documents = dify_emulator.documents(dataset_id)
        return check_load(expected, documents, dify_emulator.history, dify_emulator.runs)

    return check


def _read_marker_options(node: pytest.Item) -> tuple[str, Settings]:
    """Merge the options of all markers; markers closer to the test have priority."""
    import attrs

    from dify_kb.emulator import Settings

    options: dict[str, object] = {}
    for mark in reversed(list(node.iter_markers(MARKER))):
        _validate_marker(mark.args, mark.kwargs)
        options |= mark.kwargs
    settings = options.get("settings", Settings())
    if not isinstance(settings, Settings):
        pytest.fail(
            f"Invalid settings in marker {MARKER}: {settings!r}; expected a Settings object.",
            pytrace=False,
        )
    if options.get("hold_indexing"):
        settings = attrs.evolve(settings, parsing=max(settings.parsing, 1.0))
    return str(options.get("version", "1.16")), settings


def _validate_marker(args: Sequence[object], options: Mapping[str, object]) -> None:
    unknown = [name for name in options if name not in _MARKER_OPTIONS]
    if args or unknown:
        pytest.fail(
            f"Invalid arguments of marker {MARKER}: {', '.join([*map(repr, args), *unknown])};"
            f" expected the keywords {', '.join(_MARKER_OPTIONS)}.",
            pytrace=False,
        )


def _list_documents(emulator: Emulator) -> list[DocumentState]:
    datasets = dict.fromkeys(call.dataset_id for call in emulator.history if call.dataset_id)
    return [state for dataset in datasets for state in emulator.documents(dataset)]


def _unfinished(states: Sequence[DocumentState]) -> list[DocumentState]:
    return [state for state in states if state.status not in _FINAL_STATUSES]


def _count_pending_runs(emulator: Emulator) -> int:
    """Return the maximum number of pending indexing runs; a document may have several."""
    queued = sum(call.committed and call.document_id is not None for call in emulator.history)
    ended = sum(event.kind == "ended" for event in emulator.runs)
    return max(queued - ended, len(_unfinished(_list_documents(emulator))))


def _wait_until_ended(emulator: Emulator) -> list[DocumentState]:
    """Wait until all runs have ended, or until indexing has stalled; return the documents."""
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
