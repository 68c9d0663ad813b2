"""Journals that are unwritable, in use or truncated, and clock jumps: F21, F22, F23."""

from __future__ import annotations

import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import anyio
import pytest
from attrs import evolve
from fault_case import check_next_load, count_outcomes
from invariants import count_violations
from load_environment import CREATE, KEY, POLICY, create_environment, wait_until
from result_table import LONG

from dify_kb import JournalError, Progress, StopReason
from dify_kb.emulator import Emulator, Exchange, Settings


@contextmanager
def full_disk() -> Iterator[None]:
    """Limit the file size of this process, which SQLite treats like a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_f22_full_disk_stops_the_run_before_an_unrecorded_send(
    tmp_path: Path,
) -> None:
    """Exit code 8; the next run finds the documents sent until then."""
    with Emulator(api_key=KEY, settings=Settings(create_io=0.02)) as emulator:
        async with create_environment(emulator, tmp_path, 40) as environment:
            with ExitStack() as stack:

                def fill(event: object) -> None:
                    if isinstance(event, Progress) and event.accepted >= 10:
                        stack.enter_context(full_disk())

                loaded = await environment.load(on_event=fill, concurrency=4)

            assert loaded.report.stopped is StopReason.JOURNAL
            assert loaded.report.exit_code == 8
            assert loaded.sends <= 10 + 8
            assert loaded.report.added <= loaded.sends
            assert loaded.report.found == 40
            again = await check_next_load(environment)
            assert count_violations(environment, again).extra == 0


async def test_f22_unwritable_journal_raises_before_sending(
    tmp_path: Path,
) -> None:
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 5) as environment:
            for journal in (tmp_path, environment.folder / "00001.md" / "journal.db"):
                with pytest.raises(JournalError):
                    await environment.load(journal=journal)

            assert environment.sends == 0


@pytest.mark.skipif(not LONG, reason="SQLite waits 5 s")
async def test_f22_locked_journal_stops_the_run(tmp_path: Path) -> None:
    """A backup may lock the journal. SQLite waits 5 s; nothing is sent during that time."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 10) as environment:
            await environment.load()
            for path in environment.folder.iterdir():
                path.write_text(f"another text of {path.name}")
                environment.changed_files.append(path.name)
            holder = sqlite3.connect(environment.journal, isolation_level=None)
            try:
                holder.execute("BEGIN IMMEDIATE")
                sends = environment.sends
                with pytest.raises(JournalError):
                    await environment.load()
            finally:
                holder.close()

            assert environment.sends == sends
            loaded = await environment.load()
            assert count_outcomes(loaded) == {"updated": 10}
            assert not count_violations(environment, loaded).violations


async def test_f23_concurrent_runs_of_one_journal_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run raises an error after a short wait; the first continues."""
    monkeypatch.setattr("dify_kb.ingest.journal.lock.RUNNING_TIMEOUT", 0.05)
    with Emulator(api_key=KEY, settings=Settings(create_io=0.02)) as emulator:
        async with create_environment(emulator, tmp_path, 30) as environment:
            refused: list[JournalError] = []

            async def again() -> None:
                await wait_until(lambda: environment.sends)
                with pytest.raises(JournalError) as caught:
                    await environment.client.load(
                        environment.dataset, environment.folder, journal=environment.journal
                    )
                refused.append(caught.value)

            async with anyio.create_task_group() as group:
                group.start_soon(again)
                await environment.load()

            loaded = environment.loads[-1]
            assert "in use by another load of this process" in str(refused[0])
            assert count_outcomes(loaded) == {"added": 30}
            assert not count_violations(environment, loaded).violations
            await check_next_load(environment)


async def test_f23_clock_jump_loses_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock jumps by hours between cancelled runs."""
    with Emulator(api_key=KEY, settings=Settings(create_io=0.02)) as emulator:
        async with create_environment(emulator, tmp_path, 40) as environment:
            real = time.time
            for shift in (-3600.0, 3600.0, -7200.0):
                with monkeypatch.context() as clock:
                    clock.setattr(
                        "dify_kb.ingest.engine.uploader.time.time",
                        lambda by=shift: real() + by,
                    )
                    with anyio.move_on_after(0.2):
                        await environment.load()
            loaded = await environment.load()

            counted = count_violations(environment, loaded)
            assert not counted.violations, counted.violations
            assert bool(loaded.report)
            assert counted.extra == 0


@pytest.mark.parametrize("shift", [3600.0, -3600.0])
async def test_f23_clock_jump_does_not_shorten_the_wait_for_a_lost_create(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float
) -> None:
    """The server read the create before its load was cancelled, and executes it during the next."""
    fault, slow = (
        "late 0.8",
        evolve(POLICY, load_timing=evolve(POLICY.load_timing, late_create_after_disconnect=2.0)),
    )
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 1, policy=slow) as environment:
            emulator.faults.plan(CREATE, [fault])
            async with anyio.create_task_group() as group:
                group.start_soon(environment.load)
                await wait_until(lambda: fault in emulator.faults.met().get(CREATE, {}))
                group.cancel_scope.cancel()
            real = time.time
            with monkeypatch.context() as clock:
                clock.setattr(time, "time", lambda: real() + shift)
                loaded = await environment.load()
                await wait_until(lambda: any(_late(call) for call in emulator.history))

            assert count_outcomes(loaded) == {"added": 1}
            assert not count_violations(environment, loaded).violations
            assert environment.sends == 1


def _late(call: Exchange) -> bool:
    return call.endpoint == CREATE and abs(call.ended - call.started) > 0.5


@pytest.mark.parametrize("part", [0.0, 0.2, 0.4, 0.6, 0.8, 0.95] if LONG else [0.0, 0.6])
async def test_f21_truncated_journal_duplicates_no_file(part: float, tmp_path: Path) -> None:
    """After a power failure any prefix of the written data may be on disk.

    Files missing from the journal exist on the server under their names. With `overwrite` they are
    sent again after indexing, because an equal size proves nothing.
    """
    log = tmp_path / "journal.db-wal"
    with Emulator(api_key=KEY, settings=Settings(create_io=0.01)) as emulator:
        async with create_environment(emulator, tmp_path, 40) as environment:
            copies: dict[Path, bytes] = {}

            def copy(event: object) -> None:
                if isinstance(event, Progress) and event.accepted == 25:
                    copies.update({path: path.read_bytes() for path in (environment.journal, log)})

            await environment.load(on_event=copy)
            for path, content in copies.items():
                path.write_bytes(content[: int(len(content) * part)] if path == log else content)
            assert copies[log]

            loaded = await environment.load()

            counted = count_violations(environment, loaded)
            assert not counted.violations, counted.violations
            assert bool(loaded.report)
            assert loaded.sends <= 40
            await check_next_load(environment)
