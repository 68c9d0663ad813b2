"""`kill -9` of load and server processes at random points, resumed until done: F20."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve
from random_kills import CONCURRENCY, KilledLoad, kill_at_exit, kill_loads, kill_servers
from result_table import LONG, ResultRow, add_row

from dify_kb.emulator import DocumentState, LoadCheck, check_load


@pytest.mark.timeout(900)
def test_killed_load_is_resumed_without_duplicates(tmp_path: Path) -> None:
    """Only creates in flight at a kill may be sent again."""
    killed_load = KilledLoad(tmp_path, files=2000 if LONG else 120, seed=7)
    with kill_at_exit(killed_load.start_server()):
        killed_load.create_dataset()
        killed_load.inject_random_faults()
        kill_loads(killed_load, kills=60 if LONG else 2, longest=0.35)
        history, runs = killed_load.fetch_history()
    documents = killed_load.read_documents()
    verdict = check_load(
        [f"{number:05}.md" for number in range(killed_load.files)], documents, history, runs
    )
    add_row(_row("kills of the load", killed_load, documents, verdict))
    assert verdict, verdict
    assert not killed_load.find_false_claims(documents)
    assert len(killed_load.claims) == killed_load.report["found"] == killed_load.files
    assert killed_load.report["exit_code"] == 0
    assert sum(verdict.extra_creates.values()) <= CONCURRENCY * killed_load.kills


@pytest.mark.timeout(300)
def test_killed_server_loses_no_file(tmp_path: Path) -> None:
    """Creates sent just before a kill are looked up after the restart."""
    killed_load = KilledLoad(tmp_path, files=1000 if LONG else 60, seed=7)
    server = killed_load.start_server()
    try:
        killed_load.create_dataset()
        killed_load.inject_random_faults()
        server = kill_servers(killed_load, server, kills=10 if LONG else 1, longest=0.5)
    finally:
        server.kill()
    documents = killed_load.read_documents()
    verdict = check_load(
        [f"{number:05}.md" for number in range(killed_load.files)], documents, [], []
    )
    add_row(_row("kills of the server", killed_load, documents, verdict))
    assert not verdict.lost
    assert not verdict.duplicates
    assert all(one.chunks == 1 for one in documents)
    assert not killed_load.find_false_claims(documents)
    assert len(killed_load.claims) == killed_load.report["found"] == killed_load.files


def _row(
    name: str, killed_load: KilledLoad, documents: Sequence[DocumentState], verdict: LoadCheck
) -> ResultRow:
    """Create the row; files have one chunk, so a second chunk shows two indexing runs."""
    return evolve(
        ResultRow.from_check(verdict, killed_load.find_false_claims(documents), name=name),
        seed=killed_load.seed,
        files=killed_load.files,
        kills=killed_load.kills + killed_load.server_kills,
        faults=killed_load.faults_injected,
        doubled=sum(one.chunks != 1 for one in documents),
        seconds=time.monotonic() - killed_load.began,
    )
