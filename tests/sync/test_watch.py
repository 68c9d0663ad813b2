"""When a watched source is synced, and that nothing is lost or deleted too early."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import watchfiles

from dify_kb import AsyncClient, Dataset, SyncReport
from dify_kb.sync.watch import SourceWatcher, SyncSchedule, repeat_sync, watch_source

LONG = os.environ.get("CHAOS") == "long"
RESCAN = 900.0


def run_due(
    schedule: SyncSchedule, *, gone: tuple[str, ...] = (), seconds: float = 0.0
) -> set[str]:
    """Run the sync that is due; return the keys of `gone` files that it may delete."""
    begun = schedule.due_at()
    schedule.begin(begun)
    deleted = {key for key in gone if schedule.may_delete(key)}
    schedule.finish(begun + seconds, succeeded=True)
    return deleted


def test_a_sync_is_due_at_the_start_and_after_each_rescan_interval() -> None:
    schedule = SyncSchedule(RESCAN)

    assert schedule.due_at() == 0
    run_due(schedule)

    assert schedule.due_at() == RESCAN


def test_a_sync_follows_a_second_without_changes() -> None:
    schedule = SyncSchedule(RESCAN)
    run_due(schedule)

    for now in (100.0, 100.5, 101.2):
        schedule.record_change(now)

    assert schedule.due_at() == 102.2


def test_changes_that_do_not_end_are_synced_after_ten_seconds() -> None:
    schedule = SyncSchedule(RESCAN)
    run_due(schedule)

    for tenth in range(300):
        schedule.record_change(100 + tenth / 10)

    assert schedule.due_at() == 110


def test_a_change_during_a_sync_leads_to_another() -> None:
    schedule = SyncSchedule(RESCAN)
    schedule.begin(0)
    schedule.record_change(0.4)
    schedule.finish(0.5, succeeded=True)

    assert schedule.due_at() == 1.4


def test_a_long_sync_is_followed_by_a_pause_as_long() -> None:
    """So that changes of a huge source cost at most half of a processor."""
    schedule = SyncSchedule(RESCAN)
    schedule.begin(0)
    schedule.finish(20, succeeded=True)
    schedule.record_change(21)

    assert schedule.due_at() == 40


def test_deletes_wait_ten_seconds_in_which_a_file_may_return() -> None:
    schedule = SyncSchedule(RESCAN)
    run_due(schedule)
    schedule.record_change(99)

    assert run_due(schedule, gone=("a", "b")) == set()  # at 100
    assert schedule.due_at() == 110
    schedule.record_change(104)
    assert run_due(schedule, gone=("a",)) == set()  # at 105: b is back
    schedule.record_change(107)
    assert run_due(schedule, gone=("a", "b")) == set()  # at 108: b is gone again
    assert run_due(schedule, gone=("a", "b")) == {"a"}  # at 110
    assert run_due(schedule, gone=("b",)) == {"b"}  # at 118
    assert schedule.due_at() == 118 + RESCAN


def test_a_file_that_was_back_between_two_syncs_is_not_gone_for_long() -> None:
    """Both syncs missed it in the moment in which an editor replaced it."""
    schedule = SyncSchedule(RESCAN)
    run_due(schedule, gone=("sub/a.md",))
    schedule.record_change(8, ["/docs/sub/a.md"])
    schedule.record_change(9.5, ["/docs/b.md"])

    assert run_due(schedule, gone=("sub/a.md",)) == set()  # at 10
    assert schedule.due_at() == 20
    schedule.begin(20)
    schedule.record_change(20.1, ["/docs/sub/a.md"])  # during the scan
    assert not schedule.may_delete("sub/a.md")


def test_a_delete_that_is_held_back_does_not_repeat_the_sync() -> None:
    """Such as one above the limit of deletes: `may_delete` allowed it, and the file stays gone."""
    schedule = SyncSchedule(RESCAN)
    run_due(schedule, gone=("a",))
    assert run_due(schedule, gone=("a",)) == {"a"}

    assert run_due(schedule, gone=("a",)) == {"a"}
    assert schedule.due_at() == 10 + 2 * RESCAN


def test_a_failed_sync_is_repeated_later_and_later_but_soon_after_a_change() -> None:
    schedule = SyncSchedule(RESCAN)
    pauses, begun = [], 0.0
    for _ in range(9):
        begun = schedule.due_at()
        schedule.begin(begun)
        schedule.finish(begun, succeeded=False)
        pauses.append(schedule.due_at() - begun)

    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    schedule.record_change(begun)
    assert schedule.due_at() == begun + 5


def test_a_failed_sync_keeps_since_when_files_are_gone() -> None:
    schedule = SyncSchedule(RESCAN)
    run_due(schedule, gone=("a",))
    schedule.begin(7)
    schedule.finish(7, succeeded=False)

    assert schedule.due_at() == 12
    assert run_due(schedule, gone=("a",)) == {"a"}


async def test_an_interval_varies_by_a_tenth() -> None:
    """Machines that started at once must not sync at once for ever."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise TimeoutError

    async def run_sync() -> bool:
        return False

    fractions = iter((0.0, 0.5, 1.0))
    with pytest.raises(TimeoutError):
        await repeat_sync(run_sync, 100, random=lambda: next(fractions), sleep=sleep)

    assert pauses == pytest.approx([90, 100, 110])


