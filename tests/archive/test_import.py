"""Import archives: existing documents, faults of the server, settings, later changes."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest
from archive_examples import (
    RULE,
    create_questions,
    create_servers,
    create_texts,
    open_client,
)
from attrs import evolve

from dify_kb import (
    ArchiveError,
    ArchiveProgress,
    AsyncClient,
    Client,
    ConfigError,
    Dataset,
    ModelRef,
    Policy,
    ProcessRule,
    RetrievalModel,
)
from dify_kb.archive.archive_format import Manifest, MemberDigest, hash_file
from dify_kb.archive.restore_plan import find_shared_names
from dify_kb.emulator import Emulator
from dify_kb.models import SegmentChanges, UpdateSegment
from dify_kb.wire import catalog

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
async def dataset(client: AsyncClient) -> Dataset:
    """Return a base of three documents."""
    created = await client.datasets.create("Handbook", indexing_technique="economy")
    await create_texts(client, created, {name: f"text of {name}" for name in ("a", "b", "c")})
    return created


@pytest.fixture
async def archive(client: AsyncClient, dataset: Dataset, tmp_path: Path) -> Path:
    await client.export(dataset, tmp_path / "archive")
    return tmp_path / "archive"


async def list_texts(client: AsyncClient, dataset_id: str) -> dict[str, list[str]]:
    return {
        row.name: [chunk.content async for chunk in client.segments.iter(dataset_id, row.id)]
        async for row in client.documents.iter(dataset_id)
    }


async def test_a_damaged_archive_changes_nothing(
    client: AsyncClient, emulator: Emulator, archive: Path
) -> None:
    shard = archive / "documents/000001.jsonl.gz"
    shard.write_bytes(shard.read_bytes()[:-1])
    known = len(emulator.history)

    with pytest.raises(ArchiveError, match="damaged"):
        await client.import_(archive, name="Copy")

    assert len(emulator.history) == known


@pytest.mark.parametrize("on_existing", ["fail", "skip", "replace"])
async def test_existing_documents(client: AsyncClient, archive: Path, on_existing: str) -> None:
    target = await client.datasets.create("Target", indexing_technique="economy")
    ids = await create_texts(client, target, {"b": "mine", "other": "stays"})

    if on_existing == "fail":
        with pytest.raises(ConfigError, match="'b'"):
            await client.import_(archive, dataset_id=target)
        assert sorted(await list_texts(client, target.id)) == ["b", "other"]
        return
    report = await client.import_(archive, dataset_id=target, on_existing=on_existing)  # type: ignore[arg-type]  # parametrized

    texts = await list_texts(client, target.id)
    assert sorted(texts) == ["a", "b", "c", "other"]
    assert texts["b"] == (["mine"] if on_existing == "skip" else ["text of b"])
    assert report.documents == 3
    assert (report.added, report.updated, report.skipped) == (
        (2, 0, 1) if on_existing == "skip" else (2, 1, 0)
    )
    assert ids["other"] in {row.id async for row in client.documents.iter(target)}


async def test_an_archived_document_is_replaced(client: AsyncClient, archive: Path) -> None:
    """Archived documents cannot be deleted."""
    target = await client.datasets.create("Target", indexing_technique="economy")
    ids = await create_texts(client, target, {"b": "mine"})
    await client.documents.archive(target, [ids["b"]])

    assert await client.import_(archive, dataset_id=target, on_existing="replace")

    assert (await list_texts(client, target.id))["b"] == ["text of b"]


async def test_a_later_import_sends_only_changes(
    client: AsyncClient, emulator: Emulator, dataset: Dataset, archive: Path, tmp_path: Path
) -> None:
    journal = tmp_path / "journal.db"
    first = await client.import_(archive, name="Copy", journal=journal)
    await create_texts(client, dataset, {"b": "a longer text of b", "d": "new"})
    await client.metadata.assign_by_name(
        dataset,
        {row.id: {"team": "x"} async for row in client.documents.iter(dataset) if row.name == "c"},
    )
    await client.export(dataset, archive)
    known = len(emulator.history)

    report = await client.import_(archive, name="Copy", journal=journal)

    assert (report.added, report.updated, report.unchanged) == (1, 1, 2)
    created = [
        exchange for exchange in emulator.history[known:] if "create_by" in exchange.endpoint
    ]
    assert len(created) == 3  # the rule of the dataset is restored by one
    assert (await client.compare(archive, first.dataset_id or "")).counts == {}


async def test_an_original_that_splits_into_other_chunks_is_not_used(
    client: AsyncClient, emulator: Emulator, tmp_path: Path
) -> None:
    """Hundreds of updates would take longer; 1.4 does not tell the rule of a document."""
    dataset = await client.datasets.create("Source", indexing_technique="economy")
    text = "\n".join(f"line {number} of the text" for number in range(60))
    rule = ProcessRule.custom(max_tokens=50, chunk_overlap=0)
    await create_texts(client, dataset, {"a.md": text}, rule)
    await client.export(dataset, tmp_path / "a")
    place = tmp_path / "a/documents/000001.jsonl.gz"
    (line,) = [json.loads(line) for line in gzip.decompress(place.read_bytes()).splitlines()]
    del line["rule"]
    place.write_bytes(gzip.compress(json.dumps(line).encode() + b"\n"))
    manifest = Manifest.from_bytes((tmp_path / "a/manifest.json").read_bytes())
    members = {**manifest.members, "documents/000001.jsonl.gz": MemberDigest(*hash_file(place))}
    changed = evolve(manifest, members=members)
    (tmp_path / "a/manifest.json").write_bytes(changed.to_bytes())
    known = len(emulator.history)

    report = await client.import_(tmp_path / "a", name="Copy")

    assert (report.methods, report.losses) == ({"joined": 1}, {"original files": 1})
    endpoints = [exchange.endpoint for exchange in emulator.history[known:]]
    assert endpoints.count("segments.update") == 0
    assert (await client.compare(tmp_path / "a", report.dataset_id or "")).counts == {}


@pytest.mark.parametrize("on_existing", ["fail", "skip", "replace"])
async def test_a_document_that_somebody_added_to_the_copy_is_not_overwritten(
    client: AsyncClient, dataset: Dataset, archive: Path, tmp_path: Path, on_existing: str
) -> None:
    """After the first import, which did not find it."""
    journal = tmp_path / "j.db"
    copy = (await client.import_(archive, name="Copy", journal=journal)).dataset_id or ""
    target = await client.datasets.get(copy)
    await create_texts(client, target, {"d": "mine"})
    await create_texts(client, dataset, {"d": "theirs"})
    await client.export(dataset, archive)

    report = await client.import_(
        archive,
        name="Copy",
        journal=journal,
        on_existing=on_existing,  # type: ignore[arg-type]  # parametrized
    )

    texts = await list_texts(client, copy)
    assert texts["d"] == (["theirs"] if on_existing == "replace" else ["mine"])
    assert (report.failed, report.skipped, report.updated, report.unchanged) == {
        "fail": (1, 0, 0, 3),
        "skip": (0, 1, 0, 3),
        "replace": (0, 0, 1, 3),
    }[on_existing]


async def test_a_document_deleted_in_the_copy_is_created_again(
    client: AsyncClient, archive: Path, tmp_path: Path
) -> None:
    first = await client.import_(archive, name="Copy", journal=tmp_path / "j.db")
    rows = [row async for row in client.documents.iter(first.dataset_id or "")]
    await client.documents.delete(first.dataset_id or "", rows[0].id)

    report = await client.import_(archive, name="Copy", journal=tmp_path / "j.db")

    assert (report.added, report.unchanged) == (1, 2)
    assert (await client.compare(archive, first.dataset_id or "")).counts == {}


async def test_settings_tags_and_rule_of_a_new_dataset() -> None:
    """The rule goes last: later uploads inherit the latest."""
    here, there = create_servers("1.14.2", "1.16")
    rule = ProcessRule.custom(max_tokens=333, chunk_overlap=3)
    with here, there:
        async with open_client(here) as source, open_client(there) as target:
            dataset = await source.datasets.create(
                "Handbook", description="All of it", indexing_technique="high_quality",
                permission="all_team_members",
            )  # fmt: skip
            await source.datasets.update(
                dataset, retrieval_model=RetrievalModel.full_text(top_k=7, score_threshold=0.2)
            )
            tag = await source.tags.create("manuals")
            await source.tags.bind(dataset, [tag.id])
            await source.metadata.enable_built_in(dataset)
            await source.metadata.create(dataset, "year", type="number")
            await create_texts(source, dataset, {"a.md": "text"}, rule)

            report = await source.copy(dataset, target)

            assert report.imported
            copy = await target.datasets.get(report.imported.dataset_id or "")
            (row,) = (await target.documents.list(copy)).data
            detail = await target.documents.get(copy, row.id)
            assert report.imported.losses == {}
            assert (copy.description, copy.permission) == ("All of it", "all_team_members")
            assert copy.built_in_field_enabled
            assert copy.retrieval_model_dict
            assert (copy.retrieval_model_dict.search_method, copy.retrieval_model_dict.top_k) == (
                "full_text_search", 7,
            )  # fmt: skip
            assert [tag["name"] for tag in copy.tags or ()] == ["manuals"]
            fields = (await target.metadata.list(copy)).doc_metadata
            assert [(field.name, field.type) for field in fields] == [("year", "number")]
            assert detail.dataset_process_rule
            assert ProcessRule.from_response(detail.dataset_process_rule) == rule
            assert (await source.compare(dataset, copy, target=target)).counts == {}


async def test_an_unknown_embedding_model_is_asked_for_before_anything_is_created(
    tmp_path: Path,
) -> None:
    (here,) = create_servers("1.16")
    with here:
        async with open_client(here) as client:
            dataset = await client.datasets.create("Handbook", indexing_technique="high_quality")
            await create_texts(client, dataset, {"a.md": "text"})
            await client.export(dataset, tmp_path / "a")
            unknown = ModelRef(provider="acme/acme/acme", model="embed-1")

            with pytest.raises(ConfigError, match="embed-1") as caught:
                await client.import_(tmp_path / "a", name="Copy", embedding=unknown)

            assert "--embedding" in caught.value.hint
            assert await client.datasets.find("Copy") is None


async def test_equal_names_stay_two_documents(client: AsyncClient) -> None:
    dataset = await client.datasets.create("Twins", indexing_technique="economy")
    for text in (b"first", b"second"):
        created = await client.documents.create_by_file(
            dataset, text, name="a.md", process_rule=RULE, duplicate=False
        )
        await client.documents.wait(dataset, [created])

    report = await client.copy(dataset, client, name="Copy")

    assert report.imported
    contents = [
        chunk.content
        async for row in client.documents.iter(report.imported.dataset_id or "")
        async for chunk in client.segments.iter(report.imported.dataset_id or "", row.id)
    ]
    assert sorted(contents) == ["first", "second"]


async def test_an_existing_dataset_keeps_its_rule(client: AsyncClient, archive: Path) -> None:
    """Later uploads would inherit that of the last document of the archive."""
    target = await client.datasets.create("Target", indexing_technique="economy")
    rule = ProcessRule.custom(max_tokens=444, chunk_overlap=4)
    ids = await create_texts(client, target, {"mine": "text"}, rule)

    assert await client.import_(archive, dataset_id=target)

    detail = await client.documents.get(target, ids["mine"])
    assert detail.dataset_process_rule
    assert ProcessRule.from_response(detail.dataset_process_rule) == rule


async def test_an_empty_dataset_gets_the_rule_of_the_archive(
    client: AsyncClient, archive: Path
) -> None:
    target = await client.datasets.create("Target", indexing_technique="economy")

    report = await client.import_(archive, dataset_id=target)

    assert report.warnings == []
    assert (await client.compare(archive, target)).counts == {}


async def test_a_question_that_lost_its_answer_is_reported(client: AsyncClient) -> None:
    """The server deletes it, for example if a chunk is enabled in the console (measured)."""
    dataset = await create_questions(client)
    (document,) = (await client.documents.list(dataset)).data
    (row, *_) = (await client.segments.list(dataset, document.id)).data
    changes = UpdateSegment(segment=SegmentChanges(enabled=True))
    path = {"dataset_id": dataset.id, "document_id": document.id, "segment_id": row.id}
    await client._sender(catalog.UPDATE_SEGMENT(changes, **path))

    report = await client.copy(dataset, client, name="Copy")

    assert report.imported
    assert report.imported.failures == {}
    assert report.imported.losses == {"missing answers": 1}
    difference = await client.compare(dataset, report.imported.dataset_id or "")
    assert difference.counts == {"chunks": 1}


@pytest.mark.parametrize("version", ["1.4.3", "1.8.1", "1.16"])
async def test_equal_names_of_texts_stay_two_documents(version: str) -> None:
    """A create with the name of a disabled document makes a second one; 1.4.3 has no states."""
    with Emulator(version=version) as server:
        async with open_client(server) as client:
            dataset = await client.datasets.create("Twins", indexing_technique="economy")
            first = await create_texts(client, dataset, {"a note": "first"})
            if version == "1.4.3":
                await create_texts(client, dataset, {"other": "second"})
                rows = [row async for row in client.documents.iter(dataset) if row.name == "other"]
                renamed = await client.documents.rename(
                    dataset, rows[0].id, "a note", process_rule=RULE
                )
                await client.documents.wait(dataset, [renamed])
            else:
                await client.documents.disable(dataset, [*first.values()])
                await create_texts(client, dataset, {"a note": "second"})

            report = await client.copy(dataset, client, name="Copy")

            assert report.imported
            assert report.imported.failures == {}
            assert (await client.compare(dataset, report.imported.dataset_id or "")).counts == {}


@pytest.mark.parametrize(
    "words", [["commit-then-reset x2"], ["commit-then-500", "503 x3"], ["reset x2"], ["late 0.3"]]
)
@pytest.mark.parametrize("endpoint", ["documents.create_by_text", "segments.create"])
async def test_a_lost_answer_creates_nothing_twice(
    client: AsyncClient, emulator: Emulator, archive: Path, endpoint: str, words: list[str]
) -> None:
    emulator.faults.plan(endpoint, words)

    report = await client.import_(archive, name="Copy")

    assert report
    assert len(emulator.documents(report.dataset_id or "")) == 3
    assert (await client.compare(archive, report.dataset_id or "")).counts == {}


async def test_progress_has_totals_and_planned_requests(client: AsyncClient, archive: Path) -> None:
    events: list[ArchiveProgress] = []

    report = await client.import_(archive, name="Copy", on_event=events.append)

    first = next(event for event in events if event.stage == "restore")
    assert (first.done, first.total) == (0, 3)
    assert report.requests <= (first.planned_requests or 0)


async def test_ids_of_documents_are_written(
    client: AsyncClient, dataset: Dataset, archive: Path, tmp_path: Path
) -> None:
    report = await client.import_(archive, name="Copy", ids=tmp_path / "ids.json")

    ids = json.loads((tmp_path / "ids.json").read_text())
    assert ids["dataset"] == report.dataset_id
    assert set(ids["documents"]) == {row.id async for row in client.documents.iter(dataset)}


async def test_originals_are_split_anew_by_the_rule_of_the_dataset(
    client: AsyncClient, tmp_path: Path
) -> None:
    dataset = await client.datasets.create("Source", indexing_technique="economy")
    upload = await client.documents.create_by_file(
        dataset, b"one\ntwo", name="a.md", process_rule=RULE
    )
    await client.documents.wait(dataset, [upload])
    await client.export(dataset, tmp_path / "a")
    target = await client.datasets.create("Target", indexing_technique="economy")
    await create_texts(client, target, {"other.md": "x"}, ProcessRule.automatic())

    assert await client.import_(tmp_path / "a", dataset_id=target, recut=True)

    texts = await list_texts(client, target.id)
    assert len(texts["a.md"]) == 1


async def test_a_dry_run_changes_nothing(
    client: AsyncClient, emulator: Emulator, archive: Path
) -> None:
    known = len(emulator.history)

    report = await client.import_(archive, name="Copy", dry_run=True)

    assert (report.pending, bool(report.planned_requests)) == (3, True)
    assert [exchange.endpoint for exchange in emulator.history[known:]] == ["datasets.list"]


async def test_a_copy_onto_itself_is_refused(client: AsyncClient, dataset: Dataset) -> None:
    with pytest.raises(ConfigError, match="another name"):
        await client.copy(dataset, client)


def test_the_blocking_client_exports_imports_copies_and_compares(
    emulator: Emulator, quick: Policy, tmp_path: Path
) -> None:
    with (
        Client(emulator.url, emulator.api_key, policy=quick) as here,
        Client(emulator.url, emulator.api_key, policy=quick) as there,
    ):
        dataset = here.datasets.create("Handbook", indexing_technique="economy")
        created = here.documents.create_by_text(dataset, "a", "text", process_rule=RULE)
        here.documents.wait(dataset, [created])

        here.export(dataset, tmp_path / "a")
        imported = there.import_(tmp_path / "a", name="Imported")
        copied = here.copy(dataset, there, name="Copied")

        assert copied.imported
        assert here.verify(tmp_path / "a", against=imported.dataset_id)
        assert here.compare(dataset, copied.imported.dataset_id or "", target=there)
        assert not here.compare(
            tmp_path / "a", here.datasets.create("Empty", indexing_technique="economy")
        )


def test_names_that_a_server_would_cut_to_one_are_duplicates() -> None:
    """The second document would replace the first."""
    long = "a" * 200
    names = {f"{long}.pdf": 1, f"{long}.docx": 1, "b.md": 1, "c.md": 2}

    assert find_shared_names(names) == {f"{long}.pdf", f"{long}.docx", "c.md"}
