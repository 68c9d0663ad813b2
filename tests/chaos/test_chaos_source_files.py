"""Changing source files, similar names and special files: F24, F25, F26."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest
from fault_case import FaultCase, check_load, check_next_load, count_outcomes
from invariants import count_violations
from load_environment import CREATE, KEY, create_environment, wait_until

from dify_kb import Item, Outcome, Progress
from dify_kb.emulator import Emulator

LARGE = 80_000
"""Bytes; more than one read before sending."""


def truncate_file(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def append_text(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"and more")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


CHANGES = [
    truncate_file,
    append_text,
    Path.unlink,
    replace_by_folder,
    replace_by_pipe,
    replace_by_link_loop,
]


@pytest.mark.parametrize("size", [0, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_f24_file_changed_before_sending_fails_alone_or_is_sent_as_it_is(
    change: Callable[[Path], None], size: int, tmp_path: Path
) -> None:
    """No hang, and no partial content counts as loaded."""
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 6, size=size) as environment:
            path = environment.folder / "00005.md"

            def meanwhile(event: object) -> None:
                sent = isinstance(event, Progress) and event.accepted == 1
                if sent and path.is_file() and not path.is_symlink():
                    change(path)

            loaded = await environment.load(concurrency=1, on_event=meanwhile)
            still_a_file = change in {truncate_file, append_text}
            ends = {"added": 6} if still_a_file else {"added": 5, "failed": 1}
            check_load(FaultCase(name="", files=6, expected_outcomes=ends), environment, loaded)
            ended = Outcome.ADDED if still_a_file else Outcome.FAILED
            assert loaded.results["00005.md"].outcome is ended
            _remove(path)
            path.write_text("well again")
            environment.changed_files.append("00005.md")

            again = await environment.load() if still_a_file else await check_next_load(environment)

    assert count_outcomes(again) == {"unchanged": 5, "updated" if still_a_file else "added": 1}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


async def test_f24_file_changed_while_sending_never_becomes_a_partial_document(
    tmp_path: Path,
) -> None:
    """The file is truncated while the server reads it, and the connection is reset.

    It is sent again with its new content after all other files.
    """
    fault = "reset-after 50%"
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 3, size=400_000) as environment:
            emulator.faults.plan(CREATE, ["ok", fault])
            path = environment.folder / "00001.md"

            async def cut() -> None:
                await wait_until(lambda: fault in emulator.faults.met().get(CREATE, {}))
                truncate_file(path)

            async with anyio.create_task_group() as group:
                group.start_soon(cut)
                await environment.load(concurrency=1)

            check_load(
                FaultCase(name="", files=3, expected_outcomes={"added": 3}),
                environment,
                environment.loads[-1],
            )


async def test_f25_similar_names_become_distinct_documents(tmp_path: Path) -> None:
    """Names that differ only in case, Unicode form, folder separator, or their end."""
    keys = ["a/b.md", "a__b.md", "A/b.md", "é.md", "e\u0301.md", "x:y.md", "x_y.md", "x?y.md"]
    keys += ["n" * 240 + "1.md", "n" * 240 + "2.md", "a.b.md", "a .md", "a.md", "a%2Fb.md"]
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 0) as environment:
            for key in keys:
                (environment.folder / key).parent.mkdir(exist_ok=True)
                (environment.folder / key).write_text(f"the text of {key}")
            emulator.faults.plan(CREATE, ["ok", "commit-then-reset x6"])
            loaded = await environment.load()
            check_load(FaultCase(name="", files=len(keys)), environment, loaded)
            assert len({one.name for one in loaded.results.values()}) == len(keys)
            assert {key for key, one in loaded.results.items()} == set(keys)
            await check_next_load(environment)


async def test_f26_special_files_are_reported_and_do_not_stop_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        "new\nline.md",
        "😀.md",
        "\u202eright to left.md",
        os.fsdecode(b"\xff\xfe.md"),
        " a.md",
    ]
    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 3) as environment:
            folder = environment.folder
            for name in names:
                (folder / name).write_text("the text of it")
            (folder / "loop").symlink_to(folder)
            (folder / "itself.md").symlink_to("itself.md")
            os.mkfifo(folder / "pipe.md")
            (folder / "none.md").touch()
            with socket.socket(socket.AF_UNIX) as server:
                monkeypatch.chdir(folder)  # the path of a socket is limited
                server.bind("socket.md")
                emulator.faults.plan(CREATE, ["ok x2", "commit-then-reset x6"])
                loaded = await environment.load()
            skipped = {key for key, one in loaded.results.items() if one.outcome == "skipped"}

            check_load(
                FaultCase(name="", expected_outcomes={"added": 8, "skipped": len(skipped)}),
                environment,
                loaded,
            )
            assert skipped >= {"itself.md", "pipe.md", "none.md", "socket.md"}
            await check_next_load(environment)


async def test_f24_failing_item_sources_are_reported(tmp_path: Path) -> None:
    """An exception of the caller's generator ends the load; the next load can resume."""

    def items(*, wrong: bool) -> Iterator[Item]:
        for number in range(30):
            if wrong and number == 20:
                raise RuntimeError("the source broke")
            yield Item(f"{number:02}.md", text=f"text {number}")

    with Emulator(api_key=KEY) as emulator:
        async with create_environment(emulator, tmp_path, 0) as environment:
            with pytest.raises(RuntimeError, match="the source broke"):
                await environment.load(items(wrong=True))

            loaded = await environment.load(items(wrong=False))
            assert not count_violations(environment, loaded).violations
            assert loaded.report.found == 30
            assert bool(loaded.report)
            assert count_violations(environment, loaded).extra == 0
