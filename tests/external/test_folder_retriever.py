"""The folder retriever: search, refresh, and paths that are never read."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from retrieval_server import build_conditions, serve_retriever

from dify_kb.errors import ConfigError
from dify_kb.external import FolderRetriever, RetrievalRequest, folder_files, folder_index
from dify_kb.external.folder_index import (
    FOLDER_DATASET,
    IndexReader,
    IndexWriter,
    connect_index,
    prepare_index,
)
from dify_kb.external.folder_retriever import default_index_path
from dify_kb.models import Field, MetadataFilter

REFRESH = 0.02


@pytest.fixture(autouse=True)
def cache_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def index(docs: Path) -> Path:
    """Return the path of the folder's index."""
    return default_index_path(docs.resolve())


def damage(file: Path, kept_bytes: int, garbage: bytes) -> None:
    file.write_bytes(file.read_bytes()[:kept_bytes] + garbage)


def make_old(*files: Path) -> None:
    """Set the modification time of files to a minute ago."""
    past = time.time() - 60
    for file in files:
        os.utime(file, (past, past))


def open_retriever(folder: Path, **options: Any) -> FolderRetriever:
    return FolderRetriever(folder, refresh=REFRESH, **options)


async def find_paths(
    retriever: FolderRetriever,
    query: str,
    metadata_filter: MetadataFilter | None = None,
    top_k: int = 4,
) -> list[str]:
    """Return the paths of the files found."""
    request = RetrievalRequest(
        knowledge_id="docs", query=query, top_k=top_k, metadata_condition=metadata_filter
    )
    return [record.title for record in await retriever.retrieve(request)]


async def wait_until_found(retriever: FolderRetriever, query: str, paths: list[str]) -> None:
    """Wait until the refresh thread has indexed the change."""
    with anyio.fail_after(10):
        while sorted(await find_paths(retriever, query)) != paths:  # noqa: ASYNC110 -- waits for a thread
            await anyio.sleep(REFRESH)


async def test_files_are_found_by_keywords(docs: Path) -> None:
    async with serve_retriever(open_retriever(docs)) as server:
        (record,) = (await server.retrieve("how do I reset the device?")).records

    assert record["content"] == "Hold the red button for ten seconds to reset the device."
    assert record["title"] == "reset.md"
    assert record["score"] == 1.0
    metadata = record["metadata"]
    assert metadata.pop("modified") == pytest.approx((docs / "reset.md").stat().st_mtime, abs=0.01)
    assert metadata == {
        "document_id": "reset.md",
        "path": "reset.md",
        "name": "reset.md",
        "extension": "md",
        "size": 56,
    }


async def test_score_is_the_share_of_the_query_in_the_passage(folder: Path) -> None:
    """Dify's thresholds expect scores from 0 to 1; BM25 has no upper limit."""
    (folder / "a.md").write_text("zebra fox")
    (folder / "b.md").write_text("zebra gnu")
    (folder / "c.md").write_text("zebra")
    async with serve_retriever(open_retriever(folder)) as server:
        both = (await server.retrieve("zebra fox")).records
        half = (await server.retrieve("zebra fox", threshold=0.5)).records
        unknown = (await server.retrieve("the zebra unicorn")).records

    assert [record["title"] for record in both] == ["a.md", "c.md", "b.md"]
    assert both[0]["score"] == 1.0
    assert 0 < both[1]["score"] < 0.3
    assert [record["title"] for record in half] == ["a.md"]
    assert all(0 < record["score"] < 0.5 for record in unknown)


async def test_common_words_do_not_hide_a_rare_word(folder: Path, monkeypatch: Any) -> None:
    """Common words are not searched for, but count for the score."""
    monkeypatch.setattr("dify_kb.external.folder_retriever._MAX_PASSAGES_SEARCHED", 10)
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"zebras and foxes number n{number}")
    async with open_retriever(folder) as retriever:
        assert (await find_paths(retriever, "zebras foxes n37"))[0] == "37.txt"
        assert len(await find_paths(retriever, "zebras foxes", top_k=50)) == 50


async def test_all_kinds_of_text_files_are_indexed(folder: Path) -> None:
    (folder / "page.html").write_text("<p>zebra</p><script>fox</script>")
    (folder / "rows.csv").write_text("animal\nzebra\n")
    (folder / "main.rs").write_text("fn zebra() {}")
    (folder / "LICENSE").write_text("zebra")
    (folder / "image.png").write_bytes(b"\x89PNG zebra \0")
    (folder / "latin").write_bytes("zebra gr\u00fc\u00df".encode("latin-1"))
    (folder / "empty.md").touch()
    async with open_retriever(folder) as retriever:
        paths = await find_paths(retriever, "zebra", top_k=9)

        assert sorted(paths) == ["LICENSE", "main.rs", "page.html", "rows.csv"]
        assert await find_paths(retriever, "fox") == []


