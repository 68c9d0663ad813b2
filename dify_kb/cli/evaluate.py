from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from attrs import frozen

from dify_kb.bench import stored
from dify_kb.bench.methods import MOST
from dify_kb.bench.quality import measure, queries, shipped
from dify_kb.bench.quality.cuts import SIZES, Cut, cuts
from dify_kb.bench.quality.page import facts, quality_page, table
from dify_kb.bench.quality.queries import Asked
from dify_kb.bench.quality.report import QualityReport
from dify_kb.bench.watch import Tally
from dify_kb.errors import ConfigError
from dify_kb.ingest import Source
from dify_kb.wire import codec

from . import find, measured, show, words
from .app import Session, app
from .bench import Html, Kind, Save

DEEPEST = 100
"""Passages that a search may be asked for here; servers list no more of interest."""


@frozen(kw_only=True)
class _Given:
    """What is asked, and the documents that are loaded for it; None where a base has them."""

    asked: Sequence[Asked]
    origin: str
    source: Source | None


@app.command("eval")
def evaluate(
    context: typer.Context,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="QUERIES",
            parser=words.path,
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
            parser=words.path,
        ),
    ] = None,
    chunk_size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="N",
            help=f"Characters of a chunk; may be repeated. Else {', '.join(map(str, SIZES))}.",
        ),
    ] = None,
    top_k: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=DEEPEST,
            metavar="K",
            help=f"Passages that count; may be repeated. Else {', '.join(map(str, measure.KS))}.",
        ),
    ] = None,
    technique: Kind = None,
    html: Html = None,
    save: Save = None,
) -> None:
    """Measure how well retrieval finds what is known to be there.

    Asks queries with known answers in every way that a base can be searched, and tells recall,
    MRR and nDCG of each, so that weights, reranking and chunk size can be chosen. With --dataset
    of a base that there is; else bases of its own are made, one for each way to cut, and deleted.

    In QUERIES each relevant thing is {"document": name, path or id}, or {"text": what a passage
    holds}. A plain text is a document if it ends like the name of one, and else a text.
    """
    session: Session = context.obj
    given = _given(file, folder, dataset)
    ways = cuts(chunk_size or SIZES, parents=not chunk_size)
    ks = sorted(set(top_k or measure.KS))
    measured.writable((html, save))
    tally = Tally()

    async def main() -> int:
        async with session.client(on_event=tally.see) as client:
            show.err.print(_announced(client.base_url, given, ways, ks))
            with measured.progress(quiet=session.quiet, plain=session.verbose) as tell:
                quality = measure.Quality(
                    client=client,
                    asked=given.asked,
                    source=given.origin,
                    tally=tally,
                    tell=tell,
                    ks=ks,
                )
                if given.source is None:
                    where = await find.dataset(client, dataset or "")
                    report = await quality.of_dataset(where)
                else:
                    report = await quality.of_corpus(given.source, ways, technique)
        if session.json:
            show.line(codec.fields(report))
        else:
            _print(report)
        measured.keep(save, stored.dumped(report) + "\n")
        measured.keep(html, quality_page(report))
        return 0

    session.run(main, on_first="" if dataset else measured.LEFT)


def _given(file: Path | None, folder: Path | None, dataset: str | None) -> _Given:
    """Take what is asked of which documents.

    Raises:
        ConfigError: one is given without the other, or the queries are none.
    """
    if folder is not None and dataset is not None:
        raise ConfigError("Both --dataset and --corpus are given.", hint="Leave one of them out.")
    if file is None:
        if folder is not None or dataset is not None:
            raise ConfigError(
                "Nobody knows what should be found there: no QUERIES are given.",
                hint=f"Name a file of lines like {queries.EXAMPLE}",
            )
        samples = shipped.documents()
        source = measure.items([(sample.name, sample.data) for sample in samples])
        return _Given(asked=shipped.questions(samples), origin="the shipped set", source=source)
    if folder is None and dataset is None:
        raise ConfigError(
            "The queries are of which documents?", hint="Pass --dataset NAME, or --corpus DIR."
        )
    if folder is not None and not folder.is_dir():
        raise ConfigError(f"{folder} is no folder.", hint="Name a folder with documents.")
    return _Given(asked=queries.read(file), origin=str(file), source=folder)


def _announced(url: str, given: _Given, ways: Sequence[Cut], ks: Sequence[int]) -> str:
    bases = 1 if given.source is None else len(ways)
    searches = bases * MOST * (len(given.asked) + 1)
    made = "" if given.source is None else f" {bases} bases of its own are made and deleted."
    return (
        f"Asking {show.printable(url)} {len(given.asked):,} queries, the first {max(ks)} passages"
        f" of each: at most {searches:,} searches.{made}"
    )


def _print(report: QualityReport) -> None:
    measured.print_facts(facts(report))
    measured.print_table("All configurations, the best nDCG first", table(report))
    for note in report.notes:
        show.err.print(f"note: {show.printable(note)}")
