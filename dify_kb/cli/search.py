from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

import dify_kb

from . import name_lookup, option_types, output
from .run_command import CommandContext
from .table_layout import wrap_words

if TYPE_CHECKING:
    from dify_kb import Record

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
    """Search a dataset and print the best passages."""
    from . import document_selection

    command: CommandContext = context.obj
    conditions = document_selection.parse_conditions(filter_ or ())

    async def main() -> int:
        async with command.create_client() as client:
            target = await name_lookup.find_dataset(client, dataset)
            metadata_filter = await document_selection.resolve_conditions(
                client, target, conditions
            )
            is_high_quality = target.indexing_technique is dify_kb.IndexingTechnique.HIGH_QUALITY
            response = await client.datasets.retrieve(
                target,
                query,
                method=method or ("semantic" if is_high_quality else None),
                top_k=top_k,
                score_threshold=score_threshold,
                filter=metadata_filter,
            )
        for rank, record in enumerate(response.records, 1):
            if command.json:
                output.print_json({"type": "record", "rank": rank, **output.to_fields(record)})
            else:
                _print_record(rank, record)
        if not response.records:
            output.note("No passages found.")
        elif all(record.score == 0 for record in response.records):
            output.note(
                "The server sent no scores: passages are sorted by the number of words that they"
                " share with the query."
            )
        return 0

    command.run(main)


def _print_record(rank: int, record: Record) -> None:
    segment = record.segment
    position = f"chunk {segment.position}" if segment.position is not None else "chunk"
    score = f", score {record.score:.3f}" if record.score else ""
    layout = output.table_format()
    start, end = f"{rank}. ", f"  ({position}{score})"
    name = output.escape(segment.document.name)
    if layout.width is not None:
        name = layout.shorten(name, max(layout.width - len(start + end), MIN_NAME), middle=True)
    output.out.print(Text(f"{start}{name}", style="bold").append(end, style="dim"))
    words = output.escape(" ".join(segment.content.split()))
    passage = layout.shorten(words, MAX_PASSAGE, middle=False)
    width = min(output.out.width, MAX_WIDTH) - len(INDENT)
    lines = [f"{INDENT}{line}" for line in wrap_words(passage, width, breaks_wide=True)]
    output.out.print("\n".join([*lines, ""]))
