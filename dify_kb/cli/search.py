from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import anyio
import typer
from rich.text import Text

import dify_kb
from dify_kb.errors import KnowledgeError

from . import name_lookup, option_types, output
from .run_command import CommandContext
from .table_layout import wrap_words

if TYPE_CHECKING:
    from dify_kb import AsyncClient, Dataset, Record

MAX_PASSAGE = 400
"""The length of a printed passage, in characters."""

MAX_WIDTH = 96
"""The width of printed passages, in characters."""

MIN_NAME = 16
"""The width of a document's name on a narrow terminal."""

INDENT = " " * 3

Method = Literal["semantic", "full_text", "hybrid", "keyword"]


def search(
    context: typer.Context,
    query: Annotated[
        str, typer.Argument(metavar="QUERY", help="Text to search for, 1 to 250 characters.")
    ],
    dataset: option_types.DatasetOption,
    method: Annotated[
        Method | None,
        typer.Option(help="Search method; default: semantic, in an economy dataset keyword."),
    ] = None,
    top_k: Annotated[
        int, typer.Option(metavar="N", min=1, help="Maximum passages per search.")
    ] = 4,
    score_threshold: Annotated[
        float | None,
        typer.Option(
            metavar="SCORE", min=0, max=1, help="Minimum score of a passage; default: none."
        ),
    ] = None,
    filter_: option_types.FilterOption = None,
) -> None:
    """Search a dataset and print the best passages.

    A name such as 'Docs {n}' searches the datasets Docs 1, Docs 2, … together.
    """
    from . import document_selection

    command: CommandContext = context.obj
    conditions = document_selection.parse_conditions(filter_ or ())

    async def retrieve(client: AsyncClient, target: Dataset) -> Sequence[Record]:
        is_high_quality = target.indexing_technique is dify_kb.IndexingTechnique.HIGH_QUALITY
        response = await client.datasets.retrieve(
            target,
            query,
            method=method or ("semantic" if is_high_quality else None),
            top_k=top_k,
            score_threshold=score_threshold,
            filter=await document_selection.resolve_conditions(client, target, conditions),
        )
        return response.records

    async def main() -> int:
        async with command.create_client() as client:
            records: Sequence[tuple[str | None, Record]]
            if name_lookup.SERIES in dataset:
                series = await name_lookup.require_series(client, dataset)
                records = (await _search_series(client, query, retrieve, series.values()))[:top_k]
            else:
                target = await name_lookup.find_dataset(client, dataset)
                records = [(None, record) for record in await retrieve(client, target)]
        for rank, (name, record) in enumerate(records, 1):
            if command.json:
                place = {} if name is None else {"dataset": name}
                fields = {"type": "record", "rank": rank, **place, **output.to_fields(record)}
                output.print_json(fields)
            else:
                _print_record(rank, record, name)
        if not records:
            output.note("No passages found.")
        elif all(record.score == 0 for _, record in records):
            output.note(
                "The server sent no scores: passages are sorted by the number of words that they"
                " share with the query."
            )
        return 0

    command.run(main)


async def _search_series(
    client: AsyncClient,
    query: str,
    retrieve: Callable[[AsyncClient, Dataset], Awaitable[Sequence[Record]]],
    datasets: Iterable[Dataset],
) -> Sequence[tuple[str | None, Record]]:
    """Return the passages of several datasets, best first.

    Those without scores are sorted as in one dataset, by the number of words of the query.
    """
    from dify_kb.rag.tokenize import tokenize  # most searches do not need it

    found: dict[str, Sequence[Record]] = {}
    failures: list[KnowledgeError] = []

    async def search_one(dataset: Dataset) -> None:
        try:
            found[dataset.name] = await retrieve(client, dataset)
        except KnowledgeError as error:
            failures.append(error)

    async with anyio.create_task_group() as group:
        for dataset in datasets:
            group.start_soon(search_one, dataset)
    if failures:
        raise failures[0]
    words = {*tokenize(query)}

    def goodness(row: tuple[str, Record]) -> tuple[float, int]:
        score = row[1].score or 0
        return score, 0 if score else len(words.intersection(tokenize(row[1].segment.content)))

    rows = [(name, record) for name, records in sorted(found.items()) for record in records]
    return sorted(rows, key=goodness, reverse=True)


def _print_record(rank: int, record: Record, dataset: str | None) -> None:
    segment = record.segment
    position = f"chunk {segment.position}" if segment.position is not None else "chunk"
    score = f", score {record.score:.3f}" if record.score else ""
    layout = output.table_format()
    place = "" if dataset is None else f"{output.escape(dataset)}, "
    start, end = f"{rank}. ", f"  ({place}{position}{score})"
    name = output.escape(segment.document.name)
    if layout.width is not None:
        name = layout.shorten(name, max(layout.width - len(start + end), MIN_NAME), middle=True)
    output.out.print(Text(f"{start}{name}", style="bold").append(end, style="dim"))
    words = output.escape(" ".join(segment.content.split()))
    passage = layout.shorten(words, MAX_PASSAGE, middle=False)
    width = min(output.out.width, MAX_WIDTH) - len(INDENT)
    lines = [f"{INDENT}{line}" for line in wrap_words(passage, width, breaks_wide=True)]
    output.out.print("\n".join([*lines, ""]))
