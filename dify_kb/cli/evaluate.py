from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import frozen

from dify_kb.bench.benchmark_plan import CHUNK_SIZES, TOP_KS
from dify_kb.errors import ConfigError

from . import name_lookup, option_types, output
from .bench import HtmlOption, SaveOption, TechniqueOption
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb.bench.quality.evaluation_queries import EvaluationQuery
    from dify_kb.bench.quality.evaluator import Chunking
    from dify_kb.ingest import Source

MAX_TOP_K = 100
"""Passages that a search may be asked for here; servers list no more of interest."""


@frozen(kw_only=True)
class EvaluationInput:
    """What is asked, and the documents that are loaded for it; None where a base has them."""

    queries: Sequence[EvaluationQuery]
    origin: str
    source: Source | None


def evaluate(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="QUERIES",
            parser=option_types.parse_path,
            help='JSONL: {"query": "…", "relevant": ["name.md", {"text": "…"}]}; else those that'
            " ship.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME|ID", help="Search this one; it is not changed."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--corpus",
            metavar="DIR",
            help="Load these documents with each chunking.",
            parser=option_types.parse_path,
        ),
    ] = None,
    chunk_size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help=f"Characters of a chunk; may be repeated. Else"
            f" {', '.join(map(str, CHUNK_SIZES))}.",
        ),
    ] = None,
    top_k: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=MAX_TOP_K,
            metavar="K",
            help=f"Passages that count; may be repeated. Else {', '.join(map(str, TOP_KS))}.",
        ),
    ] = None,
    technique: TechniqueOption = None,
    html: HtmlOption = None,
    save: SaveOption = None,
) -> None:
    """Measure how well retrieval finds what is known to be there.

    Asks queries with known answers in every way that a base can be searched, and tells recall,
    MRR and nDCG of each, so that weights, reranking and chunk size can be chosen. With --dataset
    of a base that there is; else bases of its own are made, one for each way to cut, and deleted.

    In QUERIES each relevant thing is {"document": name, path or id}, or {"text": what a passage
    holds}. A plain text is a document if it ends like the name of one, and else a text.
    """
    from dify_kb.bench import results
    from dify_kb.bench.benchmark_progress import RequestCounter
    from dify_kb.bench.quality import evaluator
    from dify_kb.bench.quality.evaluator import list_chunkings
    from dify_kb.bench.quality.render_quality_report import render_quality_page

    from . import report_output

    command: CommandContext = context.obj
    inputs = _read_input(file, folder, dataset)
    chunkings = list_chunkings(chunk_size or CHUNK_SIZES, parents=not chunk_size)
    ks = sorted(set(top_k or TOP_KS))
    report_output.check_writable((html, save))
    tally = RequestCounter()

    async def main() -> int:
        async with command.create_client(on_event=tally.record) as client:
            output.err.print(_describe_evaluation(client.base_url, inputs, chunkings, ks))
            with report_output.show_progress(quiet=command.quiet, plain=command.verbose) as tell:
                quality = evaluator.RetrievalEvaluator(
                    client=client,
                    queries=inputs.queries,
                    source=inputs.origin,
                    counter=tally,
                    on_progress=tell,
                    ks=ks,
                )
                if inputs.source is None:
                    target = await name_lookup.find_dataset(client, dataset or "")
                    report = await quality.evaluate_dataset(target)
                else:
                    report = await quality.evaluate_corpus(inputs.source, chunkings, technique)
        if command.json:
            output.print_json(output.to_fields(report))
        else:
            report_output.print_quality_report(report)
        report_output.save_file(save, results.dump_report(report) + "\n")
        report_output.save_file(html, render_quality_page(report))
        return 0

    command.run(main, interrupt_message="" if dataset else report_output.CLEANUP_NOTICE)


def _read_input(file: Path | None, folder: Path | None, dataset: str | None) -> EvaluationInput:
    """Take what is asked of which documents.

    Raises:
        ConfigError: one is given without the other, or the queries are none.
    """
    from dify_kb.bench.quality import evaluation_queries, evaluator

    if folder is not None and dataset is not None:
        raise ConfigError("Both --dataset and --corpus are given.", hint="Leave one of them out.")
    if file is None:
        if folder is not None or dataset is not None:
            raise ConfigError(
                "Nobody knows what should be found there: no QUERIES are given.",
                hint=f"Name a file of lines like {evaluation_queries.EXAMPLE}",
            )
        samples = evaluation_queries.default_documents()
        source = evaluator.items_from_documents([(sample.name, sample.data) for sample in samples])
        return EvaluationInput(
            queries=evaluation_queries.default_queries(samples),
            origin="the shipped set",
            source=source,
        )
    if folder is None and dataset is None:
        raise ConfigError(
            "The queries are of which documents?", hint="Pass --dataset NAME, or --corpus DIR."
        )
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder.", hint="Name a folder with documents.")
    return EvaluationInput(
        queries=evaluation_queries.read_queries(file), origin=str(file), source=folder
    )


def _describe_evaluation(
    url: str, inputs: EvaluationInput, chunkings: Sequence[Chunking], ks: Sequence[int]
) -> str:
    from dify_kb.bench.search_methods import MAX_COMPARED_METHODS

    bases = 1 if inputs.source is None else len(chunkings)
    searches = bases * MAX_COMPARED_METHODS * (len(inputs.queries) + 1)
    notice = "" if inputs.source is None else f" {bases} bases of its own are made and deleted."
    return (
        f"Asking {output.escape(url)} {len(inputs.queries):,} queries, the first {max(ks)} passages"
        f" of each: at most {searches:,} searches.{notice}"
    )
