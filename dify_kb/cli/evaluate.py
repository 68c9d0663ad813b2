from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from attrs import frozen

from dify_kb.bench.benchmark_plan import CHUNK_SIZES, TOP_KS
from dify_kb.errors import ConfigError

from . import completion, name_lookup, option_types, output
from .bench import HtmlOption, SaveOption, TechniqueOption
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb.bench.quality.evaluation_queries import EvaluationQuery
    from dify_kb.bench.quality.evaluator import Chunking
    from dify_kb.ingest import Source

MAX_TOP_K = 100
"""The largest `--top-k`: results beyond it do not matter in practice."""


@frozen(kw_only=True)
class EvaluationInput:
    """The queries of an evaluation and the documents to load for them."""

    queries: Sequence[EvaluationQuery]
    origin: str
    source: Source | None
    """None to search an existing dataset."""


def evaluate(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="QUERIES",
            parser=option_types.parse_path,
            help='JSON Lines: {"query": "…", "relevant": ["name.md", {"text": "…"}]}; default:'
            " queries about the documents of `bench corpus`.",
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            metavar="NAME|ID",
            help="Name or id of the dataset, or PROFILE:NAME; it is not changed.",
            callback=option_types.select_optional_dataset,
            autocompletion=completion.complete_dataset,
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--corpus",
            metavar="DIR",
            help="Folder with documents to index, once with each chunking.",
            parser=option_types.parse_path,
        ),
    ] = None,
    chunk_size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            min=option_types.MIN_CHUNK_SIZE,
            max=option_types.MAX_CHUNK_SIZE,
            help="Maximum chunk size in characters; repeatable. Default:"
            f" {', '.join(map(str, CHUNK_SIZES))}.",
        ),
    ] = None,
    top_k: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=MAX_TOP_K,
            metavar="N",
            help="Maximum passages per search; repeatable. Default:"
            f" {', '.join(map(str, TOP_KS))}.",
        ),
    ] = None,
    technique: TechniqueOption = None,
    html: HtmlOption = None,
    save: SaveOption = None,
) -> None:
    """Measure retrieval quality with queries of known answers.

    Runs the queries with every search method and prints recall, MRR and nDCG of each, to choose
    weights, reranking and chunk size. --dataset searches an existing dataset. --corpus loads a
    folder into temporary datasets, one per chunking, and deletes them at the end.

    In QUERIES a relevant item is {"document": "name, path or id"}, or {"text": "part of a
    passage"}. A plain string is a document if it ends with a file extension, else a text.
    """
    from dify_kb.bench import results
    from dify_kb.bench.benchmark_progress import RequestCounter
    from dify_kb.bench.quality import evaluator
    from dify_kb.bench.quality.evaluator import list_chunkings
    from dify_kb.bench.quality.render_quality_report import render_quality_page

    from . import benchmark_output

    command: CommandContext = context.obj
    inputs = _read_input(file, folder, dataset)
    chunkings = list_chunkings(chunk_size or CHUNK_SIZES, parents=not chunk_size)
    ks = sorted(set(top_k or TOP_KS))
    benchmark_output.check_writable((html, save))
    tally = RequestCounter()

    async def main() -> int:
        async with command.create_client(on_event=tally.record) as client:
            output.note(_describe_evaluation(client.base_url, inputs, chunkings, ks))
            with benchmark_output.show_progress(
                quiet=command.quiet, plain=command.verbose
            ) as on_progress:
                quality = evaluator.RetrievalEvaluator(
                    client=client,
                    queries=inputs.queries,
                    source=inputs.origin,
                    counter=tally,
                    on_progress=on_progress,
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
            benchmark_output.print_quality_report(report)
        benchmark_output.save_file(save, results.dump_report(report) + "\n")
        benchmark_output.save_file(html, render_quality_page(report))
        return 0

    command.run(main, interrupt_message="" if dataset else benchmark_output.CLEANUP_NOTICE)


def _read_input(file: Path | None, folder: Path | None, dataset: str | None) -> EvaluationInput:
    """Read the queries, and determine the documents, given by the options.

    Raises:
        ConfigError: the options exclude each other, or one is missing or invalid.
    """
    from dify_kb.bench.quality import evaluation_queries, evaluator

    if folder is not None and dataset is not None:
        raise ConfigError("--dataset and --corpus cannot be combined.", hint="Remove one of them.")
    if file is None:
        if folder is not None or dataset is not None:
            raise ConfigError(
                "Missing argument QUERIES: --dataset and --corpus require queries.",
                hint=f"Pass a file with lines like {evaluation_queries.EXAMPLE}",
            )
        samples = evaluation_queries.default_documents()
        source = evaluator.items_from_documents([(sample.name, sample.data) for sample in samples])
        return EvaluationInput(
            queries=evaluation_queries.default_queries(samples),
            origin="the default queries",
            source=source,
        )
    if folder is None and dataset is None:
        raise ConfigError(
            "No documents for the queries.", hint="Pass --dataset NAME or --corpus DIR."
        )
    if folder is not None and not folder.is_dir():
        raise ConfigError(
            f"Not a directory: {folder}", hint="Pass a folder with documents to --corpus."
        )
    return EvaluationInput(
        queries=evaluation_queries.read_queries(file), origin=str(file), source=folder
    )


def _describe_evaluation(
    url: str, inputs: EvaluationInput, chunkings: Sequence[Chunking], ks: Sequence[int]
) -> str:
    from dify_kb.bench.search_methods import MAX_COMPARED_METHODS

    bases = 1 if inputs.source is None else len(chunkings)
    searches = bases * MAX_COMPARED_METHODS * (len(inputs.queries) + 1)
    notice = "" if inputs.source is None else f" Creates and deletes {bases} temporary datasets."
    return (
        f"Evaluating {len(inputs.queries):,} queries on {output.escape(url)}, {max(ks)} passages"
        f" each: at most {searches:,} searches.{notice}"
    )