async def test_passages_keep_every_letter(folder: Path) -> None:
    """Dify deletes three letters from every text."""
    text = "¿Naïve zebras? ¾ of them, 斑马."
    (folder / "a.md").write_text(text)
    async with serve_retriever(open_retriever(folder)) as server:
        (record,) = (await server.retrieve("naïve")).records

    assert record["content"] == text


async def test_unreadable_documents_are_logged_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "broken.xlsx").write_bytes(b"no workbook")
    (folder / "a.md").write_text("zebra")
    with caplog.at_level(logging.WARNING):
        async with open_retriever(folder) as retriever:
            counts = retriever.counts
            await anyio.sleep(3 * REFRESH)

    assert (counts.files, counts.passages, counts.unreadable) == (1, 1, 1)
    assert caplog.text.count("Skipping file broken.xlsx: ") == 1


async def test_changes_are_indexed_at_the_next_poll(folder: Path) -> None:
    (folder / "a.md").write_text("zebra one")
    async with open_retriever(folder) as retriever:
        assert await find_paths(retriever, "zebra") == ["a.md"]
        (folder / "sub").mkdir()
        (folder / "sub" / "b.md").write_text("zebra two")
        await wait_until_found(retriever, "zebra", ["a.md", "sub/b.md"])
        (folder / "a.md").write_text("gnu three")
        await wait_until_found(retriever, "zebra", ["sub/b.md"])
        (folder / "sub" / "b.md").unlink()
        await wait_until_found(retriever, "zebra", [])
        assert await find_paths(retriever, "gnu") == ["a.md"]
        assert retriever.counts.files == 1


async def test_change_with_the_same_size_and_time_is_indexed(folder: Path) -> None:
    """Files modified within the granularity of the clock are read again."""
    file = folder / "a.md"
    file.write_text("zebra")
    async with open_retriever(folder) as retriever:
        times = file.stat()
        file.write_text("panda")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        await wait_until_found(retriever, "panda", ["a.md"])


