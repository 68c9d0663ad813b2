"""`dify-kb segments export` and `import`: review the chunks of a dataset in a table."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import name_lookup, option_types, output
from .bulk import SOME_FAILED, format_count
from .run_command import is_json_output, run_with_client

if TYPE_CHECKING:
    from dify_kb import AsyncClient
    from dify_kb.archive.apply_segment_table import ChangeKind
    from dify_kb.archive.segment_tables import ChunkRow

TableArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        help="Table: .csv, .xlsx or .jsonl.",
        parser=option_types.parse_path,
    ),
]


def export_table(
    context: typer.Context,
    dataset: option_types.DatasetArgument,
    file: TableArgument,
    name: option_types.NamePatternOption = None,
) -> None:
    """Write the chunks of a dataset to a table for review.

    A row per chunk: content, answer, keywords, enabled. Edit these, write yes into `delete`, or add
    rows without a segment_id; then apply the table with `segments import`. Costs one request per
    100 documents and one per 100 chunks of each document.
    """
    from dify_kb.archive.segment_tables import ChunkRow, open_writer

    async def main(client: AsyncClient) -> None:
        target = await name_lookup.find_dataset(client, dataset)
        documents = chunks = 0
        with open_writer(file) as write:
            async for document in client.documents.iter(target):
                if name is not None and not fnmatchcase(document.name, name):
                    continue
                documents += 1
                async for segment in client.segments.iter(target, document.id):
                    write(ChunkRow.from_segment(document, segment))
                    chunks += 1
        if is_json_output(context):
            output.print_json({"type": "report", "documents": documents, "chunks": chunks})
            return
        output.out.print(
            f"{output.escape(str(file))}: {format_count(chunks, 'chunk')} of"
            f" {format_count(documents, 'document')}."
        )

    run_with_client(context, main)


def import_table(
    context: typer.Context,
    file: TableArgument,
    dataset: option_types.DatasetOption,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Overwrite chunks that were changed on the server since the export."
        ),
    ] = False,
    dry_run: option_types.DryRunOption = False,
) -> None:
    """Apply an edited table of `segments export`.

    Only rows that were edited are sent. A chunk that somebody else changed since the export is a
    conflict and stays. Chunks without a row stay.

    Exit codes: 0 success, 3 some rows failed or are in conflict.
    """
    from dify_kb.archive.apply_segment_table import SegmentTableUpdate
    from dify_kb.archive.segment_tables import read_rows

    def report(kind: ChangeKind, row: ChunkRow, reason: str) -> None:
        if kind == "unchanged":
            return
        if is_json_output(context):
            place = {"document_id": row.document_id, "segment_id": row.segment_id}
            output.print_json({"type": kind, **place, "reason": reason})
        elif reason:
            where = f"{row.document} {row.segment_id}".strip()
            output.err.print(f"  {kind}  {output.escape(where)}: {output.escape(reason)}")

    async def main(client: AsyncClient) -> int:
        target = await name_lookup.find_dataset(client, dataset)
        update = SegmentTableUpdate(
            segments=client.segments,
            dataset=target,
            on_result=report,
            force=force,
            dry_run=dry_run,
        )
        await update.apply(read_rows(file))
        counts = update.counts
        shown = ", ".join(f"{count:,} {kind}" for kind, count in sorted(counts.items()))
        if is_json_output(context):
            output.print_json({"type": "report", "dry_run": dry_run, **counts})
        else:
            output.out.print(f"{'Would be: ' if dry_run else ''}{shown or 'Nothing to do'}.")
        return SOME_FAILED if counts["failed"] or counts["conflict"] else 0

    run_with_client(context, main)
