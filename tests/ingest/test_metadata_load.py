"""Loads with sources of metadata, on the embedded server: values, second runs, changes."""

from __future__ import annotations

import json
import sys
import threading
import zipfile
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio
import pytest
from attrs import define, field
from load_examples import count_creates, count_outcomes, create_dataset

from dify_kb import (
    ArchiveSource,
    AsyncClient,
    Auto,
    ConfigError,
    Dataset,
    FileTimes,
    FrontMatter,
    Item,
    ItemResult,
    LoadMetadata,
    LoadReport,
    PathPattern,
    Sidecar,
    Source,
    Table,
)
from dify_kb.emulator import Emulator

HEADED = "---\ntitle: Reset\nyear: 2024\nday: 2024-05-01\ntags: [a, b]\n---\n# Reset\nHold it.\n"


@define
class Loads:
    """Loads of one source into a new dataset, with the requests of each."""

    client: AsyncClient
    emulator: Emulator
    dataset: Dataset
    results: dict[str, ItemResult] = field(factory=dict)
    requests: Counter[str] = field(factory=Counter)

    async def load(self, source: Source, metadata: LoadMetadata, **options: object) -> LoadReport:
        before = len(self.emulator.history)
        self.results.clear()
        try:
            return await self.client.load(
                self.dataset,
                source,
                metadata=metadata,
                on_event=lambda event: (
                    self.results.update({event.key: event})
                    if isinstance(event, ItemResult)
                    else None
                ),
                **options,  # type: ignore[arg-type]  # of the test
            )
        finally:
            history = self.emulator.history[before:]
            self.requests = Counter(exchange.endpoint for exchange in history)

    async def values(self) -> Mapping[str, Mapping[str, object]]:
        """Return the values of each document by field name, without the built-in ones."""
        built_in = {"document_name", "uploader", "upload_date", "last_update_date", "source"}
        return {
            row.name: {
                name: value for name, value in row.metadata_values.items() if name not in built_in
            }
            async for row in self.client.documents.iter(self.dataset)
        }

    async def types(self) -> Mapping[str, str]:
        fields = await self.client.metadata.list(self.dataset)
        return {row.name: str(row.type) for row in fields.doc_metadata}

    async def text(self, name: str) -> str:
        """Return the text of a document as indexed."""
        document = await anext(
            row async for row in self.client.documents.iter(self.dataset) if row.name == name
        )
        segments = self.client.segments.iter(self.dataset, document.id)
        return "\n".join([segment.content async for segment in segments])


@pytest.fixture
async def loads(client: AsyncClient, emulator: Emulator) -> Loads:
    return Loads(client, emulator, await create_dataset(client))


def write_sources(folder: Path) -> LoadMetadata:
    """Write a file with metadata from each source, and return the sources."""
    (folder / "infra" / "2024").mkdir(parents=True)
    (folder / "infra" / "2024" / "a.md").write_text(HEADED)
    (folder / "b.txt").write_text("a text")
    write_sidecar(folder / "b.txt", {"owner": "jo", "rank": 7})
    table = folder.parent / "meta.csv"
    table.write_text("key,level:number\nb.txt,3\nmissing.md,4\n")
    return [
        {"origin": "test"},
        Auto(),
        PathPattern("{team}/{year:number}/**"),
        FrontMatter(),
        Sidecar(),
        Table(table),
        FileTimes(),
    ]


def write_sidecar(path: Path, attributes: Mapping[str, object]) -> None:
    Path(f"{path}.metadata.json").write_text(json.dumps({"metadataAttributes": attributes}))