async def test_unchanged_folder_is_not_indexed_again(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(docs / "reset.md", docs / "sub" / "notes.txt", docs / "tool.exe")
    async with open_retriever(docs):
        pass
    monkeypatch.setattr(folder_index, "read_file", fail_if_called)
    async with open_retriever(docs) as retriever:
        assert await find_paths(retriever, "wombats") == ["sub/notes.txt"]


def fail_if_called(*_: object) -> Any:
    raise AssertionError


async def test_touched_file_is_read_but_not_indexed_again(
    docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_retriever(docs):
        pass
    os.utime(docs / "reset.md")
    monkeypatch.setattr(folder_index, "chunk", fail_if_called)
    async with open_retriever(docs) as retriever:
        assert await find_paths(retriever, "reset device") == ["reset.md"]


async def test_unreadable_documents_are_retried_at_the_next_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parser may have been installed since."""
    (folder / "a.docx").write_bytes(b"not really")
    make_old(folder / "a.docx")
    async with open_retriever(folder) as retriever:
        assert retriever.counts.unreadable == 1
    monkeypatch.setattr(folder_index, "extract_texts", lambda *_: ["zebra"])
    async with open_retriever(folder) as retriever:
        assert await find_paths(retriever, "zebra") == ["a.docx"]
        assert retriever.counts.unreadable == 0


@pytest.mark.parametrize(
    ("metadata_filter", "paths"),
    [
        (Field("extension") == "md", ["reset.md"]),
        (Field("path").starts_with("sub/"), ["sub/notes.txt"]),
        (Field("size") > 30, ["reset.md"]),
        (Field("modified").after(4e9), []),
        (Field("team").empty(), ["reset.md", "sub/notes.txt"]),
        (Field("name").in_(["notes.txt"]), ["sub/notes.txt"]),
    ],
)
async def test_conditions_filter_files_by_metadata(
    docs: Path, metadata_filter: Any, paths: list[str]
) -> None:
    (docs / "sub" / "notes.txt").write_text("The device of wombats.")
    async with open_retriever(docs) as retriever:
        found_paths = await find_paths(retriever, "device", MetadataFilter.all_of(metadata_filter))

    assert sorted(found_paths) == paths


async def test_dates_are_compared_with_the_modification_time(docs: Path) -> None:
    request = build_conditions(
        ("modified", "before", "2100-01-01"), ("modified", "after", "2020-01-01")
    )
    async with serve_retriever(open_retriever(docs)) as server:
        assert len((await server.retrieve("device", metadata_condition=request)).records) == 1


async def test_files_outside_the_folder_are_never_read(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("zebra secret")
    other = tmp_path / "docs-other"
    other.mkdir()
    (other / "near.md").write_text("zebra near")
    (folder / "inside.md").write_text("zebra inside")
    (folder / "sub").mkdir()
    (folder / "sub" / "again.md").symlink_to("../inside.md")
    (folder / "out.md").symlink_to(secret)
    (folder / "up.md").symlink_to("../secret.md")
    (folder / "near.md").symlink_to("../docs-other/near.md")
    (folder / "chain.md").symlink_to("out.md")
    (folder / "nowhere.md").symlink_to("missing")
    (folder / "loop.md").symlink_to("loop.md")
    (folder / "dir").symlink_to(other, target_is_directory=True)
    (folder / "self").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.md")
    (folder / ".env").write_text("zebra key")
    (folder / ".git").mkdir()
    (folder / ".git" / "config.md").write_text("zebra git")
    async with open_retriever(folder) as retriever:
        assert sorted(await find_paths(retriever, "zebra", top_k=20)) == [
            "inside.md",
            "sub/again.md",
        ]


@pytest.mark.parametrize("path", ["../secret.md", "a/../../secret.md", "out.md", "dir/secret.md"])
def test_path_that_leads_outside_is_not_read(folder: Path, tmp_path: Path, path: str) -> None:
    """This holds even if the path was inside when listed."""
    (tmp_path / "secret.md").write_text("secret")
    (folder / "a").mkdir()
    (folder / "out.md").symlink_to(tmp_path / "secret.md")
    (folder / "dir").symlink_to(tmp_path, target_is_directory=True)

    with pytest.raises(folder_files.OutsideFolderError):
        folder_files.read_file(folder.resolve(), path)


def test_file_replaced_by_a_link_before_opening_is_not_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.md").write_text("secret")
    file = folder / "a.md"
    file.write_text("harmless")
    real_open: Callable[..., int] = os.open

    def open_after_swap(path: str, flags: int) -> int:
        file.unlink()
        file.symlink_to(tmp_path / "secret.md")
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", open_after_swap)
    with pytest.raises(OSError, match="symbolic links"):
        folder_files.read_file(folder.resolve(), "a.md")


async def test_folder_given_as_a_link_is_served(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(docs, target_is_directory=True)
    async with open_retriever(tmp_path / "link") as retriever:
        assert await find_paths(retriever, "wombats") == ["sub/notes.txt"]


async def test_undecodable_file_names_are_skipped(folder: Path) -> None:
    (folder / "a.md").write_text("zebra")
    (folder / os.fsdecode(b"\xff.md")).write_text("zebra")
    async with open_retriever(folder) as retriever:
        assert await find_paths(retriever, "zebra") == ["a.md"]


async def test_folder_is_served_while_it_is_unavailable(
    docs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A network drive that is unavailable for a minute is not an empty folder."""
    async with open_retriever(docs) as retriever:
        with caplog.at_level(logging.WARNING):
            away = docs.rename(docs.with_name("away"))  # noqa: ASYNC240 -- quick
            await anyio.sleep(5 * REFRESH)
            assert await find_paths(retriever, "wombats") == ["sub/notes.txt"]
        away.rename(docs)
        (docs / "more.md").write_text("wombats")
        await wait_until_found(retriever, "wombats", ["more.md", "sub/notes.txt"])

    assert caplog.text.count("Cannot refresh the index of") == 1


@pytest.mark.parametrize("name", ["missing", "reset.md"])
async def test_missing_folder_or_file_is_an_error(docs: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="Cannot serve folder"):
        async with open_retriever(docs / name):
            pass


@pytest.mark.parametrize("content", [b"precious notes", b"SQLite format 3\0" + b"x" * 200])
async def test_file_that_is_not_an_index_is_not_overwritten(docs: Path, content: bytes) -> None:
    file = docs / "notes.db"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match="not the index"):
        async with open_retriever(docs, index=file):
            pass

    assert file.read_bytes() == content


async def test_damaged_index_is_recreated(docs: Path, index: Path) -> None:
    async with open_retriever(docs):
        pass
    for kept_bytes, garbage in ((8192, b""), (4096, b"\xa5" * 20_000), (0, b"")):
        damage(index, kept_bytes, garbage)
        async with open_retriever(docs) as retriever:
            assert await find_paths(retriever, "wombats") == ["sub/notes.txt"]


async def test_index_of_another_folder_is_recreated(docs: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "reset.md").write_text("zebra")
    index = tmp_path / "index.db"
    for folder, query in ((docs, "wombats"), (tmp_path / "other", "zebra")):
        async with open_retriever(folder, index=index) as retriever:
            assert len(await find_paths(retriever, query)) == 1
    async with open_retriever(tmp_path / "other", index=index) as retriever:
        assert await find_paths(retriever, "wombats") == []


async def test_index_of_another_version_is_recreated(docs: Path, index: Path) -> None:
    async with open_retriever(docs):
        pass
    with closing(sqlite3.connect(index)) as connection:
        connection.execute("PRAGMA user_version = 99")
    async with open_retriever(docs) as retriever:
        assert await find_paths(retriever, "wombats") == ["sub/notes.txt"]


async def test_folder_is_served_without_a_writable_cache(
    docs: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    async with open_retriever(docs) as retriever:
        assert await find_paths(retriever, "wombats") == ["sub/notes.txt"]

    assert "Using a temporary index" in caplog.text


async def test_two_servers_can_serve_the_same_folder(docs: Path) -> None:
    async with open_retriever(docs) as one, open_retriever(docs) as other:
        (docs / "more.md").write_text("wombats")
        await wait_until_found(one, "wombats", ["more.md", "sub/notes.txt"])
        await wait_until_found(other, "wombats", ["more.md", "sub/notes.txt"])


def test_search_uses_a_snapshot_of_the_index(docs: Path, tmp_path: Path) -> None:
    """Passages that were found can still be read, even if their files have changed."""
    path = tmp_path / "index.db"
    prepare_index(path, docs)
    with closing(connect_index(path)) as connection:
        writer = IndexWriter(docs, connection, threading.Event())
        writer.refresh()
        reader = IndexReader.open(path)
        with closing(reader.connection), reader.snapshot():
            hits = reader.index.search(FOLDER_DATASET, "wombats", 4)
            (docs / "sub" / "notes.txt").write_text("wombats, and more of them")
            assert writer.refresh()
            passages = reader.passages([hit.segment_id for hit in hits])

    assert [passage.path for passage in passages] == ["sub/notes.txt"]


async def test_concurrent_queries_are_answered_while_files_change(folder: Path) -> None:
    for number in range(30):
        (folder / f"{number}.md").write_text(f"zebra {number}")
    async with (
        serve_retriever(open_retriever(folder)) as server,
        anyio.create_task_group() as group,
    ):

        async def retrieve() -> None:
            for _ in range(10):
                assert len((await server.retrieve("zebra")).records) == 4

        for _ in range(16):
            group.start_soon(retrieve)
        for number in range(30):
            (folder / f"{number}.md").write_text(f"zebra again {number}")
            await anyio.sleep(0.002)


async def test_queries_return_all_results_while_every_file_changes(folder: Path) -> None:
    files = [folder / f"{number}.md" for number in range(30)]

    def write(round_: int) -> None:
        for file in files:
            fresh = file.with_suffix(".new")
            fresh.write_text(f"zebra {round_}")
            fresh.replace(file)

    async def retrieve(retriever: FolderRetriever) -> None:
        for _ in range(100):
            assert len(await find_paths(retriever, "zebra")) == 4

    write(0)
    async with open_retriever(folder) as retriever, anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(retrieve, retriever)
        for round_ in range(1, 30):
            write(round_)
            await anyio.sleep(REFRESH)


@pytest.mark.parametrize(
    "query", ['"', "AND OR NOT", "zebra*", "a:b", "斑", "\0", "- ( ) ^", "NEAR(a b)"]
)
async def test_query_has_no_special_characters(folder: Path, query: str) -> None:
    (folder / "a.md").write_text("斑马 zebra and or not near a b")
    async with serve_retriever(open_retriever(folder)) as server:
        assert (await server.retrieve(query)).status == 200


async def test_very_long_query_is_answered_in_time(folder: Path) -> None:
    """Only the words at its start are used."""
    (folder / "a.md").write_text("zebra")
    book = " ".join(f"word{number}" for number in range(80_000))
    async with serve_retriever(open_retriever(folder), timeout=2.0) as server:
        (record,) = (await server.retrieve(f"zebra {book}")).records

    assert record["title"] == "a.md"


async def test_opening_can_be_cancelled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files indexed until then are kept; the rest is indexed at the next start."""
    for number in range(200):
        (folder / f"{number}.md").write_text("zebra")
    real_open = folder_files.read_file

    def slow(root: Path, path: str) -> bytes:
        time.sleep(0.01)
        return real_open(root, path)

    monkeypatch.setattr(folder_index, "read_file", slow)
    with anyio.move_on_after(0.1) as scope:
        async with open_retriever(folder):
            raise AssertionError
    assert scope.cancelled_caught
    monkeypatch.undo()
    async with open_retriever(folder) as retriever:
        assert retriever.counts.files == 200


async def test_closed_retriever_is_an_error(docs: Path) -> None:
    retriever = open_retriever(docs)
    with pytest.raises(ConfigError, match="not open"):
        await find_paths(retriever, "wombats")
    with pytest.raises(ConfigError, match="not open"):
        retriever.counts  # noqa: B018 -- a property
