from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from attrs import evolve

from dify_kb import AsyncClient, Dataset, NewSegment, Policy
from dify_kb.emulator import Emulator
from dify_kb.errors import ConfigError
from dify_kb.models import DocFormName

VERSIONS = ("1.4.3", "1.8.1", "1.12.1", "1.16")


@pytest.fixture(params=VERSIONS)
async def client(request: pytest.FixtureRequest, quick: Policy) -> AsyncIterator[AsyncClient]:
    with Emulator(version=request.param) as emulator:
        async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as opened:
            yield opened


async def make_chunk(client: AsyncClient, doc_form: DocFormName) -> tuple[Dataset, str, str]:
    """Return a dataset, and the ids of a document and of its only chunk."""
    dataset = await client.datasets.create("Base", indexing_technique="economy")
    if doc_form == "qa_model":
        document = await client.documents.create_by_text(
            dataset, "faq", "", doc_form=doc_form, indexing_technique="economy"
        )
    else:
        document = await client.documents.create_by_text(dataset, "faq", "question?")
    await client.documents.wait(dataset, [document])
    document_id = document.document.id
    if doc_form == "qa_model":
        await client.segments.create(
            dataset, document_id, [NewSegment(content="question?", answer="answer")]
        )
    (chunk,) = (await client.segments.list(dataset, document_id)).data
    return await client.datasets.get(dataset.id), document_id, chunk.id


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("changes", "content", "answer"),
    [
        ({"content": "new question?"}, "new question?", "answer"),
        ({"answer": "new answer"}, "question?", "new answer"),
        ({"enabled": True}, "question?", "answer"),
        ({"keywords": ["word"]}, "question?", "answer"),
        ({"content": "new question?", "answer": "new answer"}, "new question?", "new answer"),
    ],
)
async def test_update_keeps_question_and_answer(
    client: AsyncClient, changes: dict[str, object], content: str, answer: str, *, known: bool
) -> None:
    """The server would delete an omitted answer, or fail to index the chunk."""
    dataset, document_id, chunk_id = await make_chunk(client, "qa_model")
    target = dataset if known else dataset.id

    await client.segments.update(target, document_id, chunk_id, **changes)  # type: ignore[arg-type] # of a table

    chunk = await client.segments.get(dataset, document_id, chunk_id)
    assert (chunk.content, chunk.answer, chunk.status) == (content, answer, "completed")


@pytest.mark.parametrize("enabled_before", [True, False])
@pytest.mark.parametrize("doc_form", ["text_model", "qa_model"])
async def test_chunk_can_be_changed_and_disabled_in_one_call(
    client: AsyncClient, doc_form: DocFormName, *, enabled_before: bool
) -> None:
    """The server ignores the changes of a request that disables a chunk."""
    dataset, document_id, chunk_id = await make_chunk(client, doc_form)
    if not enabled_before:
        await client.segments.update(dataset, document_id, chunk_id, enabled=False)

    changed = await client.segments.update(
        dataset, document_id, chunk_id, content="changed", enabled=False
    )

    chunk = await client.segments.get(dataset, document_id, chunk_id)
    assert changed == chunk
    assert (chunk.content, chunk.enabled) == ("changed", False)
    assert chunk.answer == ("answer" if doc_form == "qa_model" else None)


async def test_disabled_chunk_stays_disabled_without_an_error(client: AsyncClient) -> None:
    dataset, document_id, chunk_id = await make_chunk(client, "text_model")

    await client.segments.update(dataset, document_id, chunk_id, enabled=False)
    chunk = await client.segments.update(dataset, document_id, chunk_id, enabled=False)

    assert not chunk.enabled


async def test_answer_cannot_be_removed(client: AsyncClient) -> None:
    dataset, document_id, chunk_id = await make_chunk(client, "qa_model")

    with pytest.raises(ConfigError, match="answer"):
        await client.segments.update(dataset, document_id, chunk_id, answer="")

    assert (await client.segments.get(dataset, document_id, chunk_id)).answer == "answer"


async def test_update_without_changes_is_refused(client: AsyncClient) -> None:
    dataset, document_id, chunk_id = await make_chunk(client, "text_model")

    with pytest.raises(ConfigError, match="no changes"):
        await client.segments.update(dataset, document_id, chunk_id)


@pytest.mark.parametrize(("doc_form", "requests"), [("text_model", 1), ("qa_model", 2)])
async def test_only_a_chunk_that_may_have_an_answer_is_read_first(
    emulator: Emulator, quick: Policy, doc_form: DocFormName, requests: int
) -> None:
    async with AsyncClient(emulator.url, emulator.api_key, policy=quick) as client:
        dataset, document_id, chunk_id = await make_chunk(client, doc_form)
        before = len(emulator.history)

        await client.segments.update(dataset, document_id, chunk_id, content="new")

        assert len(emulator.history) - before == requests
        unknown = evolve(dataset, doc_form=None)
        before = len(emulator.history)

        await client.segments.update(unknown, document_id, chunk_id, content="new")

        assert len(emulator.history) - before == 2
