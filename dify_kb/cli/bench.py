from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from dify_kb import AsyncClient
from dify_kb.bench import own, stored, tables
from dify_kb.bench.compare import Difference, compare
from dify_kb.bench.corpus import corpus, own_files
from dify_kb.bench.instance import Instance
from dify_kb.bench.instance_page import instance_page
from dify_kb.bench.page import Table
from dify_kb.bench.plan import Plan, Technique
from dify_kb.bench.quality import queries, shipped
from dify_kb.bench.report import InstanceReport
from dify_kb.bench.stored import Report
from dify_kb.bench.svg import number
from dify_kb.bench.watch import Tally
from dify_kb.errors import ConfigError
from dify_kb.wire import codec

from . import bulk, measured, show, words
from .act import act, json
from .app import Session, app
from .find import Thing

bench = typer.Typer(invoke_without_command=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")

Html = Annotated[
    Path | None,
    typer.Option(
        "--html", metavar="FILE", help="Write an HTML page with plots.", parser=words.path
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save",
        metavar="FILE",
        help="Write the report as JSON, for bench compare.",
        parser=words.path,
    ),
]
Kind = Annotated[
    Technique | None,
    typer.Option(help="Else high_quality where the server has an embedding model, which costs."),
]


@bench.callback()
def measure(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Within 2 minutes; else 20, and finer.")
    ] = False,
    at_once: Annotated[
        int | None, typer.Option("--at-once", metavar="N", min=1, help="Requests at once at most.")
    ] = None,
    technique: Kind = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--corpus",
            metavar="DIR",
            help="Folder of files to index; default: generated manuals.",
            parser=words.path,
        ),
    ] = None,
    html: Html = None,
    save: Save = None,
) -> None:
    """Measure how fast an instance is.

    Uploads by size and number at once with the knee marked, indexing, retrieval by method, lists
    of a growing base, and the errors met. It makes knowledge bases of its own (dify-kb-bench-…)
    and deletes them, also after Ctrl-C; `bench clean` deletes those of killed runs.

    What it costs at most is told before it begins.
    """
    if context.invoked_subcommand is not None:
        return
    session: Session = context.obj
    plan = Plan.quick() if quick else Plan.full()
    plan = plan if at_once is None else plan.bounded(at_once)
    measured.writable((html, save))
    samples = (
        list(corpus(plan.documents))
        if folder is None
        else own_files(folder, documents=plan.documents, size=plan.corpus_bytes)
    )
    tally = Tally()

    async def main() -> int:
        async with session.client(on_event=tally.see, concurrency=plan.load().at_once) as client:
            show.err.print(_announced(client.base_url, plan))
            with measured.progress(quiet=session.quiet, plain=session.verbose) as tell:
                instance = Instance(
                    client=client,
                    plan=plan,
                    samples=samples,
                    tally=tally,
                    tell=tell,
                    technique=technique,
                )
                report = await instance.measure()
        if session.json:
            show.line(codec.fields(report))
        else:
            _print(report)
        measured.keep(save, stored.dumped(report) + "\n")
        measured.keep(html, instance_page(report))
        return 0

    session.run(main, on_first=measured.LEFT)


@bench.command("compare")
def compare_reports(
    context: typer.Context,
    before: Annotated[
        Path, typer.Argument(metavar="BEFORE", help="A saved report.", parser=words.path)
    ],
    after: Annotated[
        Path,
        typer.Argument(metavar="AFTER", help="A later report of the same kind.", parser=words.path),
    ],
    everything: Annotated[bool, typer.Option("--all", help="Also what did not change.")] = False,
) -> None:
    """Tell what changed between two reports, of `bench` or of `eval`.

    A difference counts where it is over a tenth and beyond the spread of both.
    """
    one, other = stored.loaded(before), stored.loaded(after)
    if one.type != other.type:
        raise ConfigError(
            f"{before} is a report of {one.type}, {after} one of {other.type}.",
            hint="Compare two of the same command.",
        )
    found = compare(one, other)
    if json(context):
        for row in found:
            show.model("difference", row)
        return
    _print_differences(found, everything=everything, sides=(one, other))


@bench.command()
def clean(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete the knowledge bases that killed runs left. Not while another one runs."""

    async def main(client: AsyncClient) -> int:
        found = [Thing(row.id, row.name) for row in await own.leftovers(client)]
        if not found:
            show.err.print("Nothing is left.")
            return 0
        what = f"{bulk.counted(len(found), 'dataset')} of benchmarks"
        await bulk.ask(what, [str(thing) for thing in found], yes=yes)

        async def delete(thing: Thing) -> None:
            await client.datasets.delete(thing.id)

        return await bulk.one_by_one(
            found, delete, bulk.Teller("dataset", "deleted", json=json(context))
        )

    act(context, main)


@bench.command("corpus")
def write_corpus(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder to create.", parser=words.path)
    ],
    documents: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
) -> None:
    """Write the corpus of made-up manuals, and queries with known answers, as `eval` takes them.

    The same each time: several languages, formats and sizes, as in real folders.
    """
    try:
        (folder / "documents").mkdir(parents=True)
        samples = list(corpus(documents))
        for sample in samples:
            (folder / "documents" / sample.name).write_bytes(sample.data)
        lines = [show.dumped(queries.as_line(asked)) for asked in shipped.questions(samples)]
        (folder / "queries.jsonl").write_text("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be written ({error.strerror}).", hint="Name a new folder."
        ) from error
    show.err.print(
        f"{len(samples):,} documents and {len(lines):,} queries. Try\n"
        f"  dify-kb eval {folder / 'queries.jsonl'} --corpus {folder / 'documents'}"
    )


def _announced(url: str, plan: Plan) -> str:
    load = plan.load()
    return (
        f"Measuring {show.printable(url)}: at most {load.documents:,} documents"
        f" ({tables.bytes_of(load.bytes)}), {load.searches:,} searches and {load.at_once} requests"
        f" at once, for {load.seconds:.0f} s.\n"
        f"{plan.documents} of the documents and the searches are embedded, if the server has a"
        " model. Everything is deleted at the end, also after Ctrl-C."
    )


def _print(report: InstanceReport) -> None:
    measured.print_facts(tables.facts(report))
    for row in report.uploads:
        heading = f"Uploads of {tables.bytes_of(row.size)}. {tables.knee_of(row)}"
        measured.print_table(heading, tables.uploads(row))
    if report.indexed:
        measured.print_table("Indexing", tables.indexed(report.indexed))
    if report.searches:
        measured.print_table("Retrieval", tables.searches(report.searches))
    if report.listed:
        measured.print_table("A page of 100 documents", tables.listed(report.listed))
    if report.troubles:
        measured.print_table("Errors met", tables.troubles(report.troubles))
    for note in report.notes:
        show.err.print(f"note: {show.printable(note)}")


def _print_differences(
    found: Sequence[Difference],
    *,
    everything: bool,
    sides: tuple[Report, Report],
) -> None:
    shown = [row for row in found if everything or row.verdict != "same"]
    if shown:
        rows = [
            [
                row.name,
                number(row.before),
                number(row.after),
                row.unit,
                "-" if row.ratio is None else f"{row.ratio:.2f}",
                row.verdict,
            ]
            for row in shown
        ]
        names = tuple(side.where.when for side in sides)
        columns = ("", *names, "unit", "ratio", "")
        measured.print_table("Changed", Table(columns=columns, rows=rows))
    same = len(found) - len([row for row in found if row.verdict != "same"])
    show.err.print(f"{same} of {len(found)} numbers did not change beyond their spread.")
