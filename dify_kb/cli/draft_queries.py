from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dify_kb.errors import ConfigError

from . import completion, name_lookup, option_types, output
from .command_line import format_command_line
from .run_command import CommandContext

if TYPE_CHECKING:
    from dify_kb.bench.quality.draft_queries import DraftPassage

MAX_DRAFTS = 10_000
"""The most queries that `eval draft` writes."""

DOCUMENTS_PER_DRAFT = 2
"""More documents are read than drafts needed: not each has text for every kind of draft."""

EvaluatedDatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        "-d",
        metavar="NAME|ID",
        help="Name or id of the dataset, or PROFILE:NAME; it is not changed.",
        callback=option_types.select_optional_dataset,
        autocompletion=completion.complete_dataset,
    ),
]


def draft(
    context: typer.Context,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR", help="Folder with documents.", parser=option_types.parse_path
        ),
    ] = None,
    dataset: EvaluatedDatasetOption = None,
    target: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="New file for the queries; default: standard output.",
            parser=option_types.parse_path,
        ),
    ] = None,
    queries: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_DRAFTS, help="Maximum number of queries.")
    ] = 50,
) -> None:
    """Propose queries for an evaluation, from a folder or a dataset.

    Takes questions of the texts with their answers, headings, rare words and single sentences,
    without a language model. Correct them and remove "draft" from those that people would ask:
    drafts repeat words of their answers, which flatters keyword search.
    """
    command: CommandContext = context.obj
    if (folder is None) == (dataset is None):
        raise ConfigError(
            "Pass either DIR or --dataset: the documents to draft queries from.",
            hint="Run `dify-kb eval draft docs/ -o queries.jsonl`.",
        )
    if target is not None and target.exists():
        raise ConfigError(
            f"{target} exists and may contain reviewed queries.", hint="Pass a new file to -o."
        )
    documents = DOCUMENTS_PER_DRAFT * queries
    if folder is not None:
        from dify_kb.bench.quality.read_passages import read_folder

        passages, notes = read_folder(folder, documents)
        for note in notes:
            output.note(f"note: {output.escape(note)}")
        _write_drafts(passages, queries, target, ("--corpus", str(folder)))
        return

    async def main() -> int:
        from dify_kb.bench.quality.read_passages import read_dataset

        async with command.create_client() as client:
            found = await name_lookup.find_dataset(client, dataset or "")
            passages = await read_dataset(client, found, documents)
        _write_drafts(passages, queries, target, ("--dataset", dataset or ""))
        return 0

    command.run(main)


def _write_drafts(
    passages: Sequence[DraftPassage], count: int, target: Path | None, documents: tuple[str, str]
) -> None:
    """Write drafts to a file or standard output.

    Raises:
        ConfigError: the texts give no query, or the file cannot be written.
    """
    from dify_kb.bench.quality.draft_queries import draft_queries
    from dify_kb.bench.quality.evaluation_queries import query_to_json

    drafts = draft_queries(passages, count)
    if not drafts:
        raise ConfigError(
            "The documents contain no sentences to draft queries from.",
            hint="Pass documents with continuous text.",
        )
    rows = [query_to_json(query) for query in drafts]
    if target is None:
        for row in rows:
            output.print_json(row)
        return
    try:
        with target.open("x", encoding="utf-8") as file:
            file.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    except OSError as error:
        raise ConfigError(
            f"Cannot write to {target}: {error.strerror}.",
            hint="Pass a new file in a folder that exists and is writable.",
        ) from error
    output.note(
        f"Wrote {len(drafts):,} drafts to {output.escape(str(target))}. Review them, then:\n"
        f"  {format_command_line(('eval', str(target), *documents))}"
    )
