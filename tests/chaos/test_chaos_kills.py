"""F20: `kill -9` of a real process at random points, resumed until done; and of the server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from attrs import evolve
from chaos_kills import AT_ONCE, Fight, ended, kill_loads, kill_servers
from chaos_tables import LONG, Row, tell

from dify_kb.emulator import DocumentState, Verdict, judge


@pytest.mark.timeout(900)
def test_a_load_that_is_killed_goes_on_and_doubles_nothing(tmp_path: Path) -> None:
    """What was in flight at each kill is all that may be sent again."""
    fight = Fight(tmp_path, files=2000 if LONG else 150, seed=7)
    with ended(fight.serve()):
        fight.prepare()
        fight.fail_at_times()
        kill_loads(fight, kills=60 if LONG else 2, longest=0.35)
        history, runs = fight.history()
    documents = fight.documents()
    verdict = judge([f"{number:05}.md" for number in range(fight.files)], documents, history, runs)
    tell(_row("kills of the load", fight, documents, verdict))
    assert verdict, verdict
    assert not fight.false_claims(documents)
    assert len(fight.claims) == fight.report["found"] == fight.files
    assert fight.report["exit_code"] == 0
    assert sum(verdict.extra.values()) <= AT_ONCE * fight.kills


@pytest.mark.timeout(300)
def test_a_server_that_is_killed_costs_nothing_but_time(tmp_path: Path) -> None:
    """What was sent just before is looked for once the server is back."""
    fight = Fight(tmp_path, files=1000 if LONG else 60, seed=7)
    server = fight.serve()
    try:
        fight.prepare()
        fight.fail_at_times()
        server = kill_servers(fight, server, kills=10 if LONG else 1, longest=0.5)
    finally:
        server.kill()
    documents = fight.documents()
    verdict = judge([f"{number:05}.md" for number in range(fight.files)], documents, [], [])
    tell(_row("kills of the server", fight, documents, verdict))
    assert not verdict.lost
    assert not verdict.twins
    assert all(one.chunks == 1 for one in documents)
    assert not fight.false_claims(documents)
    assert len(fight.claims) == fight.report["found"] == fight.files


def _row(name: str, fight: Fight, documents: Sequence[DocumentState], verdict: Verdict) -> Row:
    """Count; a file has one chunk, so that a second one tells of two runs of a document."""
    return evolve(
        Row.of(verdict, fight.false_claims(documents), name=name),
        seed=fight.seed,
        files=fight.files,
        kills=fight.kills + fight.server_kills,
        faults=fight.met,
        doubled=sum(one.chunks != 1 for one in documents),
        seconds=time.monotonic() - fight.began,
    )