# With real files and a real server


class Watch:
    """A watch of a folder; its delays pass `speed` times as fast."""

    def __init__(self, client: AsyncClient, dataset: Dataset, folder: Path, speed: float) -> None:
        self.client, self.dataset, self.folder = client, dataset, folder
        self.schedule = SyncSchedule(
            RESCAN,
            quiet_time=1 / speed,
            max_wait=10 / speed,
            delete_delay=10 / speed,
            first_retry=5 / speed,
        )
        self.reports: list[SyncReport] = []

    async def run(self, watcher: SourceWatcher | None) -> None:
        watcher = watcher or SourceWatcher(paths=[str(self.folder)], on_change=lambda _: None)
        await watch_source(self.schedule, watcher, self.sync)

    @property
    def deleted(self) -> int:
        return sum(report.deleted for report in self.reports)

    async def sync(self) -> bool:
        report = await self.client.sync(
            self.dataset,
            self.folder,
            may_delete=self.schedule.may_delete,
            allow_empty=True,
            max_delete="100%",
        )
        self.reports.append(report)
        return report.stopped is None

    async def read_dataset(self) -> list[tuple[str, int]]:
        """Return the names and sizes of all documents."""
        documents = self.client.documents.iter(self.dataset)
        return sorted(
            [(one.name, (one.upload_file and one.upload_file.size) or 0) async for one in documents]
        )

    async def wait_until_equal(self, seconds: float) -> None:
        """Wait until the dataset has exactly the files of the folder."""
        limit = time.monotonic() + seconds
        while (  # noqa: ASYNC110 -- of a server
            await self.read_dataset() != read_folder(self.folder) and time.monotonic() < limit
        ):
            await anyio.sleep(0.2)
        assert await self.read_dataset() == read_folder(self.folder)


async def wait_until(is_true: Callable[[], bool]) -> None:
    with anyio.fail_after(30):
        while not is_true():  # noqa: ASYNC110 -- of another task
            await anyio.sleep(0.05)


class LossyWatcher(SourceWatcher):
    """A watcher that reports one change of many, as after an overflow of the queue of events."""

    async def run(self) -> None:
        await anyio.sleep(0.5)
        for number in range(50):
            (Path(self.paths[0]) / f"{number}.md").write_text(f"text {number}")
        (Path(self.paths[0]) / "a.md").unlink()
        self.on_change(())


def read_folder(folder: Path) -> list[tuple[str, int]]:
    """Return the names that documents of the files have, and the sizes of the files."""
    return sorted(
        ("__".join(path.relative_to(folder).parts), path.stat().st_size)
        for path in folder.rglob("*.md")
    )


async def run_watch(
    client: AsyncClient,
    folder: Path,
    main: Callable[[Watch], Awaitable[None]],
    *,
    speed: float = 1.0,
    watcher: SourceWatcher | None = None,
) -> Watch:
    """Watch a folder while `main` runs."""
    dataset = await client.datasets.create("Watched", indexing_technique="economy")
    watch = Watch(client, dataset, folder, speed)
    async with anyio.create_task_group() as group:
        group.start_soon(watch.run, watcher)
        await main(watch)
        group.cancel_scope.cancel()
    return watch


async def test_changes_reach_the_dataset(client: AsyncClient, folder: Path) -> None:
    (folder / "a.md").write_text("first")

    async def main(watch: Watch) -> None:
        await watch.wait_until_equal(20)
        (folder / "a.md").write_text("changed text")
        (folder / "sub").mkdir()
        (folder / "sub" / "b.md").write_text("new")
        await watch.wait_until_equal(20)
        (folder / "a.md").rename(folder / "c.md")
        (folder / "sub" / "b.md").unlink()
        await watch.wait_until_equal(20)
        await wait_until(lambda: watch.deleted > 0)

    watch = await run_watch(client, folder, main, speed=10)

    assert sum(report.renamed for report in watch.reports) == 1
    assert watch.deleted == 1


@pytest.mark.parametrize("is_limited", [False, True])
async def test_polling_finds_changes(
    client: AsyncClient, folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_limited: bool
) -> None:
    """On request, or when the system has no more watches."""
    watch_files = watchfiles.watch

    def watch_limited(*paths: str, force_polling: bool, **options: Any) -> Iterator[Any]:
        if not force_polling:
            raise OSError("OS file watch limit reached")
        return watch_files(*paths, force_polling=True, **options)

    monkeypatch.setattr(watchfiles, "watch", watch_limited)
    (folder / "a.md").write_text("first")

    async def main(watch: Watch) -> None:
        await watch.wait_until_equal(20)
        await anyio.sleep(2)
        (folder / "b.md").write_text("second")
        await watch.wait_until_equal(30)

    watcher = SourceWatcher(paths=[str(folder)], on_change=lambda _: None, poll=not is_limited)
    await run_watch(client, folder, main, speed=10, watcher=watcher)

    assert watcher.poll


