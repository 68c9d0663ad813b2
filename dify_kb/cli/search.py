from __future__ import annotations

import textwrap
from typing import Annotated, Literal

import typer
from rich.text import Text

from dify_kb import IndexingTechnique, Record, RetrievalModel
from dify_kb.models import MetadataFilter
from dify_kb.wire import codec

from . import filters, find, show
from .app import Session, app

SHOWN = 400
"""Characters of a passage that people are shown."""

WIDEST = 96
"""Characters of a line of text that reads well."""

Method = Literal["semantic", "full_text", "keyword"]


@app.command()
def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="What to look for, 1 to 250 characters.")],
    dataset: Annotated[str, typer.Option(help="Name or id of the dataset.")],
    method: Annotated[Method | None, typer.Option(help="By default what the dataset has.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Passages at most.")] = 4,
    score_threshold: Annotated[
        float | None, typer.Option(help="Leave out passages below this score (0 to 1).")
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="CONDITION", help="On metadata, e.g. 'year >= 2024'; all must hold."
        ),
    ] = None,
) -> None:
    """Search a dataset and show the passages, the best first."""
    session: Session = context.obj
    conditions = filters.parsed(filter_ or ())

    async def main() -> int:
        async with session.client() as client:
            where = await find.dataset(client, dataset)
            await filters.check(client, where, conditions)
            economy = where.indexing_technique is not IndexingTechnique.HIGH_QUALITY
            model = _model(method, top_k, score_threshold, conditions, economy=economy)
            found = await client.datasets.retrieve(where, query, retrieval_model=model)
        for rank, record in enumerate(found.records, 1):
            if session.json:
                show.line({"type": "record", "rank": rank, **codec.fields(record)})
            else:
                _print(rank, record)
        if not found.records:
            show.err.print("Nothing found.")
        return 0

    session.run(main)


def _model(
    method: Method | None,
    top_k: int,
    threshold: float | None,
    conditions: MetadataFilter | None,
    *,
    economy: bool,
) -> RetrievalModel:
    match method or ("keyword" if economy else "semantic"):
        case "keyword":
            return RetrievalModel.keyword(top_k=top_k, metadata_filter=conditions)
        case "full_text":
            build = RetrievalModel.full_text
        case _:
            build = RetrievalModel.semantic
    return build(top_k=top_k, score_threshold=threshold, metadata_filter=conditions)


def _print(rank: int, record: Record) -> None:
    segment = record.segment
    score = f", score {record.score:.3f}" if record.score else ""
    title = Text(f"{rank}. {show.printable(segment.document.name)}", style="bold")
    show.out.print(title.append(f"  (chunk {segment.position}{score})", style="dim"))
    words = show.printable(" ".join(segment.content.split()))
    passage = textwrap.shorten(words, SHOWN, placeholder=" …")
    width = min(show.out.width, WIDEST)
    indent = " " * 3
    lines = textwrap.wrap(passage, width, initial_indent=indent, subsequent_indent=indent)
    show.out.print("\n".join([*lines, ""]))