async def test_values_come_from_all_sources(loads: Loads, folder: Path) -> None:
    metadata = write_sources(folder)

    report = await loads.load(folder, metadata)

    assert count_outcomes(report) == {"added": 2}
    assert report.metadata_set == 2
    (warning,) = report.warnings
    assert warning.endswith("no file has the key of 1 of 2 rows, such as 'missing.md'.")
    values = await loads.values()
    modified = (folder / "b.txt").stat().st_mtime_ns // 10**9
    assert values["b.txt"] == {
        "origin": "test", "path": "b.txt", "stem": "b", "extension": "txt", "owner": "jo",
        "rank": 7, "level": 3, "modified": modified,
    }  # fmt: skip
    first = dict(values["infra__2024__a.md"])
    first.pop("modified")
    assert first == {
        "origin": "test", "path": "infra/2024/a.md", "folder": "infra/2024", "stem": "a",
        "extension": "md", "team": "infra", "year": 2024, "title": "Reset", "tags": "a, b",
        "day": 1714521600.0,
    }  # fmt: skip
    assert (await loads.types())["day"] == (await loads.types())["modified"] == "time"
    assert (await loads.types())["level"] == "number"
    assert await loads.text("infra__2024__a.md") == "Reset\nHold it."


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trust the times of files that were just written."""
    monkeypatch.setattr("dify_kb.ingest.sources.found_file.SETTLE_SECONDS", -1)


def forbid_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a document is read."""

    def fail(*arguments: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr("dify_kb.ingest.planning.planner.read_content", fail)
    monkeypatch.setattr("dify_kb.ingest.metadata.collect_metadata.read_head", fail)
    monkeypatch.setattr("dify_kb.ingest.engine.uploader.read_content", fail)


@pytest.mark.usefixtures("settled")
async def test_second_run_reads_and_sends_nothing(
    loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = write_sources(folder)
    await loads.load(folder, metadata)
    forbid_reads(monkeypatch)

    report = await loads.load(folder, metadata)

    assert count_outcomes(report) == {"unchanged": 2}
    assert report.metadata_set == 0
    assert loads.requests.keys() <= {"datasets.get", "metadata.list"}


@pytest.mark.usefixtures("settled")
async def test_changed_metadata_costs_one_request(
    loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is indexed again; up to 50 documents share a request."""
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"text {number}")
        write_sidecar(folder / f"{number}.txt", {"rank": 1})
    await loads.load(folder, Sidecar())
    for number in range(60):
        write_sidecar(folder / f"{number}.txt", {"rank": 2})
    forbid_reads(monkeypatch)

    report = await loads.load(folder, Sidecar())

    assert count_outcomes(report) == {"unchanged": 60}
    assert report.metadata_set == 60
    assert "documents.create_by_file" not in loads.requests
    assert loads.requests["metadata.assign"] <= 3
    assert {values["rank"] for values in (await loads.values()).values()} == {2}
    assert count_outcomes(await loads.load(folder, Sidecar())) == {"unchanged": 60}
    assert "metadata.assign" not in loads.requests


async def test_sidecars_are_not_documents(loads: Loads, folder: Path) -> None:
    (folder / "a.md").write_text("a")
    write_sidecar(folder / "a.md", {"x": "y"})

    named = [folder / "a.md", folder / "a.md.metadata.json"]
    report = await loads.load(named, Sidecar())

    assert count_outcomes(report) == {"added": 1}
    assert await loads.values() == {"a.md": {"x": "y"}}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("size", [10, 100_000])
async def test_header_is_read_from_files_of_any_size(
    loads: Loads, folder: Path, size: int, *, keep: bool
) -> None:
    """Large files are streamed from disk, without their header."""
    body = "".join(f"line {number}\n" for number in range(size // 10))
    (folder / "a.md").write_text(f"---\ntitle: Reset\n---\n{body}")

    report = await loads.load(folder, FrontMatter(keep=keep))

    assert count_outcomes(report) == {"added": 1}
    text = await loads.text("a.md")
    assert ("title: Reset" in text) is keep
    assert {f"line {number}" for number in range(size // 10)} <= set(text.splitlines())
    assert await loads.values() == {"a.md": {"title": "Reset"}}
    assert count_outcomes(await loads.load(folder, FrontMatter(keep=keep))) == {"unchanged": 1}


async def test_changed_header_sends_the_file_again(loads: Loads, folder: Path) -> None:
    (folder / "a.md").write_text("---\ntitle: one\n---\ntext")
    await loads.load(folder, FrontMatter())
    (folder / "a.md").write_text("---\ntitle: two!\n---\ntext")

    report = await loads.load(folder, FrontMatter())

    assert count_outcomes(report) == {"updated": 1}
    assert await loads.values() == {"a.md": {"title": "two!"}}


@pytest.mark.usefixtures("settled")
async def test_switching_front_matter_on_and_off_sends_only_files_with_a_header(
    loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "headed.md").write_text("---\ntitle: one\n---\ntext")
    (folder / "plain.md").write_text("text")
    (folder / "other.txt").write_text("---\ntitle: one\n---\ntext")
    labels = {"team": "infra"}
    await loads.load(folder, labels)

    report = await loads.load(folder, [labels, FrontMatter()])
    assert count_outcomes(report) == {"updated": 1, "unchanged": 2}
    assert await loads.text("headed.md") == "text"
    assert loads.requests["metadata.assign"] == 1

    report = await loads.load(folder, [labels, FrontMatter(keep=True)])
    assert count_outcomes(report) == {"updated": 1, "unchanged": 2}
    assert "title: one" in await loads.text("headed.md")

    with monkeypatch.context() as context:
        forbid_reads(context)
        report = await loads.load(folder, labels)
        assert count_outcomes(report) == {"unchanged": 3}

    await loads.load(folder, [labels, FrontMatter()])
    report = await loads.load(folder, labels)
    assert count_outcomes(report) == {"updated": 1, "unchanged": 2}
    assert "title: one" in await loads.text("headed.md")


@pytest.mark.usefixtures("settled")
async def test_switching_on_kept_front_matter_only_sets_metadata(
    loads: Loads, folder: Path
) -> None:
    (folder / "headed.md").write_text("---\ntitle: one\n---\ntext")
    (folder / "plain.md").write_text("text")
    await loads.load(folder, None)

    report = await loads.load(folder, FrontMatter(keep=True))

    assert (count_outcomes(report), report.metadata_set) == ({"unchanged": 2}, 1)
    assert await loads.values() == {"headed.md": {"title": "one"}, "plain.md": {}}
    await loads.load(folder, FrontMatter(keep=True))
    assert loads.requests.keys() <= {"datasets.get", "metadata.list"}


async def test_failed_assignment_is_repeated_without_sending(loads: Loads, folder: Path) -> None:
    (folder / "a.md").write_text(HEADED)
    loads.emulator.faults.plan("metadata.assign", ["400"])
    report = await loads.load(folder, FrontMatter())
    assert count_outcomes(report) == {"failed": 1}

    report = await loads.load(folder, FrontMatter())

    assert (count_outcomes(report), report.metadata_set) == ({"unchanged": 1}, 1)
    assert (await loads.values())["a.md"]["title"] == "Reset"


async def test_header_is_set_on_a_document_whose_response_was_lost(
    loads: Loads, folder: Path
) -> None:
    (folder / "a.md").write_text(HEADED)
    loads.emulator.faults.plan("documents.create_by_file", ["commit-then-close"])

    report = await loads.load(folder, FrontMatter())

    assert count_outcomes(report) == {"added": 1}
    assert (await loads.values())["a.md"]["title"] == "Reset"
    assert count_creates(loads.emulator) == 1


async def test_values_of_another_type_are_warnings(loads: Loads, folder: Path) -> None:
    """No file fails, and the other values are set."""
    for name, year in (("a", "2024"), ("b", "soon"), ("c", "2025"), ("d", "soon")):
        (folder / f"{name}.md").write_text(f"---\nyear: {year}\nteam: x\ndraft: true\n---\ntext")
    await loads.client.metadata.create(loads.dataset, "year", type="number")

    report = await loads.load(folder, FrontMatter())

    assert count_outcomes(report) == {"added": 4}
    assert await loads.values() == {
        "a.md": {"year": 2024, "team": "x"}, "b.md": {"team": "x"},
        "c.md": {"year": 2025, "team": "x"}, "d.md": {"team": "x"},
    }  # fmt: skip
    assert len(loads.results["b.md"].warnings) == 2
    warnings = sorted(report.warnings)
    assert "'year' of type number: 'soon'; the field was not set (in 2 files" in warnings[0]
    assert "'draft': True; the field was not set (in 4 files" in warnings[1]
    assert len(warnings) == 2


async def test_texts_are_converted_to_the_type_of_their_field(loads: Loads) -> None:
    for name, kind in (("year", "number"), ("seen", "time")):
        await loads.client.metadata.create(loads.dataset, name, type=kind)  # type: ignore[arg-type]  # a row
    values = {"year": "2024", "seen": "2024-05-01"}

    await loads.load([Item("a.md", text="a", metadata=values)], None)
    await loads.load([Item("b.md", text="b")], values)

    stored = {"year": 2024, "seen": 1714521600.0}
    assert await loads.values() == {"a.md": stored, "b.md": stored}


async def test_functions_and_items_never_fail_a_file(loads: Loads) -> None:
    bad: Mapping[str, object] = {
        "none": None, "naive": datetime(2024, 5, 1),  # noqa: DTZ001 -- on purpose
        "flag": True, "list": [1], "": "x",
        "source": "x", "long": "\ud800", "good": "x",
    }  # fmt: skip

    report = await loads.load([Item("a.md", text="a", metadata=bad)], lambda _: bad)

    assert count_outcomes(report) == {"added": 1}
    assert await loads.values() == {"a.md": {"good": "x"}}
    assert len(set(loads.results["a.md"].warnings)) == 7


async def test_field_that_the_server_rejects_is_one_request_and_warnings(
    loads: Loads, folder: Path
) -> None:
    for number in range(5):
        (folder / f"{number}.md").write_text(f"text {number}")
    loads.emulator.faults.plan("metadata.create", ["400"])

    report = await loads.load(folder, lambda _: {"odd": "x"})

    assert count_outcomes(report) == {"added": 5}
    assert loads.requests["metadata.create"] == 1
    assert "in 5 files" in report.warnings[0]


@pytest.mark.parametrize(
    "metadata",
    [
        {"source": "x"},
        PathPattern("{team}/**"),
        Table("missing.csv"),
    ],
)
async def test_what_is_wrong_for_all_files_stops_before_the_first_upload(
    loads: Loads, folder: Path, metadata: LoadMetadata
) -> None:
    (folder / "a.md").write_text("text")
    wrong: LoadMetadata = [metadata, {"upload_date": "x"}]  # type: ignore[list-item]  # one source

    with pytest.raises(ConfigError):
        await loads.load(folder, wrong)

    assert not loads.requests


async def test_front_matter_without_pyyaml_is_an_error(
    loads: Loads, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (folder / "a.md").write_text("text")

    with pytest.raises(ConfigError, match=r"pyyaml.*dify-kb\[metadata\]"):
        await loads.load(folder, FrontMatter())


@pytest.mark.usefixtures("settled")
async def test_members_of_an_archive_have_metadata(
    loads: Loads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sidecars of other sources are compared by their token; unchanged ones are not read."""
    path = tmp_path / "docs.zip"

    def write(rank: int) -> Source:
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in (("a.md", HEADED), ("b.md", f"---\nx: y\n---\n{'long ' * 20_000}")):
                archive.writestr(zipfile.ZipInfo(name), text)
            sidecar = json.dumps({"metadataAttributes": {"rank": rank}})
            archive.writestr(zipfile.ZipInfo("a.md.metadata.json"), sidecar)
        return ArchiveSource(path)

    metadata: LoadMetadata = [FrontMatter(), Sidecar(), FileTimes()]

    report = await loads.load(write(1), metadata)
    assert count_outcomes(report) == {"added": 2}
    values = await loads.values()
    assert values["a.md"]["rank"] == 1
    assert values["a.md"]["title"] == "Reset"
    assert values["b.md"]["x"] == "y"
    assert not (await loads.text("b.md")).startswith("---")

    with monkeypatch.context() as context:
        forbid_reads(context)
        context.setattr(ArchiveSource, "open", None)
        assert count_outcomes(await loads.load(write(1), metadata)) == {"unchanged": 2}
        assert "metadata.assign" not in loads.requests

    report = await loads.load(write(2), metadata)
    assert (count_outcomes(report), report.metadata_set) == ({"unchanged": 2}, 1)
    assert (await loads.values())["a.md"]["rank"] == 2


async def test_dry_run_predicts_metadata_and_sets_nothing(loads: Loads, folder: Path) -> None:
    (folder / "a.md").write_text("text")
    await loads.load(folder, None)

    report = await loads.load(folder, {"x": "y"}, dry_run=True)

    assert count_outcomes(report) == {"pending": 1}
    assert "metadata would be set" in str(loads.results["a.md"].reason)
    assert await loads.values() == {"a.md": {}}


ODD_HEADERS = (
    b"", b"a", b"a: [", b"\t", b"a: &x [1]\nb: *x", b"\xff", b"\x00",
    b"a: 1\na: 2", b"- 1", b"a:\n  b: 1",
    b"x: 2024-02-30", b"a: " + b"x" * 70_000, b"a: " + b"[" * 2_000, b"a: 1\n---x: 2",
    b"\xef\xbb\xbf",
    b"? a\n: b", b"!!set {a}", b"<<: {a: 1}", b"source: x", b"a: .inf", b"a: .nan",
    b"%YAML 9.9", b"'",
)  # fmt: skip


async def test_documents_with_any_header_are_loaded(loads: Loads, folder: Path) -> None:
    """Whatever the header is, it never fails its file."""
    for number, header in enumerate(ODD_HEADERS):
        for end in (b"\n---\n", b"\r\n---\r\n", b"\n"):
            name = f"{number}-{len(end)}.md"
            (folder / name).write_bytes(b"---\n" + header + end + b"some text of the document\n")

    report = await loads.load(folder, FrontMatter())

    assert count_outcomes(report) == {"added": 3 * len(ODD_HEADERS)}
    assert count_outcomes(await loads.load(folder, FrontMatter())) == {
        "unchanged": 3 * len(ODD_HEADERS)
    }


async def test_a_load_with_a_hanging_metadata_function_is_cancelled_at_once(
    client: AsyncClient, folder: Path
) -> None:
    """The function of a user may wait for a network share or a server of its own."""
    (folder / "a.md").write_text("text")
    dataset = await create_dataset(client)
    is_called, may_end, has_ended = threading.Event(), threading.Event(), threading.Event()

    def hang(item: Item) -> Mapping[str, str]:
        is_called.set()
        may_end.wait(60)
        has_ended.set()
        return {"team": item.key}

    async with anyio.create_task_group() as group:
        group.start_soon(partial(client.load, dataset, folder, metadata=hang))
        while not is_called.is_set():  # noqa: ASYNC110 -- a thread's
            await anyio.sleep(0.005)
        group.cancel_scope.cancel()

    assert not has_ended.is_set()
    may_end.set()
    report = await client.load(dataset, folder, metadata={"team": "infra"})
    assert (report.added, report.metadata_set) == (1, 1)
