from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.text import Text

import dify_kb
from dify_kb.errors import ConfigError

from . import name_lookup, output
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb import Dataset, ModelRef, Record, RetrievalModel
    from dify_kb.models import MetadataFilter

MAX_PASSAGE = 400
"""Characters of a passage that people are shown."""

MAX_WIDTH = 96
"""Characters of a line of text that reads well."""

Method = Literal["semantic", "full_text", "hybrid", "keyword"]


def search(
    context: typer.Context,
    query: Annotated[str, typer.Argument(help="What to look for, 1 to 250 characters.")],
    dataset: Annotated[str, typer.Option(help="Name or id of the dataset.")],
    method: Annotated[
        Method | None, typer.Option(help="Else semantic, or keyword in an economy dataset.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Passages at most.")] = 4,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out passages below this score.")
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", metavar="CONDITION", help="On metadata, e.g. 'year >= 2024'; all must hold."
        ),
    ] = None,
) -> None:
    """Search a dataset and show the passages, the best first."""
    from . import document_selection

    command: CommandContext = context.obj
    conditions = document_selection.parse_conditions(filter_ or ())

    async def main() -> int:
        async with command.create_client() as client:
            target = await name_lookup.find_dataset(client, dataset)
            await document_selection.check_fields(client, target, conditions)
            model = _build_retrieval_model(target, method, top_k, score_threshold, conditions)
            response = await client.datasets.retrieve(target, query, retrieval_model=model)
        for rank, record in enumerate(response.records, 1):
            if command.json:
                output.print_json({"type": "record", "rank": rank, **output.to_fields(record)})
            else:
                _print_record(rank, record)
        if not response.records:
            output.err.print("Nothing found.")
        return 0

    command.run(main)


def _build_retrieval_model(
    target: Dataset,
    method: Method | None,
    top_k: int,
    threshold: float | None,
    conditions: MetadataFilter | None,
) -> RetrievalModel:
    """Say how to search.

    Raises:
        ConfigError: the dataset has no such search; the server would fail, or find nothing.
    """
    economy = target.indexing_technique is not dify_kb.IndexingTechnique.HIGH_QUALITY
    method = method or ("keyword" if economy else "semantic")
    if economy != (method == "keyword"):
        raise ConfigError(
            f"{target.name!r} is {'an economy' if economy else 'a high_quality'} dataset,"
            f" which has no {method} search.",
            hint=f"Use {'keyword' if economy else 'semantic, full_text or hybrid'}.",
        )
    if economy:
        if threshold is not None:
            raise ConfigError(
                "Keyword search gives no scores to compare with --score-threshold.",
                hint="Leave it out.",
            )
        return dify_kb.RetrievalModel.keyword(top_k=top_k, metadata_filter=conditions)
    if method == "hybrid":
        return dify_kb.RetrievalModel.hybrid_weighted(
            embedding=_embedding_model(target),
            top_k=top_k,
            score_threshold=threshold,
            metadata_filter=conditions,
        )
    build = (
        dify_kb.RetrievalModel.full_text
        if method == "full_text"
        else dify_kb.RetrievalModel.semantic
    )
    return build(top_k=top_k, score_threshold=threshold, metadata_filter=conditions)


def _embedding_model(target: Dataset) -> ModelRef:
    return dify_kb.ModelRef(
        provider=target.embedding_model_provider or "", model=target.embedding_model or ""
    )


def _print_record(rank: int, record: Record) -> None:
    segment = record.segment
    score = f", score {record.score:.3f}" if record.score else ""
    title = Text(f"{rank}. {output.escape(segment.document.name)}", style="bold")
    output.out.print(title.append(f"  (chunk {segment.position}{score})", style="dim"))
    words = output.escape(" ".join(segment.content.split()))
    passage = textwrap.shorten(words, MAX_PASSAGE, placeholder=" …")
    width = min(output.out.width, MAX_WIDTH)
    indent = " " * 3
    lines = textwrap.wrap(passage, width, initial_indent=indent, subsequent_indent=indent)
    output.out.print("\n".join([*lines, ""]))
