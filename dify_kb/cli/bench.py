from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dify_kb.bench.benchmark_plan import BenchmarkPlan, Technique
from dify_kb.errors import ConfigError

from . import bulk, exit_codes, option_types, output
from .command_line import format_command_line
from .name_lookup import ResourceRef
from .run_command import CommandContext, is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient

MAX_DOCUMENTS = 100_000
"""The most documents that `bench corpus` writes."""

MAX_UNCONFIRMED = 1000
"""The most documents that a benchmark creates without confirmation."""

bench = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

SaveOption = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE",
        help="Write the report to FILE, as JSON for `bench compare`.",
        parser=option_types.parse_path,
    ),
]
TechniqueOption = Annotated[
    Technique | None,
    typer.Option(
        help="Indexing technique; default: high_quality if the server has an embedding model"
        " (which may charge for each call), else economy."
    ),
]


@bench.callback()
def measure(
    context: typer.Context,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Finish within 2 minutes instead of 20, with coarser results."
        ),
    ] = False,
    concurrency: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            max=option_types.MAX_CONCURRENCY,
            help="Maximum concurrent requests; default: 64, or 32 with --quick.",
        ),
    ] = None,
    technique: TechniqueOption = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--corpus",
            metavar="DIR",
            help="Folder with documents to index; default: generated manuals.",
            parser=option_types.parse_path,
        ),
    ] = None,
    html: option_types.HtmlOption = None,
    save: SaveOption = None,
    yes: option_types.YesOption = False,
) -> None:
    """Measure the performance of a Dify server.

    Measures uploads by size and concurrency up to the saturation point, indexing, retrieval by
    method, and list requests of a growing dataset; counts errors. Works in temporary datasets
    (dify-kb-bench-…) and deletes them, even after Ctrl-C. `bench clean` deletes those of killed
    runs.

    Prints the maximum cost in requests and documents before it starts, and asks for confirmation
    if more than 1,000 documents may be created on a real server.
    """
    if context.invoked_subcommand is not None:
        return
    from dify_kb.bench import results
    from dify_kb.bench.benchmark_progress import RequestCounter
    from dify_kb.bench.corpus import generate_documents, read_user_files
    from dify_kb.bench.instance_benchmark import InstanceBenchmark
    from dify_kb.bench.render_instance_report import render_instance_page

    from . import benchmark_output

    command: CommandContext = context.obj
    plan = BenchmarkPlan.quick() if quick else BenchmarkPlan.full()
    plan = plan if concurrency is None else plan.with_max_concurrency(concurrency)
    benchmark_output.check_writable((html, save))
    samples = (
        list(generate_documents(plan.documents))
        if folder is None
        else read_user_files(folder, documents=plan.documents, size=plan.corpus_bytes)
    )
    tally = RequestCounter()
    confirms = require_confirmation(command, plan.estimate_load().documents, yes=yes)

    async def main() -> int:
        async with command.create_client(
            on_event=tally.record, concurrency=plan.estimate_load().at_once
        ) as client:
            output.note(benchmark_output.describe_measurement(client.base_url, plan))
            if confirms:
                await confirm_start()
            with benchmark_output.show_progress(
                quiet=command.quiet, plain=command.verbose
            ) as on_progress:
                instance = InstanceBenchmark(
                    client=client,
                    plan=plan,
                    samples=samples,
                    counter=tally,
                    on_progress=on_progress,
                    technique=technique,
                )
                report = await instance.run()
        if command.json:
            output.print_json(output.to_fields(report))
        else:
            benchmark_output.print_instance_report(report)
        benchmark_output.save_file(save, results.dump_report(report) + "\n")
        benchmark_output.save_file(html, render_instance_page(report))
        return 0

    command.run(main, interrupt_message=benchmark_output.CLEANUP_NOTICE)


def require_confirmation(command: CommandContext, documents: int, *, yes: bool) -> bool:
    """Return whether a measurement that creates so many documents has to be confirmed.

    Raises:
        ConfigError: it has, and standard input is not a terminal.
    """
    is_embedded = (command.address or "").startswith("emulator:")
    if documents <= MAX_UNCONFIRMED or yes or is_embedded:
        return False
    bulk.require_terminal(f"a measurement with up to {documents:,} documents", "start")
    return True


async def confirm_start() -> None:
    """Request confirmation of a measurement on the terminal.

    Raises:
        Exit: it was not confirmed.
    """
    if not await bulk.ask("Start?"):
        output.err.print("Nothing was measured.")
        raise typer.Exit(exit_codes.GENERAL_ERROR)


