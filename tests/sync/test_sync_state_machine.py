"""Random histories of three hands on one dataset: a user, a person in the console, and a sync.

A sync may die at any request, meet faults at any endpoint, or lose its machine. In the end, the
dataset has exactly the documents of the source and those of the person, who lost none; and search
never missed a document whose file existed before and after.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sync_world import KEYS, SyncWorld

from dify_kb.emulator import Emulator, Settings
from dify_kb.errors import KnowledgeError

LONG = os.environ.get("CHAOS") == "long"
FAULTS = ("ok", "503", "commit-then-reset", "reset", "commit-then-503", "429 retry-after=0")
ENDPOINTS = (
    "documents.create_by_file",
    "documents.list",
    "documents.delete",
    "metadata.assign",
)
NAMES = ("note.md", "other.md", *(key.replace("/", "__") for key in KEYS))


class SyncHistories(RuleBasedStateMachine):
    """The three hands, and what must hold in the end."""

    emulator: Emulator
    runner: asyncio.Runner
    state: str
    options: dict[str, object]
    numbers = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = SyncWorld(
            self.emulator,
            Path(self.folder.name) / f"world{next(self.numbers)}",
            self.state,
            self.runner,
            options=dict(self.options),
        )

    @initialize()
    def begin(self) -> None:
        for key in KEYS[:3]:
            self.world.write(key, "first")

    @rule(key=st.sampled_from(KEYS))
    def write(self, key: str) -> None:
        self.world.write(key, "next")

    @precondition(lambda self: self.world.files)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        self.world.remove(data.draw(st.sampled_from(sorted(self.world.files))))

    @precondition(lambda self: self.world.files)
    @rule(data=st.data(), new=st.sampled_from(KEYS))
    def rename(self, data: st.DataObject, new: str) -> None:
        old = data.draw(st.sampled_from(sorted(self.world.files)))
        if old != new:
            self.world.rename(old, new)

    @rule(name=st.sampled_from(NAMES))
    def make_foreign(self, name: str) -> None:
        taken = {one.name for one in self.world.own()}
        if name.replace("__", "/") not in self.world.files and name not in taken:
            self.world.make_foreign(name)

    @precondition(lambda self: self.world.own())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.world.delete(data.draw(st.sampled_from(self.world.own())))

    @precondition(lambda self: self.world.own())
    @rule(data=st.data(), action=st.sampled_from(["disable", "archive", "enable", "unarchive"]))
    def switch(self, data: st.DataObject, action: str) -> None:
        document = data.draw(st.sampled_from(self.world.own()))
        try:
            self.world.switch(document, action)
        except KnowledgeError as error:
            self.world.log.append(f"refused: {error}")

    @rule()
    def sync(self) -> None:
        self.world.settle()
        planned, done = self.world.sync(dry_run=True), self.world.sync()
        assert planned is not None
        assert done is not None
        assert planned.changes == done.changes, "\n".join(self.world.log)

    @rule(requests=st.integers(1, 25))
    def die(self, requests: int) -> None:
        self.world.sync(kill_at=requests)

    @rule(
        endpoint=st.sampled_from(ENDPOINTS),
        words=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=5),
    )
    def meet_faults(self, endpoint: str, words: list[str]) -> None:
        self.world.log.append(f"{endpoint}: {words}")
        self.emulator.faults.plan(endpoint, words)
        self.world.sync()
        self.emulator.faults.clear()

    @precondition(lambda self: self.state == "base")
    @rule()
    def lose_machine(self) -> None:
        self.world.sync()
        self.world.settle()
        self.world.use_new_home()
        self.world.log.append("another machine")

    def teardown(self) -> None:
        try:
            self.emulator.faults.clear()
            for _ in range(3):
                self.world.sync()
                self.world.settle()
            self.world.check_end()
            self.world.check_foreign()
        finally:
            self.world.close()
            self.folder.cleanup()


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.mark.timeout(7200 if LONG else 120)
@pytest.mark.parametrize("state", ["journal", "base"])
@pytest.mark.parametrize("workers", [1, 2])
def test_dataset_ends_as_its_source(
    state: str, workers: int, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "")  # restored afterwards
    with Emulator(settings=Settings(workers=workers)) as emulator:
        machine = type(
            "Histories",
            (SyncHistories,),
            {"emulator": emulator, "runner": runner, "state": state, "options": {}},
        )
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=250 if LONG else 8,
                stateful_step_count=14,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )
