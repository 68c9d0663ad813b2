"""Round trips of generated knowledge bases: any text, name and metadata that a server stores."""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from archive_examples import RULE, create_servers, open_client
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dify_kb import DocForm, NewSegment
from dify_kb.archive.archived_document import ArchivedChunk, ArchivedDocument
from dify_kb.archive.restore_plan import is_exact_when_split, join_chunks
from dify_kb.rag import chunk, chunk_parents
from dify_kb.rag.chunk import SplitterVersion, build_leading_symbols

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dify_kb.emulator import Emulator

EXAMPLES = 60 if os.environ.get("CHAOS") == "long" else 8

SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u2026\u3010\u3011\u3000\u2014。\uff0cï¿¾"
LETTERS = st.characters(codec="utf-8", exclude_characters="\0")
TEXTS = st.one_of(
    st.text(LETTERS, min_size=1, max_size=30),
    st.builds(
        lambda symbol, rest: symbol + rest, st.sampled_from(SYMBOLS), st.text(LETTERS, max_size=9)
    ),
    st.sampled_from(["<|x|>", "a\r\nb", "  ", "\n", "a  b", "x" * 4000, "x" * 4001, "é" * 20_000]),
)
CHUNKS = st.fixed_dictionaries(
    {"content": TEXTS, "enabled": st.sampled_from([True, True, True, False])}
)
NAMES = st.one_of(
    st.text(LETTERS, min_size=1, max_size=20),
    st.sampled_from(
        ["a.md", "a/b.txt", "../../x", "a" * 200, "名前.md", "a\\b", "100%.txt", "a_b"]
    ),
)
VALUES = st.one_of(
    st.text(LETTERS, max_size=20), st.integers(-(2**40), 2**40), st.floats(-1e9, 1e9)
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "chunks": st.lists(CHUNKS, max_size=6) | st.lists(CHUNKS, min_size=22, max_size=26),
        "metadata": st.dictionaries(st.sampled_from(["text", "number"]), VALUES, max_size=2),
        "state": st.sampled_from(["", "", "", "disabled", "archived", "both"]),
    }
)
BASES = st.dictionaries(NAMES, DOCUMENTS, min_size=1, max_size=4)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Emulator, Emulator]]:
    """Start an old and a new server."""
    here, there = create_servers("1.12.1", "1.16")
    with here, there:
        yield here, there


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(base=BASES, form=st.sampled_from([DocForm.TEXT, DocForm.QA]), is_forward=st.booleans())
def test_a_generated_base_is_equal_after_a_copy(
    servers: tuple[Emulator, Emulator],
    base: dict[str, Any],
    form: DocForm,
    is_forward: bool,  # noqa: FBT001 -- drawn
) -> None:
    """Between versions with other splitters, in both directions."""
    here, there = servers if is_forward else reversed(servers)
    anyio.run(copy_and_compare, here, there, base, form)


async def copy_and_compare(
    here: Emulator, there: Emulator, base: dict[str, Any], form: DocForm
) -> None:
    async with open_client(here) as source, open_client(there) as target:
        dataset = await source.datasets.create(
            f"base {os.urandom(8).hex()}", indexing_technique="economy"
        )
        for name, document in base.items():
            await create_document(source, evolve(dataset, doc_form=form), name, document)

        report = await source.copy(dataset, target)

        assert report.imported
        assert report.imported.failures == {}
        difference = await source.compare(dataset, report.imported.dataset_id or "", target=target)
        assert difference.counts == {}, difference.differences[:3]


async def create_document(source: Any, dataset: Any, name: str, document: dict[str, Any]) -> None:
    created = await source.documents.create_by_text(dataset, name, "", process_rule=RULE)
    await source.documents.wait(dataset, [created])
    id_ = created.document.id
    contents = [chunk["content"] for chunk in document["chunks"]]
    new = [
        NewSegment(content=text if text.strip() else "blank", answer=f"answer {number}")
        for number, text in enumerate(contents)
    ]
    rows = await source.segments.create_many(dataset, id_, new) if new else []
    for row, text, chunk_ in zip(rows, contents, document["chunks"], strict=True):
        if not text.strip():
            await source.segments.update(dataset, id_, row.id, content=text)
        if not chunk_["enabled"]:
            await source.segments.update(dataset, id_, row.id, enabled=False)
    if document["metadata"]:
        fields = {"text": "string", "number": "number"}
        values = {
            field: value
            for field, value in document["metadata"].items()
            if isinstance(value, str) == (fields[field] == "string")
        }
        if values:
            await source.metadata.assign_by_name(dataset, {id_: values})
    if document["state"] in {"disabled", "both"}:
        await source.documents.disable(dataset, [id_])
    if document["state"] in {"archived", "both"}:
        await source.documents.archive(dataset, [id_])


SPLITTERS = [
    SplitterVersion(leading_symbols=build_leading_symbols(kept="\u2026\u3010\u3011")),
    SplitterVersion(leading_symbols=build_leading_symbols(added="[]", kept="\u2026\u3010\u3011")),
    SplitterVersion(leading_symbols=build_leading_symbols(added="!"), escapes_separator=False),
]
"""Those of 1.14.2, 1.12.1 and 1.4.3 (measured)."""


@settings(max_examples=10 * EXAMPLES, deadline=None)
@given(contents=st.lists(TEXTS, min_size=1, max_size=12), seed=st.integers(0, 2**32))
def test_joined_parents_are_split_into_the_same(contents: list[str], seed: int) -> None:
    document = ArchivedDocument(
        id="1",
        name="a",
        form="hierarchical_model",
        chunks=[ArchivedChunk(content=text) for text in contents],
    )

    joined = join_chunks(document, Random(seed))

    found = [parent.content for parent in chunk_parents([joined.text], joined.rule)]
    assert len(found) == len(contents)
    for text, piece in zip(contents, found, strict=True):
        assert piece == text or not is_exact_when_split(text, is_parent=True)


@settings(max_examples=20 * EXAMPLES, deadline=None)
@given(contents=st.lists(TEXTS, min_size=1, max_size=12), seed=st.integers(0, 2**32))
def test_joined_chunks_are_split_into_the_same_on_every_version(
    contents: list[str], seed: int
) -> None:
    """In order and in number; those that a server changes have a placeholder."""
    document = ArchivedDocument(
        id="1",
        name="a",
        form="text_model",
        chunks=[ArchivedChunk(content=text) for text in contents],
    )

    joined = join_chunks(document, Random(seed))

    for splitter in SPLITTERS:
        found = chunk([joined.text], joined.rule, splitter)
        assert len(found) == len(contents)
        for text, piece in zip(contents, found, strict=True):
            assert piece == text or not is_exact_when_split(text)
