"""Knowledge bases that the tests of archives export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attrs import evolve

from dify_kb import AsyncClient, Dataset, DocForm, NewSegment, Policy, ProcessRule
from dify_kb.emulator import Emulator, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

VERSIONS: Final[tuple[str, ...]] = ("1.4.3", "1.8.1", "1.12.1", "1.14.2", "1.16")
RULE = ProcessRule.custom(max_tokens=200, chunk_overlap=0)
PARENT_CHILD = ProcessRule.parent_child(max_tokens=200, child_max_tokens=60)
FULL_DOCUMENT = ProcessRule.parent_child(parent_mode="full-doc", child_max_tokens=60)

HOSTILE = (
    "# a heading",
    "naïve ¿Qué? 3¾ ÿ",
    "<|im_start|> and |>",
    "one\r\ntwo",
    "x" * 5000,
    "...",
    "   ",
    "  padded  ",
    "[link](https://example.com) first",
    "[not a link",
    "…【】! ¡",
    "\u3000ideographic space",
    "tab\tand\x0bvertical",
)
"""Contents that some server version changes when it splits a text, or cannot have at all."""


def create_servers(*versions: str) -> list[Emulator]:
    """Create a server per version, with embedding models, not started."""
    return [Emulator(version=version, settings=Settings(models=True)) for version in versions]


def open_client(server: Emulator) -> AsyncClient:
    return AsyncClient(server.url, server.api_key, policy=Policy().scaled(0.01))


async def create_texts(
    client: AsyncClient,
    dataset: Dataset,
    texts: Mapping[str, str],
    rule: ProcessRule = RULE,
    form: DocForm = DocForm.TEXT,
) -> dict[str, str]:
    """Create documents from texts; return their ids by name."""
    target = evolve(dataset, doc_form=form)
    created = {
        name: await client.documents.create_by_text(target, name, text, process_rule=rule)
        for name, text in texts.items()
    }
    await client.documents.wait(dataset, list(created.values()))
    return {name: row.document.id for name, row in created.items()}


async def replace_chunks(
    client: AsyncClient, dataset: Dataset, document_id: str, contents: Sequence[str]
) -> None:
    """Set the contents of the first chunks of a document."""
    rows = (await client.segments.list(dataset, document_id, limit=100)).data
    for row, content in zip(rows, contents, strict=False):
        await client.segments.update(dataset, document_id, row.id, content=content)


async def create_handbook(client: AsyncClient, version: str, name: str = "Handbook") -> Dataset:
    """Create an economy base with edited, disabled and archived content and metadata."""
    dataset = await client.datasets.create(
        name, indexing_technique="economy", description="All about it"
    )
    lines = "\n".join(f"line {number} of the long text" for number in range(130))
    ids = await create_texts(
        client,
        dataset,
        {
            "long.txt": lines,
            "hostile": "\n".join(f"row {number}" for number in range(len(HOSTILE))),
            "a/b:c": "a name that a file cannot have",
            "empty": "",
            "disabled.md": "not found\nat all",
            "archived.md": "not found either",
            "both.md": "disabled and archived",
        },
    )
    upload = await client.documents.create_by_file(
        dataset, b"from a file\n\nwith two chunks", name="file.md", process_rule=RULE
    )
    await client.documents.wait(dataset, [upload])
    await replace_chunks(client, dataset, ids["hostile"], HOSTILE)
    rows = (await client.segments.list(dataset, ids["long.txt"], limit=100)).data
    await client.segments.update(dataset, ids["long.txt"], rows[5].id, enabled=False)
    await client.segments.update(dataset, ids["long.txt"], rows[9].id, content="# edited")
    await client.segments.update(
        dataset, ids["long.txt"], rows[12].id, content=rows[12].content, keywords=["zebra"]
    )
    await client.metadata.create(dataset, "unused", type="time")
    await client.metadata.assign_by_name(
        dataset,
        {ids["long.txt"]: {"team": "infra", "year": 2024}, ids["empty"]: {"team": "123"}},
    )
    if version != "1.4.3":
        await client.documents.disable(dataset, [ids["disabled.md"], ids["both.md"]])
        await client.documents.archive(dataset, [ids["archived.md"], ids["both.md"]])
    return dataset


async def create_questions(client: AsyncClient, name: str = "Questions") -> Dataset:
    """Create a base of questions and answers."""
    dataset = await client.datasets.create(name, indexing_technique="economy")
    ids = await create_texts(client, dataset, {"qa.txt": ""}, form=DocForm.QA)
    await client.segments.create_many(
        evolve(dataset, doc_form=DocForm.QA),
        ids["qa.txt"],
        [NewSegment(content=f"# Question {n}?", answer=f"Answer {n}.") for n in range(30)],
    )
    rows = (await client.segments.list(dataset, ids["qa.txt"], limit=100)).data
    await client.segments.update(dataset, ids["qa.txt"], rows[3].id, enabled=False)
    return dataset


async def create_parents(
    client: AsyncClient, rule: ProcessRule, name: str, version: str
) -> Dataset:
    """Create a high-quality base with parents, an added and an edited child chunk.

    1.8.1 cannot edit child chunks.
    """
    dataset = await client.datasets.create(name, indexing_technique="high_quality")
    text = "\n\n".join(
        f"Parent {number} begins.\nIts first child.\nIts second child." for number in range(30)
    )
    ids = await create_texts(client, dataset, {"tree.md": text}, rule, DocForm.HIERARCHICAL)
    row, *rows = (await client.segments.list(dataset, ids["tree.md"], limit=100)).data
    path = (dataset, ids["tree.md"], row.id)
    await client.child_chunks.create(*path, ". added by hand")
    if version != "1.8.1":
        other = row if rule is FULL_DOCUMENT else (rows[0])
        path = (dataset, ids["tree.md"], other.id)
        children = (await client.child_chunks.list(*path)).data
        await client.child_chunks.update(*path, children[1].id, "# edited by hand")
    return dataset


def read_members(archive: Path) -> dict[str, bytes]:
    """Return the members of a folder, without the journal of the export."""
    return {
        path.relative_to(archive).as_posix(): path.read_bytes()
        for path in archive.rglob("*")
        if path.is_file() and not path.name.startswith("state.sqlite")
    }
