from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from attrs import frozen
from typer.core import TyperGroup

from dify_kb.bench.benchmark_plan import CHUNK_SIZES, TOP_KS
from dify_kb.errors import ConfigError

from . import name_lookup, option_types, output
from .bench import SaveOption, TechniqueOption, confirm_start, require_confirmation
from .draft_queries import EvaluatedDatasetOption, draft
from .exit_codes import GATE_FAILED
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb.bench.quality.evaluation_queries import EvaluationQuery
    from dify_kb.bench.quality.evaluator import Chunking
    from dify_kb.bench.quality.quality_gates import Threshold
    from dify_kb.bench.results import QualityReport
    from dify_kb.ingest import Source

MAX_TOP_K = 100
"""The largest `--top-k`: results beyond it do not matter in practice."""


class QueriesGroup(TyperGroup):
    """A group whose own command takes an argument: `eval QUERIES`, `eval draft`."""

    allow_interspersed_args = True

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a subcommand if the first word is one, else the options and the argument."""
        if not args or args[0] not in self.commands:
            return super().parse_args(ctx, args)
        ctx.allow_interspersed_args = False
        parameters = self.params
        self.params = [each for each in parameters if each.param_type_name != "argument"]
        try:
            return super().parse_args(ctx, args)
        finally:
            self.params = parameters


evaluate = typer.Typer(cls=QueriesGroup, invoke_without_command=True, rich_markup_mode=None)


@frozen(kw_only=True)
class EvaluationInput:
    """The queries of an evaluation and the documents to load for them."""

    queries: Sequence[EvaluationQuery]
    origin: str
    source: Source | None
    """None to search an existing dataset."""

    documents: int
    """The number of documents to load, with each chunking."""


@frozen(kw_only=True)
class QualityGates:
    """The conditions of the exit code."""

    thresholds: Sequence[Threshold]
    earlier: QualityReport | None
    no_worse: bool

    def find_failures(self, report: QualityReport) -> Sequence[str]:
        """Return a sentence per condition that the report does not meet."""
        from dify_kb.bench.quality import quality_gates

        missed = quality_gates.find_missed_thresholds(report, self.thresholds)
        if self.earlier is None or not self.no_worse:
            return missed
        return [*missed, *quality_gates.find_regressions(self.earlier, report)]


@evaluate.callback()
def evaluate_queries(
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
    dataset: EvaluatedDatasetOption = None,
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
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Search method to evaluate, as the report names it, such as 'hybrid 0.7';"
            " repeatable. Default: all.",
        ),
    ] = None,
    technique: TechniqueOption = None,
    minimum: Annotated[
        list[str] | None,
        typer.Option(
            "--min",
            metavar="METRIC=N",
            help="Exit with 3 if the best method is below: recall@5=0.8, mrr=0.7, ndcg=0.75;"
            " repeatable.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Compare with an earlier report of --save, by the queries of both.",
            parser=option_types.parse_path,
        ),
    ] = None,
    no_worse: Annotated[
        bool,
        typer.Option(
            "--no-worse", help="Exit with 3 if a method is significantly worse than in --against."
        ),
    ] = False,
    html: option_types.HtmlOption = None,
    save: SaveOption = None,
    trec: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write relevant items and results to DIR, as qrels and run files of TREC.",
            parser=option_types.parse_path,
        ),
    ] = None,
    yes: option_types.YesOption = False,
) -> None:
    """Measure retrieval quality with queries of known answers.

    Runs the queries with every search method and prints recall, MRR and nDCG of each, to choose
    weights, reranking and chunk size. --dataset searches an existing dataset. --corpus loads a
    folder into temporary datasets, one per chunking, and deletes them at the end.

    In QUERIES a relevant item is {"document": "name, path or id"}, or {"text": "part of a
    passage"}. A plain string is a document if it ends with a file extension, else a text.

    Methods count as different only beyond chance, with at least 10 queries.
    """
    if context.invoked_subcommand is not None:
        return
    from dify_kb.bench import results
    from dify_kb.bench.benchmark_progress import RequestCounter
    from dify_kb.bench.quality import evaluator
    from dify_kb.bench.quality.evaluator import list_chunkings
    from dify_kb.bench.quality.render_quality_report import render_quality_page

    from . import benchmark_output

    command: CommandContext = context.obj
    ks = sorted(set(top_k or TOP_KS))
    gates = _read_gates(minimum or (), against, no_worse=no_worse, max_k=max(ks))
    ks = sorted({*ks, *(each.k for each in gates.thresholds if each.k is not None)})
    inputs = _read_input(file, folder, dataset)
    if gates.earlier is not None:
        _check_common_queries(gates.earlier, inputs)
    chunkings = list_chunkings(chunk_size or CHUNK_SIZES, parents=not chunk_size)
    benchmark_output.check_writable((html, save))
    confirms = require_confirmation(command, inputs.documents * len(chunkings), yes=yes)
    tally = RequestCounter()

    async def main() -> int:
        async with command.create_client(on_event=tally.record) as client:
            output.note(_describe_evaluation(client.base_url, inputs, chunkings, ks))
            if confirms:
                await confirm_start()
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
                    methods=method or (),
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
        if trec is not None:
            quality.write_trec_files(trec)
            output.note(f"Wrote TREC files to {output.escape(str(trec))}.")
        return _report_gates(gates, report, against, json=command.json)

    command.run(main, interrupt_message="" if dataset else benchmark_output.CLEANUP_NOTICE)


def _read_gates(
    minimum: Sequence[str], against: Path | None, *, no_worse: bool, max_k: int
) -> QualityGates:
    """Read the conditions of the exit code.

    Raises:
        ConfigError: one is invalid, or the earlier report cannot be read.
    """
    from dify_kb.bench import results
    from dify_kb.bench.quality.quality_gates import Threshold

    if no_worse and against is None:
        raise ConfigError(
            "--no-worse requires --against.", hint="Pass --against with a report of --save."
        )
    earlier = None if against is None else results.load_report(against)
    if earlier is not None and not isinstance(earlier, results.QualityReport):
        raise ConfigError(
            f"{against} is a report of `{earlier.type}`.", hint="Pass a report of `eval --save`."
        )
    thresholds = [Threshold.parse(text, max_k) for text in minimum]
    return QualityGates(thresholds=thresholds, earlier=earlier, no_worse=no_worse)


def _check_common_queries(earlier: QualityReport, inputs: EvaluationInput) -> None:
    from dify_kb.bench.quality.quality_gates import check_common_queries

    check_common_queries(earlier, inputs.queries)


def _report_gates(
    gates: QualityGates, report: QualityReport, against: Path | None, *, json: bool
) -> int:
    """Print changes and missed conditions, and return the exit code."""
    from dify_kb.bench.report_comparison import compare_quality

    from .benchmark_output import print_differences

    if gates.earlier is not None and against is not None:
        differences = compare_quality(gates.earlier, report)
        if json:
            for row in differences:
                output.print_model("difference", row)
        else:
            print_differences(differences, everything=False, sides=(against.name, "now"))
    failures = gates.find_failures(report)
    for failure in failures:
        if json:
            output.print_json({"type": "failed", "reason": failure})
        output.err.print(f"failed  {output.escape(failure)}")
    return GATE_FAILED if failures else 0


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
                hint=f"Pass a file with lines like {evaluation_queries.EXAMPLE}, or draft one with"
                " `dify-kb eval draft`.",
            )
        samples = evaluation_queries.default_documents()
        source = evaluator.items_from_documents([(sample.name, sample.data) for sample in samples])
        return EvaluationInput(
            queries=evaluation_queries.default_queries(samples),
            origin="the default queries",
            source=source,
            documents=len(samples),
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
        queries=evaluation_queries.read_queries(file),
        origin=str(file),
        source=folder,
        documents=0 if folder is None else sum(path.is_file() for path in folder.rglob("*")),
    )


def _describe_evaluation(
    url: str, inputs: EvaluationInput, chunkings: Sequence[Chunking], ks: Sequence[int]
) -> str:
    from dify_kb.bench.search_methods import MAX_COMPARED_METHODS

    number = len(inputs.queries)
    count = "1 query" if number == 1 else f"{number:,} queries"
    bases = 1 if inputs.source is None else len(chunkings)
    searches = bases * MAX_COMPARED_METHODS * (len(inputs.queries) + 1)
    notice = "" if inputs.source is None else f" Creates and deletes {bases} temporary datasets."
    return (
        f"Evaluating {count} on {output.escape(url)}, {max(ks)} passages"
        f" each: at most {searches:,} searches, and a few requests to prepare them.{notice}"
    )


evaluate.command("draft")(draft)