async def test_a_folder_that_is_replaced_or_missing_is_watched_again(
    client: AsyncClient, folder: Path
) -> None:
    """As a share that is mounted later, or a folder that a deployment replaces."""
    (folder / "a.md").write_text("first")

    async def main(watch: Watch) -> None:
        await watch.wait_until_equal(20)
        aside = folder.with_name("aside")
        os.rename(folder, aside)  # noqa: PTH104 -- at once, in a loop that has nothing else to do
        await wait_until(lambda: bool(watch.reports) and watch.reports[-1].stopped is not None)
        shutil.copytree(aside, folder)
        (folder / "b.md").write_text("second")
        await watch.wait_until_equal(20)
        (folder / "c.md").write_text("third")
        await watch.wait_until_equal(20)

    watch = await run_watch(client, folder, main, speed=10)

    assert watch.deleted == 0


async def test_an_editor_that_saves_by_rename_deletes_nothing(
    client: AsyncClient, folder: Path
) -> None:
    """It writes a copy, moves the file away and the copy to its place; both may take a while."""
    names = [f"{number}.md" for number in range(5)]
    for name in names:
        (folder / name).write_text(f"text of {name}")
    (folder / "obsolete.md").write_text("to be deleted")
    stop = threading.Event()

    def save(name: str) -> None:
        rng = random.Random(name)
        version = 0
        while not stop.wait(rng.random() / 5):
            version += 1
            copy = folder / f"{name}.tmp"
            copy.write_text(f"text of {name} " * version)
            (folder / name).rename(folder / f"{name}.backup")
            stop.wait(rng.random() / 5)  # the scan misses it
            copy.rename(folder / name)

    async def main(watch: Watch) -> None:
        await watch.wait_until_equal(20)
        before = len(watch.reports)
        threads = [threading.Thread(target=save, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        (folder / "obsolete.md").unlink()
        await anyio.sleep(20 if LONG else 3)
        stop.set()
        for thread in threads:
            await anyio.to_thread.run_sync(thread.join)
        await watch.wait_until_equal(30)
        await wait_until(lambda: watch.deleted > 0)
        assert len(watch.reports) > before + 1

    watch = await run_watch(client, folder, main, speed=4)

    assert watch.deleted == 1
    assert all(not report.renamed for report in watch.reports)
    kept = {
        key
        for key in names
        for report in watch.reports
        for one in report.changes
        if one.key == key and one.reason
    }
    assert kept, "no scan missed a file"


async def test_lost_events_lose_no_change(client: AsyncClient, folder: Path) -> None:
    """After an overflow the events of some files are missing; the next sync scans all."""
    (folder / "a.md").write_text("first")

    async def main(watch: Watch) -> None:
        await wait_until(lambda: len(read_folder(folder)) == 50)
        await watch.wait_until_equal(60)

    watcher = LossyWatcher(paths=[str(folder)], on_change=lambda _: None)
    watch = await run_watch(client, folder, main, speed=10, watcher=watcher)

    assert sum(report.added for report in watch.reports) == 51


@pytest.mark.timeout(500 if LONG else 120)
async def test_several_hands_change_a_thousand_files(client: AsyncClient, folder: Path) -> None:
    """In the end, the dataset has the content of the folder."""
    stop = threading.Event()
    count = 1000 if LONG else 120

    def work(hand: int) -> None:
        rng = random.Random(hand)
        mine: list[Path] = []
        version = 0
        while not stop.wait(0.001 if len(mine) < count // 4 else rng.random() / 10):
            version += 1
            action = (
                "make" if len(mine) < count // 4 else rng.choice(("make", "edit", "move", "go"))
            )
            path = folder / f"{hand}" / f"{rng.randrange(9)}" / f"{version}.md"
            path.parent.mkdir(parents=True, exist_ok=True)
            old = rng.choice(mine) if mine else path
            match action:
                case "make":
                    path.write_text(f"hand {hand} " * (version + 1))
                    mine.append(path)
                case "edit":
                    old.write_text(f"edited by {hand} " * (version + 1))
                case "move":
                    old.rename(path)
                    mine[mine.index(old)] = path
                case _:
                    old.unlink()
                    mine.remove(old)

    async def main(watch: Watch) -> None:
        hands = [threading.Thread(target=work, args=(hand,)) for hand in range(4)]
        for hand in hands:
            hand.start()
        await anyio.sleep(60 if LONG else 3)
        stop.set()
        for hand in hands:
            await anyio.to_thread.run_sync(hand.join)
        await watch.wait_until_equal(240 if LONG else 60)

    watch = await run_watch(client, folder, main, speed=4)

    assert len(watch.reports) >= 2
    assert len(read_folder(folder)) >= count // 2
