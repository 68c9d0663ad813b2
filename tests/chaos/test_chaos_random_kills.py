"""F20: `kill -9` of a real process at random points, resumed until done; and of the server."""

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
    """What was in flight at each kill is all that may be sent again."""
    fight = KilledLoad(tmp_path, files=2000 if LONG else 150, seed=7)
    with kill_at_exit(fight.start_server()):
        fight.create_dataset()
        fight.inject_random_faults()
        kill_loads(fight, kills=60 if LONG else 2, longest=0.35)
        history, runs = fight.fetch_history()
    documents = fight.read_documents()
    verdict = check_load(
        [f"{number:05}.md" for number in range(fight.files)], documents, history, runs
    )
    add_row(_row("kills of the load", fight, documents, verdict))
    assert verdict, verdict
    assert not fight.find_false_claims(documents)
    assert len(fight.claims) == fight.report["found"] == fight.files
    assert fight.report["exit_code"] == 0
    assert sum(verdict.extra_creates.values()) <= CONCURRENCY * fight.kills


@pytest.mark.timeout(300)
def test_killed_server_loses_no_file(tmp_path: Path) -> None:
    """What was sent just before is looked for once the server is back."""
    fight = KilledLoad(tmp_path, files=1000 if LONG else 60, seed=7)
    server = fight.start_server()
    try:
        fight.create_dataset()
        fight.inject_random_faults()
        server = kill_servers(fight, server, kills=10 if LONG else 1, longest=0.5)
    finally:
        server.kill()
    documents = fight.read_documents()
    verdict = check_load([f"{number:05}.md" for number in range(fight.files)], documents, [], [])
    add_row(_row("kills of the server", fight, documents, verdict))
    assert not verdict.lost
    assert not verdict.duplicates
    assert all(one.chunks == 1 for one in documents)
    assert not fight.find_false_claims(documents)
    assert len(fight.claims) == fight.report["found"] == fight.files


def _row(
    name: str, fight: KilledLoad, documents: Sequence[DocumentState], verdict: LoadCheck
) -> ResultRow:
    """Count; a file has one chunk, so that a second one tells of two runs of a document."""
    return evolve(
        ResultRow.from_check(verdict, fight.find_false_claims(documents), name=name),
        seed=fight.seed,
        files=fight.files,
        kills=fight.kills + fight.server_kills,
        faults=fight.faults_injected,
        doubled=sum(one.chunks != 1 for one in documents),
        seconds=time.monotonic() - fight.began,
    )
