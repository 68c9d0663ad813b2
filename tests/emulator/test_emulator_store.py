"""Database files: durability when the process is killed, and old, damaged or unwritable files."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path

import aiohttp
import pytest
from emulator_client import AUTOMATIC, run_emulator, wait_until

from dify_kb.emulator import Emulator
from dify_kb.emulator.store import Store
from dify_kb.emulator.store.database import USER_VERSION
from dify_kb.emulator.store.rows import DatasetRow, DocumentRow
from dify_kb.errors import ConfigError
from dify_kb.models import ProcessRule
from dify_kb.rag import chunk

NOBODY = 65_534
TEXT = "\n\n".join(f"paragraph {n} about zebras " + "and foxes " * 20 for n in range(120))
CHUNKS = len(chunk([TEXT], ProcessRule.automatic()))


def start_emulator_process(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 -- our own program
        [sys.executable, "-m", "dify_kb", "--json", "emulator", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@asynccontextmanager
async def run_emulator_process(
    path: Path,
) -> AsyncIterator[tuple[subprocess.Popen[str], aiohttp.ClientSession]]:
    """Run an emulator in a separate process; yield the process and a session for its address."""
    process = start_emulator_process("--db", str(path))
    try:
        assert process.stdout is not None
        message = json.loads(await asyncio.to_thread(process.stdout.readline))
        headers = {"Authorization": f"Bearer {message['api_key']}"}
        async with aiohttp.ClientSession(message["url"] + "/", headers=headers) as session:
            yield process, session
    finally:
        process.kill()
        process.communicate()


@contextmanager
def drop_privileges() -> Iterator[None]:
    """Run as an unprivileged user, because file permissions do not bind root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


async def kill_during_creates(path: Path, dataset: str, names: list[str]) -> dict[str, str]:
    """Kill a process that creates and indexes documents; return the confirmed documents."""
    confirmed: dict[str, str] = {}

    async def create(session: aiohttp.ClientSession, name: str) -> None:
        url = f"datasets/{dataset}/document/create-by-text"
        with suppress(aiohttp.ClientError):
            async with session.post(url, json={"name": name, "text": TEXT} | AUTOMATIC) as response:
                confirmed[(await response.json())["document"]["id"]] = name

    async with run_emulator_process(path) as (process, session), asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(create(session, name))
        await wait_until(lambda: len(confirmed) > len(names) // 4)
        process.kill()
    return confirmed


@pytest.mark.timeout(60)
async def test_confirmed_documents_survive_a_kill(tmp_path: Path) -> None:
    """Three processes get SIGKILL during creates and indexing; the fourth has every document."""
    path = tmp_path / "kb.db"
    async with run_emulator(path) as client:
        dataset = await client.create_dataset()

    confirmed: dict[str, str] = {}
    for attempt in range(3):
        names = [f"{attempt}-{number}.txt" for number in range(40)]
        confirmed |= await kill_during_creates(path, dataset, names)
    with closing(sqlite3.connect(path)) as connection:
        states = connection.execute("SELECT DISTINCT indexing_status FROM documents").fetchall()
    with Emulator(path) as emulator:
        await wait_until(
            lambda: {one.status for one in emulator.documents(dataset)} == {"completed"}
        )
        documents = emulator.documents(dataset)

    assert len(confirmed) >= 33
    assert {("waiting",)} < set(states), "no process was killed during indexing"
    assert confirmed.items() <= {one.id: one.name for one in documents}.items()
    assert {(one.chunks, one.completed) for one in documents} == {(CHUNKS, CHUNKS)}
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_file_of_a_killed_process_can_be_opened_immediately(tmp_path: Path) -> None:
    """The lock ends with the process; there is no lock file to remove by hand."""
    path = tmp_path / "kb.db"
    async with run_emulator_process(path) as (process, _):
        with pytest.raises(ConfigError, match="in use by another emulator"):
            Emulator(path).start()
        process.kill()
        process.wait()

        with Emulator(path) as emulator:
            assert emulator.url


@pytest.mark.parametrize(
    ("version", "age"), [(USER_VERSION - 1, "an older"), (USER_VERSION + 1, "a newer")]
)
def test_file_of_another_version_is_refused_and_left_unchanged(
    version: int, age: str, tmp_path: Path
) -> None:
    path = tmp_path / "other.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()

    with pytest.raises(ConfigError, match=f"was created by {age} version of dify-kb"):
        Store(path)
    assert path.read_bytes() == before


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    path = tmp_path / "kb.db"
    Store(path).close()
    return path


def test_damaged_file_is_left_unchanged(store_path: Path) -> None:
    """Any used page may be damaged; a full disk leaves a truncated file."""
    whole = store_path.read_bytes()
    pages = range(4096, len(whole), 5 * 4096)
    damaged = [whole[:at] + b"\xa5" * 4096 + whole[at + 4096 :] for at in pages]
    for content in [*damaged, whole[: len(whole) // 2], whole[:10_000]]:
        store_path.write_bytes(content)

        with pytest.raises(ConfigError, match="is damaged"):
            Store(store_path)
        assert store_path.read_bytes() == content
        assert list(store_path.parent.iterdir()) == [store_path]


def test_damaged_file_ends_the_command_with_two_lines(store_path: Path) -> None:
    store_path.write_bytes(store_path.read_bytes()[:20_000])
    process = start_emulator_process("--db", str(store_path))
    _, err = process.communicate(timeout=30)

    assert process.returncode == 2
    assert err.count("\n") == 2
    assert "kb.db is damaged." in err


@pytest.mark.parametrize("exists", [False, True])
def test_read_only_folder_is_reported(exists: bool) -> None:  # noqa: FBT001 -- a parameter
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kb.db"
        if exists:
            Store(path).close()
            path.chmod(0o666)
        Path(folder).chmod(0o555)
        try:
            with (
                drop_privileges(),
                pytest.raises(ConfigError, match="is not writable") as caught,
            ):
                Store(path)
            remaining = [entry.name for entry in Path(folder).iterdir()]
        finally:
            Path(folder).chmod(0o755)

    assert "Check that its directory exists" in caught.value.hint
    assert remaining == ["kb.db"] * exists


def test_read_only_file_is_reported() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kb.db"
        Store(path).close()
        path.chmod(0o444)
        Path(folder).chmod(0o777)
        before = path.read_bytes()

        with drop_privileges(), pytest.raises(ConfigError, match=r"Cannot open .* is not writable"):
            Store(path)
        assert path.read_bytes() == before


@pytest.mark.timeout(60)
def test_file_of_ten_thousand_documents_opens_within_a_second(tmp_path: Path) -> None:
    path = tmp_path / "kb.db"
    store = Store(path)
    dataset = DatasetRow("d", "d", None, "vendor", "only_me", None, "economy", None, 0.0, 0.0)
    with store.transaction():
        store.datasets.add(dataset)
        for number in range(10_000):
            row = DocumentRow(
                id=str(number),
                dataset_id="d",
                position=number,
                name=f"{number}.txt",
                batch=str(number),
                process_rule_id="r",
                created_from="api",
                created_at=number,
                updated_at=0.0,
                doc_form="text_model",
                doc_language="English",
                file_id="f",
                file_name="n",
                file_size=3000,
                file_extension="txt",
                file_mime_type=None,
                file_created_at=0.0,
                indexing_status="completed",
            )
            store.documents.add(row, b"x" * 3000)
    store.close()

    started = time.process_time()
    with Emulator(path) as emulator:
        took = time.process_time() - started

        assert len(emulator.documents("d")) == 10_000
    assert took < 5