@bench.command("compare")
def compare(
    context: typer.Context,
    before: Annotated[
        Path,
        typer.Argument(
            metavar="BEFORE", help="The earlier report.", parser=option_types.parse_path
        ),
    ],
    after: Annotated[
        Path,
        typer.Argument(metavar="AFTER", help="The later report.", parser=option_types.parse_path),
    ],
    everything: Annotated[bool, typer.Option("--all", help="Print unchanged values too.")] = False,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="PERCENT", help="Exit with 1 if a value is worse by more than this, e.g. 10%."
        ),
    ] = None,
) -> None:
    """Print the differences between two saved reports.

    Both are reports of `bench`, or both of `eval`. A speed changed if it differs by more than 10 %
    and by more than the spread of both runs, a metric of `eval` if it differs by more than chance.
    With --fail-on, parts that are missing in AFTER count as worse.
    """
    from dify_kb.bench import results
    from dify_kb.bench.report_comparison import compare_reports, list_missing_parts

    from .benchmark_output import print_differences

    share = None if fail_on is None else _parse_percentage(fail_on)
    earlier, later = results.load_report(before), results.load_report(after)
    differences = compare_reports(earlier, later)
    if is_json_output(context):
        for row in differences:
            output.print_model("difference", row)
    else:
        print_differences(differences, everything=everything, sides=_side_names(before, after))
    missing = list_missing_parts(earlier, later)
    for part in missing:
        output.err.print(f"missing  Not measured in {output.escape(after.name)}: {part}.")
    worse = [row for row in differences if share is not None and row.is_worse_by(share)]
    if worse:
        subject = "1 value is" if len(worse) == 1 else f"{len(worse)} values are"
        names = "; ".join(row.name for row in worse)
        output.err.print(f"failed  {subject} worse by more than {fail_on}: {output.escape(names)}")
    if worse or (missing and share is not None):
        raise typer.Exit(exit_codes.GENERAL_ERROR)


def _side_names(before: Path, after: Path) -> tuple[str, str]:
    """Return the headings of both files: their names, with folders only where these differ."""
    if before.name != after.name:
        return before.name, after.name
    return str(before), str(after)


def _parse_percentage(text: str) -> float:
    number = option_types.parse_number(text.strip().removesuffix("%"))
    if number is None or number < 0:
        raise ConfigError(f"Invalid percentage {text!r} for --fail-on.", hint="Pass 10%.")
    return number / 100


@bench.command()
def clean(
    context: typer.Context,
    yes: option_types.YesOption = False,
) -> None:
    """Delete the temporary datasets of killed runs.

    These are datasets of `bench`, `eval` and `doctor --trial` (dify-kb-bench-…). Do not use it
    while one of them runs: its datasets would be deleted too.
    """
    from dify_kb.bench import temporary_dataset

    async def main(client: AsyncClient) -> int:
        leftovers = [
            ResourceRef(row.id, row.name)
            for row in await temporary_dataset.find_leftover_datasets(client)
        ]
        if not leftovers:
            output.note("No datasets of killed runs found.")
            return 0
        subject = bulk.format_count(len(leftovers), "temporary dataset")
        await bulk.confirm_deletion(subject, [str(thing) for thing in leftovers], yes=yes)

        async def delete(thing: ResourceRef) -> None:
            await client.datasets.delete(thing.id)

        return await bulk.change_each(
            leftovers,
            delete,
            bulk.ChangeReporter("dataset", "deleted", json=is_json_output(context)),
        )

    run_with_client(context, main)


@bench.command("corpus")
def write_corpus(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder to create.", parser=option_types.parse_path),
    ],
    documents: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_DOCUMENTS, help="Number of documents.")
    ] = 100,
) -> None:
    """Write generated manuals, with queries for `eval`.

    The documents are the same each time, in several languages, formats and sizes.
    """
    from dify_kb.bench.corpus import generate_documents
    from dify_kb.bench.quality import evaluation_queries

    try:
        (folder / "documents").mkdir(parents=True)
        samples = list(generate_documents(documents))
        for sample in samples:
            (folder / "documents" / sample.name).write_bytes(sample.data)
        lines = [
            output.dump_json(evaluation_queries.query_to_json(query))
            for query in evaluation_queries.default_queries(samples)
        ]
        queries = folder / "queries.jsonl"
        queries.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    except OSError as error:
        raise ConfigError(
            f"Cannot write to {folder}: {error.strerror}.", hint="Pass a new folder."
        ) from error
    output.note(
        f"Wrote {len(samples):,} documents and {len(lines):,} queries. To evaluate retrieval:\n"
        f"  {format_command_line(('eval', str(queries), '--corpus', str(folder / 'documents')))}"
    )
